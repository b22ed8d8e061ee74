//! What a filter finds: on Redis and on Valkey through parameters and through literals, and in memory.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]
#![cfg(feature = "redis")]

mod corpus;

use std::collections::BTreeSet;
use std::ops::Bound;
use std::time::{Duration, UNIX_EPOCH};

use corpus::{Corpus, Document, document};
use inferkit_localredis::Flavor;
use inferkit_vectorsearch::{Filter, Rendering, Text};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

const RENDERINGS: [Rendering; 2] = [Rendering::Params, Rendering::Literal];

/// What query languages trip over, whole and in parts.
const NASTY: &[&str] = &[
    "a",
    "b",
    "A",
    "ab",
    "Z9",
    "0",
    "-",
    "_",
    " ",
    "  ",
    "!",
    "\"",
    "#",
    "$",
    "$f0",
    "$f1",
    "%",
    "&",
    "'",
    "(",
    ")",
    "*",
    "+",
    ",",
    ".",
    "/",
    ":",
    ";",
    "<",
    "=",
    ">",
    "=>",
    "?",
    "@",
    "@t:{",
    "[",
    "]",
    "\\",
    "\\\\",
    "^",
    "`",
    "{",
    "}",
    "|",
    "||",
    "~",
    "\t",
    "\n",
    "\r",
    "é",
    "É",
    "ß",
    "中文",
    "🦀",
    "👩‍🚀",
    "\u{a0}",
    "\u{3000}",
    "\u{200b}",
    "\u{feff}",
    "\u{85}",
    "w'",
    "inf",
    "AND",
    "OR",
    "as",
    "ismissing",
    "the",
    "1.5",
    "-5",
    "*=>[KNN 1 @v $vector]",
];

fn nasty() -> impl Strategy<Value = String> {
    let short = prop::collection::vec(select(NASTY), 1..6).prop_map(|parts| parts.concat());
    let long = (short.clone(), 10_usize..80).prop_map(|(part, times)| part.repeat(times));
    prop_oneof![8 => short, 1 => long, 2 => any::<String>()]
}

/// Runs a property over a corpus; the server makes a case cost milliseconds, so there are few and large ones.
fn check<S: Strategy>(
    flavor: Flavor,
    cases: u32,
    strategy: &S,
    test: impl AsyncFn(&mut Corpus, S::Value) -> Result<(), TestCaseError>,
) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let corpus = std::cell::RefCell::new(runtime.block_on(Corpus::new(flavor)));
    let config =
        Config { cases, failure_persistence: None, max_shrink_iters: 300, ..Config::default() };
    let result = TestRunner::new(config)
        .run(strategy, |value| runtime.block_on(test(&mut corpus.borrow_mut(), value)));
    runtime.block_on(corpus.into_inner().close());
    result.unwrap_or_else(|error| panic!("{error}"));
}

fn any_string_is_found_by_itself_and_nothing_else(flavor: Flavor) {
    let strategy = prop::collection::btree_set(nasty(), 1..40);
    check(flavor, 60, &strategy, async |corpus, values| {
        let values: Vec<String> =
            values.into_iter().filter(|value| Filter::tag("t", value).is_ok()).collect();
        let known = |value: &String| {
            Filter::tag("t", value).unwrap().render(corpus.schema(), Rendering::Params).is_ok()
        };
        let values: Vec<String> = values.into_iter().filter(known).collect();
        corpus.fill(values.iter().map(|value| document("t", value.as_str())).collect()).await;
        for (id, value) in values.iter().enumerate() {
            let own = BTreeSet::from([id]);
            let others: BTreeSet<usize> = (0..values.len()).filter(|other| *other != id).collect();
            let filter = Filter::tag("t", value).unwrap();
            let end = value.char_indices().nth(3).map_or(value.len(), |(end, _)| end);
            let prefix = Filter::tag_prefix("t", &value[..end]);
            for rendering in RENDERINGS {
                if filter.render(corpus.schema(), rendering).is_err() {
                    let control = |character: char| character.is_ascii_control();
                    prop_assert!(rendering == Rendering::Literal && value.contains(control));
                    continue;
                }
                prop_assert_eq!(
                    corpus.search(&filter, rendering).await,
                    own.clone(),
                    "{:?}",
                    value
                );
                let negated = corpus.search(&!filter.clone(), rendering).await;
                prop_assert_eq!(negated, others.clone(), "not {:?}", value);
                let refused = rendering == Rendering::Literal && value[..end].contains('\\');
                if let Ok(prefix) = &prefix
                    && !refused
                {
                    let starting =
                        (0..values.len()).filter(|id| values[*id].starts_with(&value[..end]));
                    let found = corpus.search(prefix, rendering).await;
                    prop_assert_eq!(found, starting.collect(), "prefix {:?}", &value[..end]);
                }
            }
            prop_assert_eq!(corpus.matches(&filter), own, "{:?} in memory", value);
        }
        Ok(())
    });
}

