//! The fields of a document as the JSON attributes of an element.
//!
//! Tags are arrays of percent-encoded text and numbers are numbers; every TAG and NUMERIC field of the schema is there,
//! as [`MISSING_TAG`] or [`MISSING_NUMBER`] where the document lacks it.
//! Other fields are strings, or `{"hex": "..."}` where they are not UTF-8.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::document::encode_field;
use crate::filter::number::{self, Decimal};
use crate::filter::{MISSING_NUMBER, MISSING_TAG, decoded, push_encoded};
use crate::{Error, Field, FieldKind, Fields, Result, Schema, Value};

/// The longest number that the server's filters read.
const MAX_NUMBER_BYTES: usize = 200;

/// Attributes as they are stored: names and JSON values.
pub(super) type Stored<'a> = BTreeMap<String, &'a RawValue>;

/// Checks fields and writes them as attributes; the vector is not among them.
pub(super) fn encode<'d>(
    schema: &Schema,
    fields: impl Iterator<Item = (&'d str, &'d Value)>,
) -> Result<String> {
    let mut values = BTreeMap::new();
    for field in schema.fields() {
        if let Some(missing) = missing(field) {
            values.insert(field.name(), missing);
        }
    }
    for (name, value) in fields {
        if let Some(json) = encode_value(schema, name, value)? {
            values.insert(name, json);
        }
    }
    Ok(object(values.iter().map(|(name, json)| (*name, json.as_str()))))
}

/// Writes attributes again with other values for some fields.
pub(super) fn change(stored: &[u8], changes: &[(&str, String)]) -> String {
    let mut values = parse(stored);
    let owned: Stored<'_> = changes
        .iter()
        .filter_map(|(name, json)| Some(((*name).to_owned(), serde_json::from_str(json).ok()?)))
        .collect();
    values.extend(owned);
    object(values.iter().map(|(name, json)| (name.as_str(), json.get())))
}

/// Reads attributes; what is not a JSON object has no fields.
pub(super) fn parse(stored: &[u8]) -> Stored<'_> {
    serde_json::from_slice(stored).unwrap_or_default()
}

/// Checks one field and returns its JSON; none for a vector.
pub(super) fn encode_value(schema: &Schema, name: &str, value: &Value) -> Result<Option<String>> {
    let stored = encode_field(schema, name, value)?;
    let field = schema.field(name);
    let kind = field.map(Field::kind);
    let json = match (kind, value) {
        (Some(FieldKind::Vector { .. }), _) => return Ok(None),
        (Some(FieldKind::Tag), Value::Tags(tags)) => array(tags.iter().map(String::as_str)),
        (Some(FieldKind::Tag), _) => {
            let text = String::from_utf8_lossy(&stored);
            let separator = field.map_or('\u{1f}', Field::separator);
            let tags = text.split(separator).map(|tag| tag.trim_matches(is_blank));
            array(tags.filter(|tag| !tag.is_empty()))
        }
        (Some(FieldKind::Numeric), _) => {
            let text = String::from_utf8_lossy(&stored);
            let is_json = serde_json::from_str::<serde_json::Number>(&text).is_ok();
            if is_json && text.len() <= MAX_NUMBER_BYTES {
                text.into_owned()
            } else {
                let fail = || Error::InvalidField {
                    field: name.to_owned(),
                    problem: "is not a finite number",
                };
                Decimal(number::parse(&stored).ok_or_else(fail)?).to_string()
            }
        }
        _ => match str::from_utf8(&stored) {
            Ok(text) => serde_json::Value::from(text).to_string(),
            Err(_) => {
                let hex: String = stored.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{{\"hex\":\"{hex}\"}}")
            }
        },
    };
    Ok(Some(json))
}

/// Reads the fields out of attributes: those in `returning`, or all.
pub(super) fn decode_fields(
    schema: &Schema,
    stored: &[u8],
    returning: Option<&[String]>,
) -> Fields {
    let values = parse(stored);
    let asked = |name: &String| returning.is_none_or(|names| names.contains(name));
    let fields = values.iter().filter(|(name, _)| asked(name)).filter_map(|(name, json)| {
        let value = decode_value(schema.field(name), json.get())?;
        Some((Bytes::copy_from_slice(name.as_bytes()), value))
    });
    fields.collect()
}

fn decode_value(field: Option<&Field>, json: &str) -> Option<Bytes> {
    let other = || Some(Bytes::copy_from_slice(json.as_bytes()));
    let Ok(value) = serde_json::from_str::<serde_json::Value>(json) else { return other() };
    match (field.map(Field::kind), &value) {
        (Some(FieldKind::Tag), serde_json::Value::String(text)) if text == MISSING_TAG => None,
        (Some(FieldKind::Tag), serde_json::Value::Array(tags)) => {
            let mut joined = Vec::new();
            for (index, tag) in tags.iter().filter_map(serde_json::Value::as_str).enumerate() {
                if index != 0 {
                    let separator = field.map_or('\u{1f}', Field::separator);
                    joined.extend_from_slice(separator.encode_utf8(&mut [0; 4]).as_bytes());
                }
                joined.extend(decoded(tag));
            }
            Some(joined.into())
        }
        (Some(FieldKind::Numeric), serde_json::Value::String(text)) if text == MISSING_NUMBER => {
            None
        }
        (_, serde_json::Value::String(text)) => Some(Bytes::copy_from_slice(text.as_bytes())),
        (_, serde_json::Value::Object(object)) if object.len() == 1 => {
            let hex = object.get("hex").and_then(serde_json::Value::as_str);
            hex.and_then(bytes_of_hex).map_or_else(other, |bytes| Some(bytes.into()))
        }
        _ => other(),
    }
}

fn missing(field: &Field) -> Option<String> {
    match field.kind() {
        FieldKind::Tag => Some(format!("\"{MISSING_TAG}\"")),
        FieldKind::Numeric => Some(format!("\"{MISSING_NUMBER}\"")),
        _ => None,
    }
}

fn array<'t>(tags: impl Iterator<Item = &'t str>) -> String {
    let mut json = String::from("[");
    for (index, tag) in tags.enumerate() {
        json.push_str(if index == 0 { "\"" } else { ",\"" });
        push_encoded(tag, &mut json);
        json.push('"');
    }
    json.push(']');
    json
}

