//! The literal renderer beside RedisVL's, on recorded inputs and outputs of RedisVL 0.28.
//!
//! Where we differ on purpose:
//!
//! | RedisVL | here | why |
//! |---|---|---|
//! | an empty value, list or text matches everything, and disappears from `&` and `\|` | [`Error::EmptyFilterValue`] | a tenant that is empty by accident would see all |
//! | a blank at the end of a tag is escaped | [`Error::InvalidFilterValue`] | the index strips it, so nothing would be found |
//! | infinite, reversed and empty ranges are sent | [`Error::InvalidFilterValue`] | the server refuses them or finds nothing |
//! | `%` takes query syntax | prefixes and words | a user's text could be syntax |
//! | texts are quoted as they came | lower-case words, parted as the index parts them | the index has no others; quotes and `\|` part words too |
//! | backtick, TAB and LF stay raw in a tag | escaped | the server takes them for blanks and finds another tag |
//! | a bare date is a whole day | times are points | a day is `start..end` |
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests"
)]
#![expect(clippy::print_stdout, reason = "says what it leaves out")]

use std::ops::Bound::{Excluded, Included, Unbounded};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inferkit_vectorsearch::{Error, Field, FieldKind, Filter, Rendering, Result, Schema, Text};
use serde_json::Value;

/// A schema with the field of a case; without stop words, which are the server's matter in RedisVL's texts.
fn schema(kind: &str, field: &str) -> Schema {
    let kind = match kind {
        "num" | "timestamp" => FieldKind::Numeric,
        "text" => FieldKind::Text,
        _ => FieldKind::Tag,
    };
    let field = Field::new(field.to_owned().into(), kind).index_missing();
    Schema::builder("i", "p:", field).without_stop_words().build().unwrap()
}

/// What becomes of an input here.
enum Ours {
    Filter(Result<Filter>),
    /// The type of the value does not exist here, so it does not compile.
    NoSuchType,
}

fn tag(field: &str, operator: &str, value: &Value) -> Ours {
    let values: Option<Vec<String>> = match value {
        Value::Null => Some(Vec::new()),
        Value::String(value) => Some(vec![value.clone()]),
        // A list of nothing but null is an empty one.
        Value::Array(values) if values == &[Value::Null] => Some(Vec::new()),
        Value::Array(values) => {
            values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
        }
        _ => None,
    };
    let Some(values) = values else { return Ours::NoSuchType };
    let prefix = values.first().and_then(|value| value.strip_suffix('*'));
    Ours::Filter(match (operator, prefix) {
        ("like", Some(prefix)) => Filter::tag_prefix(field, prefix),
        ("like", None) => Filter::any_of(field, values.concat().split('|')),
        ("!=", _) => Filter::any_of(field, values).map(|filter| !filter),
        _ => Filter::any_of(field, values),
    })
}

fn range(field: &str, operator: &str, low: f64, high: f64, inclusive: &str) -> Result<Filter> {
    match (operator, inclusive) {
        ("==", _) => Filter::number(field, low..=high),
        ("!=", _) => Filter::number(field, low..=high).map(|filter| !filter),
        ("<", _) => Filter::number(field, ..low),
        ("<=", _) => Filter::number(field, ..=high),
        (">", _) => Filter::number(field, (Excluded(high), Unbounded)),
        (">=", _) => Filter::number(field, low..),
        ("between", "both") => Filter::number(field, low..=high),
        ("between", "left") => Filter::number(field, low..high),
        ("between", "right") => Filter::number(field, (Excluded(low), Included(high))),
        ("between", "neither") => Filter::number(field, (Excluded(low), Excluded(high))),
        other => panic!("{other:?}"),
    }
}

fn number(field: &str, operator: &str, input: &Value) -> Ours {
    let read = |value: &Value| match value {
        Value::String(value) => value.parse().ok(),
        value => value.as_f64(),
    };
    let value = &input["value"];
    let (low, high) = if operator == "between" {
        (read(&value[0]), read(&value[1]))
    } else {
        (read(value), read(value))
    };
    let (Some(low), Some(high)) = (low, high) else { return Ours::NoSuchType };
    let inclusive = input["inclusive"].as_str().unwrap_or("both");
    Ours::Filter(range(field, operator, low, high, inclusive))
}