fn tags() -> impl Strategy<Value = Vec<u8>> {
    let tag =
        select(&["red", "Red", "reddish", "blue|red", "a b", " pad ", "", "ünï", "*", "$f0"][..]);
    prop::collection::vec(tag, 0..4).prop_map(|tags| tags.join("\u{1f}").into_bytes())
}

fn numbers() -> impl Strategy<Value = Vec<u8>> {
    const ODD: &[&str] = &["1e3", "5.", ".5", "-0", "+2", "0.1", "1e-7", "123456789.125"];
    prop_oneof![
        select(ODD).prop_map(str::to_owned),
        (-5_i32..5).prop_map(|number| number.to_string()),
        any::<f64>()
            .prop_filter("no numbers", |number| number.is_finite())
            .prop_map(|number| number.to_string()),
    ]
    .prop_map(String::into_bytes)
}

fn texts() -> impl Strategy<Value = Vec<u8>> {
    let word = select(
        &[
            "red",
            "RED",
            "shoe",
            "shoes",
            "run",
            "running",
            "the",
            "for",
            "and",
            "a_b",
            "_",
            "5",
            "inf",
            "5e3",
            "größe",
            "中文",
            "w",
            "nan",
            "AS",
            "ismissing",
            "x1\u{a0}y",
        ][..],
    );
    let sign = select(
        &[
            " ", " ", " ", ", ", "-", "\n", "\t", "\\", "\\-", "'", "\"", " | ", ")", "\\\\ ",
            "\u{1}",
        ][..],
    );
    prop::collection::vec((word, sign), 0..7).prop_map(|parts| {
        parts.into_iter().flat_map(|(word, sign)| [word, sign]).collect::<String>().into_bytes()
    })
}

fn documents() -> impl Strategy<Value = Vec<Document>> {
    let optional = prop::option::weighted::<BoxedStrategy<Vec<u8>>>;
    let document = (
        optional(0.8, tags().boxed()),
        optional(0.5, nasty().prop_map(String::into_bytes).boxed()),
        optional(
            0.5,
            select(&["Red,blue", " RED ", "a b, red", ",,", "ünï"][..]).prop_map(Vec::from).boxed(),
        ),
        optional(0.8, numbers().boxed()),
        optional(0.8, texts().boxed()),
    );
    let document = document.prop_map(|(t, u, c, n, x)| {
        let fields = [("t", t), ("u", u), ("c", c), ("n", n), ("x", x)];
        fields.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    });
    prop::collection::vec(document, 1..30)
}