fn object<'v>(values: impl Iterator<Item = (&'v str, &'v str)>) -> String {
    let mut json = String::from("{");
    for (index, (name, value)) in values.enumerate() {
        if index != 0 {
            json.push(',');
        }
        json.push_str(&serde_json::Value::from(name).to_string());
        json.push(':');
        json.push_str(value);
    }
    json.push('}');
    json
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Document, Vector, VectorField};
    use proptest::prelude::*;

    fn schema() -> Schema {
        Schema::builder("docs", "docs:", VectorField::flat("v", 2))
            .tag("color")
            .numeric("price")
            .text("title")
            .build()
            .unwrap()
    }

    fn encoded(document: &Document) -> String {
        encode(&schema(), document.fields()).unwrap()
    }

    #[test]
    fn attributes_are_golden() {
        let vector = Vector::new([1.0, 0.0]).unwrap();
        let document = Document::new("1")
            .with("v", &vector)
            .with_tags("color", ["red", "a\"b"])
            .with("price", "1.50")
            .with("note", "line\n\"two\"")
            .with("raw", vec![0_u8, 0xff]);
        assert_eq!(
            encoded(&document),
            r#"{"color":["red","a%22b"],"note":"line\n\"two\"","price":1.50,"raw":{"hex":"00ff"}}"#
        );
        assert_eq!(encoded(&Document::new("1")), r#"{"color":"","price":"nan"}"#);
        for (text, json) in [("+5", "5"), (".5", "0.5"), ("1e-7", "1e-7"), ("5.", "5")] {
            let document = Document::new("1").with("price", text);
            assert_eq!(encoded(&document), format!(r#"{{"color":"","price":{json}}}"#));
        }
    }

    #[test]
    fn a_change_keeps_the_other_values_to_the_letter() {
        let stored = br#"{"big":12345678901234567890123,"x":[1, 2]}"#;
        let changed = change(stored, &[("price", "2".to_owned())]);
        assert_eq!(changed, r#"{"big":12345678901234567890123,"price":2,"x":[1, 2]}"#);
        assert_eq!(change(b"not json", &[("a", "1".to_owned())]), r#"{"a":1}"#);
    }

    #[test]
    fn foreign_attributes_read_as_far_as_they_can() {
        let schema = schema();
        let read = |stored: &[u8]| decode_fields(&schema, stored, None);
        assert!(read(b"not json").is_empty() && read(b"[1]").is_empty() && read(b"").is_empty());
        let fields = read(br#"{"year":1950,"color":"red","o":{"hex":"xyz"},"l":[1, 2],"n":null}"#);
        assert_eq!(fields.get("year").unwrap(), "1950");
        assert_eq!(fields.get("color").unwrap(), "red");
        assert_eq!(fields.get("o").unwrap(), r#"{"hex":"xyz"}"#);
        assert_eq!(fields.get("l").unwrap(), "[1, 2]");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            tag in "[^ \\x00-\\x1f][^\\x00\\x1f]{0,9}[^ \\x00-\\x1f]",
            raw in prop::collection::vec(any::<u8>(), 0..12),
            name in "[^v].{0,8}",
            price in any::<f64>().prop_filter("finite", |price| price.is_finite()),
        ) {
            prop_assume!(!["color", "price", "title"].contains(&name.as_str()));
            let document = Document::new("1")
                .with_tags("color", [tag.clone(), "x".to_owned()])
                .with("price", price)
                .with(name.clone(), raw.clone());
            let fields = decode_fields(&schema(), encoded(&document).as_bytes(), None);
            let expected = format!("{tag}\u{1f}x");
            prop_assert_eq!(fields.get("color").unwrap(), expected.as_bytes());
            prop_assert_eq!(fields.get(&name).unwrap(), &raw);
            let read: f64 = str::from_utf8(fields.get("price").unwrap()).unwrap().parse().unwrap();
            prop_assert_eq!(read, price);
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode_fields(&schema(), &bytes, None);
        }
    }
}