/// Reads what RedisVL takes for a time, as its first and last moment.
fn times(value: &Value) -> Option<(SystemTime, SystemTime)> {
    if let Some(seconds) = value.as_u64() {
        let time = UNIX_EPOCH + Duration::from_secs(seconds);
        return Some((time, time));
    }
    let text = value.as_str()?;
    let text =
        text.strip_prefix("datetime ").or_else(|| text.strip_prefix("date ")).unwrap_or(text);
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    // The days of March 2023, which began 1677628800 seconds after the epoch.
    if !text.starts_with("2023-03-") {
        println!("not read: {text}");
        return None;
    }
    let midnight = 1_677_628_800 + (number(8..10)? - 1) * 86_400;
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    if text.len() == 10 {
        return Some((at(midnight), at(midnight) + Duration::from_micros(86_399_999_999)));
    }
    let time = at(midnight + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?);
    Some((time, time))
}

fn timestamp(field: &str, operator: &str, input: &Value) -> Ours {
    let value = &input["value"];
    let (low, high) = match value {
        Value::Array(values) => (times(&values[0]), times(&values[1])),
        value => (times(value), times(value)),
    };
    let (Some((low, first_end)), Some((_, high))) = (low, high) else {
        return Ours::NoSuchType;
    };
    Ours::Filter(match (operator, input["inclusive"].as_str().unwrap_or("both")) {
        ("==", _) => Filter::time(field, low..=first_end),
        ("!=", _) => Filter::time(field, low..=first_end).map(|filter| !filter),
        ("<", _) => Filter::time(field, ..low),
        ("<=", _) => Filter::time(field, ..=first_end),
        (">", _) => Filter::time(field, (Excluded(first_end), Unbounded)),
        (">=", _) => Filter::time(field, low..),
        ("between", "both") => Filter::time(field, low..=high),
        ("between", "left") => Filter::time(field, low..high),
        ("between", "right") => Filter::time(field, (Excluded(low), Included(high))),
        ("between", "neither") => Filter::time(field, (Excluded(low), Excluded(high))),
        other => panic!("{other:?}"),
    })
}

fn text(field: &str, operator: &str, value: &Value) -> Ours {
    let words = value.as_str().unwrap_or_default();
    Ours::Filter(match operator {
        "like" => Filter::text(field, Text::all(words)),
        "!=" => Filter::text(field, Text::phrase(words)).map(|filter| !filter),
        _ => Filter::text(field, Text::phrase(words)),
    })
}

fn combination(input: &str) -> Ours {
    let tags = |values: &[&str]| Filter::any_of("tag_field", values.iter().copied());
    let two = || tags(&["tag1", "tag2"]);
    let both = |left: Result<Filter>, right: Result<Filter>| Ok(left? & right?);
    Ours::Filter(match input {
        "T1 | T2" => two().and_then(|left| Ok(left | tags(&["tag3"])?)),
        "[] & T" | "[] | T" => both(tags(&[]), tags(&["tag3"])),
        "None & tag" | "tag & None & None & geo" => both(tags(&[]), tags(&["tag"])),
        "\"\" & tag & [tag1,tag2]" => both(both(tags(&[""]), tags(&["tag"])), two()),
        "all None eq: Tag&Num&Text&Geo" | "all None ne" => tags(&[]),
        other => {
            // The cases that no unit test of RedisVL asserts are added here when they appear.
            println!("not expressed: {other}");
            return Ours::NoSuchType;
        }
    })
}

/// A query text without what means nothing, or means the same.
fn normal(kind: &str, query: &str) -> String {
    let mut normal = String::new();
    let mut characters = query.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            // We escape `_` too, and what RedisVL forgets.
            '\\' => normal.extend(characters.next().map(|escaped| format!("\\{escaped}"))),
            '_' | '`' | '\t' | '\n' | '\r' if normal.contains(":{") => {
                normal.push('\\');
                normal.push(character);
            }
            character => normal.push(character),
        }
    }
    if matches!(kind, "num" | "timestamp") {
        let bare = |word: &str| {
            let digits = word.trim_end_matches([']', ')']);
            let (sign, digits) =
                digits.split_at(digits.len() - digits.trim_start_matches('(').len());
            let end = &word[sign.len() + digits.len()..];
            match digits.parse::<f64>() {
                Ok(number) if number.is_finite() => format!("{sign}{number}{end}"),
                _ => word.to_owned(),
            }
        };
        let (field, range) = normal.split_once('[').unwrap();
        normal = format!("{field}[{}", range.split(' ').map(bare).collect::<Vec<_>>().join(" "));
    }
    if kind == "text" {
        normal = normal.replace("(\"", "\"").replace("\")", "\"");
    }
    normal
}