fn leaf() -> impl Strategy<Value = Filter> {
    let tag = select(&["red", "Red", "blue|red", "a b", "pad", "ünï", "*", "$f0", "none"][..]);
    let prefix = select(&["re", "red", "blue", "a ", "ün"][..]);
    let number = prop_oneof![
        (-5_i32..5).prop_map(f64::from),
        select(&[0.1, 1e-7, 1e3, 123_456_789.125, 1e300][..])
    ];
    let bound = move || {
        let number = number.clone();
        prop_oneof![
            number.clone().prop_map(Bound::Included),
            number.prop_map(Bound::Excluded),
            Just(Bound::Unbounded),
        ]
    };
    let text = texts().prop_map(|text| String::from_utf8(text).unwrap());
    let words = (select(&[Text::all as fn(String) -> Text, Text::any, Text::phrase][..]), text);
    let starts = select(&["sh", "run", "re", "gr", "5e", "inf", "th", "a_", "中"][..]);
    let any = prop_oneof![
        3 => prop::collection::vec(tag, 1..4).prop_map(|tags| Filter::any_of("t", tags)),
        1 => prefix.prop_map(|prefix| Filter::tag_prefix("t", prefix)),
        1 => nasty().prop_map(|value| Filter::tag("u", value)),
        3 => (bound(), bound()).prop_map(|range| Filter::number("n", range)),
        3 => words.prop_map(|(kind, text)| Filter::text("x", kind(text))),
        1 => select(&["red", "RED", "A b", "ünï"][..]).prop_map(|tag| Filter::tag("c", tag)),
        1 => select(&["t", "n", "x"][..]).prop_map(Filter::missing),
        1 => starts.prop_map(|word| Filter::text("x", Text::prefix(word))),
    ];
    any.prop_filter_map("a value that no filter takes", Result::ok)
}

fn tree() -> impl Strategy<Value = Filter> {
    leaf().prop_recursive(4, 16, 4, |node| {
        let many = prop::collection::vec(node.clone(), 2..4);
        prop_oneof![
            many.clone().prop_map(|nodes| nodes.into_iter().reduce(|a, b| a & b).unwrap()),
            many.prop_map(|nodes| nodes.into_iter().reduce(|a, b| a | b).unwrap()),
            node.prop_map(|node| !node),
        ]
    })
}

fn server_and_memory_agree(flavor: Flavor) {
    let strategy = (documents(), prop::collection::vec(tree(), 1..40));
    check(flavor, 60, &strategy, async |corpus, (documents, filters)| {
        corpus.fill(documents).await;
        for filter in filters {
            for rendering in RENDERINGS {
                // Only stop words, a separator, or a control character.
                let Ok(rendered) = filter.render(corpus.schema(), rendering) else { continue };
                let found = corpus.search(&filter, rendering).await;
                prop_assert_eq!(found, corpus.matches(&filter), "{}", rendered.text);
            }
        }
        Ok(())
    });
}

/// Each value of a reference document is told apart from what a careless renderer would find.
async fn special_characters_are_characters(flavor: Flavor) {
    let mut corpus = Corpus::new(flavor).await;
    let signs: Vec<char> = (' '..='\u{7f}')
        .filter(|sign| !sign.is_ascii_alphanumeric())
        .chain("\t\n\ré中\u{2}".chars())
        .collect();
    let mut values: Vec<String> = signs.iter().map(|sign| format!("ab{sign}cd")).collect();
    values.extend(
        [
            "ab",
            "cd",
            "gpt-4",
            "gpt",
            "4",
            "New York, Boston",
            "ab\\-cd",
            "ab\\\\cd",
            "a|b",
            "a",
            "b",
        ]
        .map(str::to_owned),
    );
    corpus.fill(values.iter().map(|value| document("t", value.as_str())).collect()).await;
    let mut refused = Vec::new();
    for (id, value) in values.iter().enumerate() {
        let filter = Filter::tag("t", value).unwrap();
        for rendering in RENDERINGS {
            if filter.render(corpus.schema(), rendering).is_err() {
                refused.push(value.as_str());
                continue;
            }
            assert_eq!(corpus.search(&filter, rendering).await, [id].into(), "{value:?}");
        }
    }
    assert_eq!(refused, ["ab\u{7f}cd", "ab\u{2}cd"]);
    corpus.close().await;
}

