use super::*;
use crate::VectorField;

fn schema() -> Schema {
    Schema::builder("docs", "docs:", VectorField::flat("v", 2))
        .tag("t")
        .tag("u")
        .numeric("n")
        .text("x")
        .build()
        .unwrap()
}

fn tag(value: &str) -> Filter {
    Filter::tag("t", value).unwrap()
}

fn number(range: impl RangeBounds<f64>) -> Filter {
    Filter::number("n", range).unwrap()
}

fn text(text: Text) -> Filter {
    Filter::text("x", text).unwrap()
}

fn params(filter: &Filter) -> String {
    let Rendered { text, params } = filter.render(&schema(), Rendering::Params).unwrap();
    params.iter().fold(text, |text, (name, value)| format!("{text} {name}={value}"))
}

fn literal(filter: &Filter) -> String {
    let Rendered { text, params } = filter.render(&schema(), Rendering::Literal).unwrap();
    assert_eq!(params, []);
    text
}

#[test]
fn both_renderings_are_golden() {
    use std::ops::Bound::{Excluded, Unbounded};
    for (filter, with_params, with_literals) in [
        (Filter::all(), "*", "*"),
        (tag("a|b {c}"), "@t:{$f0} f0=a|b {c}", r"@t:{a\|b\ \{c\}}"),
        (Filter::any_of("t", ["a", "b*"]).unwrap(), "@t:{$f0|$f1} f0=a f1=b*", r"@t:{a|b\*}"),
        (Filter::tag_prefix("t", "a *").unwrap(), "@t:{$f0*} f0=a *", r"@t:{a\ \**}"),
        (number(5.0..=5.0), "@n:[$f0 $f1] f0=5 f1=5", "@n:[5 5]"),
        (number(-2.5..1e300), "@n:[$f0 ($f1] f0=-2.5 f1=1e300", "@n:[-2.5 (1e300]"),
        (number((Excluded(5.0), Unbounded)), "@n:[($f0 +inf] f0=5", "@n:[(5 +inf]"),
        (number(..=5.0), "@n:[-inf $f0] f0=5", "@n:[-inf 5]"),
        (text(Text::all("the Red, shoes")), r#"@x:("red" "shoes")"#, r#"@x:("red" "shoes")"#),
        (text(Text::any("red|blue")), r#"@x:("red"|"blue")"#, r#"@x:("red"|"blue")"#),
        (text(Text::phrase("it's \"red\"")), r#"@x:("s red")"#, r#"@x:("s red")"#),
        (text(Text::prefix("a_Sho*")), "@x:($f0*) f0=a_sho", r"@x:(a\_sho*)"),
        (!tag("a"), "(-@t:{$f0}) f0=a", "(-@t:{a})"),
        (
            (tag("a") | number(1.0..)) & !tag("b") & tag("c"),
            "((@t:{$f0} | @n:[$f1 +inf]) (-@t:{$f2}) @t:{$f3}) f0=a f1=1 f2=b f3=c",
            "((@t:{a} | @n:[1 +inf]) (-@t:{b}) @t:{c})",
        ),
    ] {
        assert_eq!(params(&filter), with_params);
        assert_eq!(literal(&filter), with_literals);
    }
}

#[test]
fn everything_is_only_what_was_written_out() {
    let all = Filter::all;
    assert_eq!(all() & tag("a"), tag("a"));
    assert_eq!(tag("a") & all(), tag("a"));
    assert_eq!(all() & all(), all());
    assert_eq!(all() | tag("a"), all());
    assert_eq!(!!tag("a"), tag("a"));
    for filter in [!all(), !all() & tag("a"), tag("a") | !all()] {
        assert!(matches!(filter.check(&schema()), Err(Error::MatchesNothing)), "{filter:?}");
    }
}

#[test]
fn nothing_matches_everything_by_accident() {
    let none: [&str; 0] = [];
    for filter in [
        Filter::tag("t", ""),
        Filter::any_of("t", none),
        Filter::any_of("t", ["a", ""]),
        Filter::tag_prefix("t", ""),
        Filter::text("x", Text::all("")),
        Filter::text("x", Text::any(" \n\t")),
        Filter::text("x", Text::phrase("*|()-\"'\\")),
        Filter::text("x", Text::prefix("*")),
    ] {
        assert!(matches!(filter, Err(Error::EmptyFilterValue { .. })));
    }
}

#[test]
fn values_that_cannot_match_are_refused() {
    let long = "x".repeat(MAX_TAG_BYTES + 1);
    let invalid = |filter: Result<Filter>, value: &dyn fmt::Debug| {
        let error = filter.unwrap_err();
        assert!(matches!(error, Error::InvalidFilterValue { .. }), "{value:?}");
        assert!(error.to_string().contains("on `f`"), "{error}");
    };
    for value in ["a\0b", " a", "a ", "\ta", "a\u{b}", " ", "a\n", &long] {
        invalid(Filter::tag("f", value), &value);
    }
    for value in ["a", " ab", "a\0b", &long] {
        invalid(Filter::tag_prefix("f", value), &value);
    }
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        invalid(Filter::number("f", value..), &value);
        invalid(Filter::number("f", ..value), &value);
        invalid(Filter::number("f", value..=value), &value);
    }
    invalid(Filter::number("f", ..), &"open");
    invalid(Filter::number("f", 5.0..=2.0), &"reversed");
    invalid(Filter::number("f", 5.0..5.0), &"empty");
    let now = SystemTime::UNIX_EPOCH;
    invalid(Filter::time("f", now..now), &"empty");
    for text in
        [Text::all("y".repeat(MAX_WORD_BYTES + 1)), Text::prefix("two words"), Text::prefix("w")]
    {
        invalid(Filter::text("f", text.clone()), &text);
    }
    assert!(Filter::tag("t", "x".repeat(MAX_TAG_BYTES)).is_ok());
    assert!(Filter::tag_prefix("t", "a ").is_ok());
    assert!(Filter::text("x", Text::all("y".repeat(MAX_WORD_BYTES))).is_ok());
    for name in ["", "a b", "a}|@b:{c", "1"] {
        assert!(matches!(Filter::tag(name, "x"), Err(Error::InvalidName { .. })));
        assert!(matches!(Filter::number(name, 1.0..), Err(Error::InvalidName { .. })));
    }
}

#[test]
fn a_filter_that_does_not_fit_the_schema_is_refused_everywhere() {
    let nothing = |_: &str| None;
    let refused = |filter: Filter| {
        let filter = tag("a") | filter;
        let schema = schema();
        for rendering in [Rendering::Params, Rendering::Literal] {
            filter.render(&schema, rendering).unwrap_err();
        }
        filter.matches(&schema, &nothing).unwrap_err()
    };
    let error = refused(Filter::tag("nope", "a").unwrap());
    assert!(matches!(error, Error::UnknownField { .. }), "{error}");
    for (filter, expected) in [
        (Filter::tag("n", "a"), "TAG"),
        (Filter::tag_prefix("x", "ab"), "TAG"),
        (Filter::number("t", 1.0..), "NUMERIC"),
        (Filter::text("t", Text::all("a")), "TEXT"),
        (Filter::tag("v", "a"), "TAG"),
    ] {
        let error = refused(filter.unwrap());
        assert!(
            matches!(&error, Error::FieldKindMismatch { expected: got, .. } if *got == expected),
            "{error}"
        );
    }
    for filter in [
        tag("a\u{1f}b"),
        Filter::tag_prefix("t", "ab\u{1f}").unwrap(),
        text(Text::all("The")),
        !text(Text::phrase("to be")),
        text(Text::phrase("bora the bora")),
    ] {
        let error = refused(filter);
        assert!(matches!(error, Error::InvalidFilterValue { .. }), "{error}");
    }
    let error = refused(Filter::missing("t").unwrap());
    assert!(matches!(error, Error::MissingNotIndexed { .. }), "{error}");
    let deep = (0..MAX_FILTER_DEPTH).fold(tag("a"), |filter, level| {
        if level % 2 == 0 { filter & tag("b") } else { filter | tag("c") }
    });
    assert!(matches!(refused(deep), Error::InvalidParameter { .. }));
    let broad = (0..1000).fold(tag("a"), |filter, _| filter & tag("b"));
    assert!(broad.check(&schema()).is_ok());
}

#[test]
fn literals_refuse_what_they_cannot_escape() {
    for value in ["a\u{1}b", "a\u{7f}b", "a\u{b}b"] {
        let error = tag(value).render(&schema(), Rendering::Literal).unwrap_err();
        assert!(matches!(error, Error::InvalidFilterValue { .. }), "{error}");
        assert!(tag(value).render(&schema(), Rendering::Params).is_ok());
    }
}

#[test]
fn a_document_that_the_server_would_drop_is_an_error() {
    let document = |_: &str| Some(&b"five"[..]);
    let error = number(5.0..).matches(&schema(), &document).unwrap_err();
    assert!(matches!(error, Error::NotANumber { .. }), "{error}");
    assert!(!number(5.0..).matches(&schema(), &|_| None).unwrap());
    assert!((!number(5.0..)).matches(&schema(), &|_| None).unwrap());
}

#[test]
fn debug_shows_no_value() {
    let filter = (Filter::any_of("tenant", ["s3cret", "other"]).unwrap() | number(7.0..))
        & !text(Text::all("s3cret"))
        & Filter::tag_prefix("u", "s3cret").unwrap();
    assert_eq!(
        format!("{filter:?}"),
        "Filter ((tenant: any of 2 | n: number) & !x: text All of 1 & u: tag prefix)"
    );
    let rendered = tag("s3cret").render(&schema(), Rendering::Literal).unwrap();
    assert_eq!(format!("{rendered:?}"), "Rendered { params: 0, .. }");
    assert_eq!(filter.fields(), ["tenant", "n", "x", "u"]);
}