/// How the words of a text query compare: `@x:` and its words, negated or not.
fn words(query: &str) -> (bool, Vec<String>) {
    let negated = query.starts_with("(-");
    let (_, text) = query.split_once(':').unwrap();
    let parts = |character: char| {
        character.is_ascii() && !character.is_ascii_alphanumeric() && character != '_'
    };
    (negated, text.split(parts).filter(|word| !word.is_empty()).map(str::to_lowercase).collect())
}

/// The field of `ismissing(@field)`.
fn missing(case: &Value) -> &str {
    let query = case["expected"].as_str().unwrap_or_default();
    query.trim_start_matches("ismissing(@").trim_end_matches(')')
}

#[test]
fn literals_mean_what_those_of_redisvl_mean() {
    let Ok(folder) = std::env::var("INFERKIT_SHARED_DATA") else {
        println!("INFERKIT_SHARED_DATA is not set: RedisVL's recorded cases are not compared");
        return;
    };
    let file = format!("{folder}/vectorsearch/redisvl_filter_cases.json");
    let text_of_cases =
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{file}: {error}"));
    let cases: Value = serde_json::from_str(&text_of_cases).unwrap();
    let (mut same, mut refused, mut no_such_type, mut outside) = (0, 0, 0, 0);
    for case in cases["cases"].as_array().unwrap() {
        let (kind, input) = (case["kind"].as_str().unwrap(), &case["input"]);
        let field = || input["field"].as_str().unwrap_or("tag_field");
        let operator = input["op"].as_str().unwrap_or_default();
        let ours = match kind {
            "tag" => tag(field(), operator, &input["value"]),
            "num" => number(field(), operator, input),
            "timestamp" => timestamp(field(), operator, input),
            "text" => text(field(), operator, &input["value"]),
            "combination" => combination(input.as_str().unwrap()),
            "missing" => Ours::Filter(Filter::missing(missing(case))),
            // Geography, RedisVL's query classes and its schemas are no filters of ours.
            _ => {
                outside += 1;
                continue;
            }
        };
        let expected = case["expected"].as_str();
        let filter = match ours {
            Ours::Filter(filter) => filter,
            Ours::NoSuchType => {
                no_such_type += 1;
                continue;
            }
        };
        let schema = schema(kind, if kind == "missing" { missing(case) } else { field() });
        let rendered = filter.and_then(|filter| filter.render(&schema, Rendering::Literal));
        match (rendered, expected) {
            (Ok(rendered), Some(expected)) if kind == "text" => {
                assert_eq!(words(&rendered.text), words(expected), "{input}");
                same += 1;
            }
            (Ok(rendered), Some(expected)) => {
                assert_eq!(normal(kind, &rendered.text), normal(kind, expected), "{input}");
                same += 1;
            }
            // Matching everything by accident, in whole or in a part.
            (Err(Error::EmptyFilterValue { .. }), Some(expected)) => {
                assert!(expected == "*" || kind == "combination", "{input}: {expected}");
                refused += 1;
            }
            (Err(Error::InvalidFilterValue { .. }), Some(expected)) => {
                let known = ["@t:{trail\\ }", "@n:[inf inf]", "@n:[-inf (inf]", "@n:[5 2]"];
                assert!(known.contains(&expected), "{input}: {expected}");
                refused += 1;
            }
            (Err(_), None) => same += 1,
            (ours, expected) => panic!("{input}: {ours:?} instead of {expected:?}"),
        }
    }
    println!(
        "{same} the same, {refused} refused on purpose, {no_such_type} of types that do not exist here, {outside} other"
    );
    assert!(70 <= same, "{same}");
}