/// What no filter can ask for is also not found when stored, so refusing it hides nothing.
async fn refused_values_could_not_have_been_found(flavor: Flavor) {
    let mut corpus = Corpus::new(flavor).await;
    let long = "x".repeat(inferkit_vectorsearch::MAX_TAG_BYTES + 1);
    let longer = format!("{long}y");
    assert!(Filter::tag("t", &long).is_err());
    let values = ["ab\0cd", " ab", "ab ", "ab\u{1f}cd", &long, &longer];
    corpus.fill(values.iter().map(|value| document("t", *value)).collect()).await;
    // Without a check a long value would find what only starts as it does.
    let params = [("p".to_owned(), values[4].to_owned())];
    assert_eq!(corpus.query("@t:{$p}", &params).await.unwrap(), [4, 5].into());
    for value in &values[..4] {
        let filter = Filter::tag("t", *value).and_then(|filter| filter.check(corpus.schema()));
        assert!(filter.is_err(), "{value:?}");
        let params = [("p".to_owned(), (*value).to_owned())];
        assert_eq!(corpus.query("@t:{$p}", &params).await.unwrap(), BTreeSet::new(), "{value:?}");
    }
    corpus.close().await;
}

/// Documents with what is no number are not indexed at all; the others hold what is read in memory.
async fn numbers_are_read_alike(flavor: Flavor) {
    let mut corpus = Corpus::new(flavor).await;
    let texts = [
        "5",
        "+5",
        ".5",
        "5.",
        "-0",
        "1e5",
        "1E+5",
        "4e-320",
        "inf",
        "-Infinity",
        "0e9",
        "",
        " 1",
        "1 ",
        "1\n",
        "1\0",
        "1abc",
        "nan",
        "1e400",
        "-1e400",
        "1e-400",
        "1_0",
        "--1",
        "1,5",
        "1e",
        ".",
        "true",
        "٣",
        "123456789012345678901234567890",
    ];
    corpus.fill(texts.iter().map(|text| document("n", *text)).collect()).await;
    let indexed = corpus.search(&Filter::all(), Rendering::Params).await;
    for (id, text) in texts.iter().enumerate() {
        let number = |range: (Bound<f64>, Bound<f64>)| Filter::number("n", range).unwrap();
        let (low, high) = (f64::MIN, f64::MAX);
        let any = number((Bound::Included(low), Bound::Unbounded))
            | number((Bound::Unbounded, Bound::Included(high)));
        let read = any.matches(corpus.schema(), &|_| Some(text.as_bytes()));
        assert_eq!(read.is_ok_and(|read| read), indexed.contains(&id), "{text:?}");
        if let Ok(value) = text.parse::<f64>()
            && value.is_finite()
            && indexed.contains(&id)
        {
            let equal = number((Bound::Included(value), Bound::Included(value)));
            let found = corpus.search(&equal, Rendering::Literal).await;
            assert!(found.contains(&id), "{text:?}: found {found:?}");
        }
    }
    corpus.close().await;
}

async fn times_are_seconds(flavor: Flavor) {
    let mut corpus = Corpus::new(flavor).await;
    let texts = ["1679063400", "1679063400.25", "1679063400.250001", "-1.5", "0"];
    corpus.fill(texts.iter().map(|text| document("n", *text)).collect()).await;
    let at = UNIX_EPOCH + Duration::new(1_679_063_400, 250_000_000);
    for (filter, ids) in [
        (Filter::time("n", at..=at), &[1][..]),
        (Filter::time("n", at..), &[1, 2]),
        (Filter::time("n", (Bound::Excluded(at), Bound::Unbounded)), &[2]),
        (Filter::time("n", UNIX_EPOCH..at), &[0, 4]),
        (Filter::time("n", ..UNIX_EPOCH), &[3]),
    ] {
        let filter = filter.unwrap();
        for rendering in RENDERINGS {
            assert_eq!(corpus.search(&filter, rendering).await, ids.iter().copied().collect());
        }
        assert_eq!(corpus.matches(&filter), ids.iter().copied().collect());
    }
    corpus.close().await;
}

/// Words are words: stemmed neither alone nor under a negation, with or without stop words around them.
async fn words_are_found_as_they_stand(flavor: Flavor) {
    let mut corpus = Corpus::new(flavor).await;
    let long = "w".repeat(inferkit_vectorsearch::MAX_WORD_BYTES);
    let texts = ["red shoes for the men", "a Red shoe", "shoe-lace", "the", &long];
    corpus.fill(texts.iter().map(|text| document("x", *text)).collect()).await;
    for (text, ids) in [
        (Text::all("shoe"), &[1, 2][..]),
        (Text::all("SHOES, red"), &[0]),
        (Text::all("the red"), &[0, 1]),
        (Text::any("men lace"), &[0, 2]),
        (Text::phrase("shoe-lace"), &[2]),
        (Text::phrase("lace shoe"), &[]),
        (Text::phrase("shoes men"), &[0]),
        (Text::phrase("red shoes for the men"), &[0]),
        (Text::prefix("sho"), &[0, 1, 2]),
        (Text::prefix("SHOES"), &[0]),
        (Text::prefix("the"), &[]),
        (Text::all(&long), &[4]),
        (Text::all("men) | @t:{a"), &[]),
        (Text::all("%shoo%"), &[]),
        (Text::all("sho*"), &[]),
    ] {
        let filter = Filter::text("x", text.clone()).unwrap();
        let ids: BTreeSet<usize> = ids.iter().copied().collect();
        let others: BTreeSet<usize> = (0..texts.len()).filter(|id| !ids.contains(id)).collect();
        for rendering in RENDERINGS {
            assert_eq!(corpus.search(&filter, rendering).await, ids, "{text:?}");
            assert_eq!(corpus.search(&!filter.clone(), rendering).await, others, "not {text:?}");
        }
        assert_eq!(corpus.matches(&filter), ids, "{text:?}");
    }
    corpus.close().await;
}

/// The limits that the docs name: at the deepest and the broadest, the server still understands.
async fn the_largest_filters_are_understood(flavor: Flavor) {
    let mut corpus = Corpus::new(flavor).await;
    corpus.fill(vec![document("t", "a"), document("t", "b")]).await;
    let tag = |value: &str| Filter::tag("t", value).unwrap();
    let mut deep = !tag("none");
    for level in 2..inferkit_vectorsearch::MAX_FILTER_DEPTH {
        deep = if level % 2 == 0 { tag("a") & deep } else { !deep };
    }
    let values: Vec<String> =
        (0..5000).map(|value| value.to_string()).chain(["a".to_owned()]).collect();
    let broad = Filter::any_of("t", values).unwrap();
    let chain = (0..1000).fold(tag("a"), |chain, value| chain | tag(&value.to_string()));
    assert!((tag("a") | deep.clone()).check(corpus.schema()).is_err());
    for filter in [deep, broad, chain] {
        for rendering in RENDERINGS {
            assert_eq!(corpus.search(&filter, rendering).await, corpus.matches(&filter));
        }
    }
    corpus.close().await;
}

macro_rules! on_servers {
    (properties: $($property:ident),*; cases: $($case:ident),* $(,)?) => {
        on_servers! { @ redis Flavor::Redis; $($property),*; $($case),* }
        on_servers! { @ valkey Flavor::Valkey; $($property),*; $($case),* }
    };
    (@ $server:ident $flavor:expr; $($property:ident),*; $($case:ident),*) => {
        mod $server {
            use super::*;

            $(
                #[test]
                fn $property() {
                    super::$property($flavor);
                }
            )*

            $(
                #[tokio::test]
                async fn $case() {
                    super::$case($flavor).await;
                }
            )*
        }
    };
}

on_servers! {
    properties:
        any_string_is_found_by_itself_and_nothing_else,
        server_and_memory_agree;
    cases:
        numbers_are_read_alike,
        refused_values_could_not_have_been_found,
        special_characters_are_characters,
        the_largest_filters_are_understood,
        times_are_seconds,
        words_are_found_as_they_stand,
}
