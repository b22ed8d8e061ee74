//! A filter as the expression that `VSIM ... FILTER` takes.
//!
//! An expression that names a field which an element lacks is false as a whole, also where it is negated or one side of
//! an `or`.
//! So every element has every TAG and NUMERIC field of the schema, and what is missing has a form of its own:
//! [`MISSING_TAG`] and [`MISSING_NUMBER`].

use super::number::{Decimal, End};
use super::{Condition, Filter, Leaf, Node};
use crate::{Error, FieldKind, Result, Schema};

/// What stands for a TAG field that a document lacks: nothing is `in` it, and it alone is false.
pub(crate) const MISSING_TAG: &str = "";

/// What stands for a NUMERIC field that a document lacks: it is read as a number, and no comparison with it holds.
pub(crate) const MISSING_NUMBER: &str = "nan";

impl Filter {
    /// Returns the expression, or none if every element passes.
    ///
    /// # Errors
    ///
    /// As [`Filter::check`]; [`Error::Unsupported`] for prefixes and words.
    pub(crate) fn to_expression(&self, schema: &Schema) -> Result<Option<String>> {
        self.check(schema)?;
        if self.0 == Node::All {
            return Ok(None);
        }
        let mut text = String::with_capacity(64);
        write(&self.0, schema, &mut text)?;
        Ok(Some(text))
    }
}

fn write(node: &Node, schema: &Schema, text: &mut String) -> Result<()> {
    match node {
        Node::All => text.push('1'),
        Node::And(nodes) => group(nodes, " and ", schema, text)?,
        Node::Or(nodes) => group(nodes, " or ", schema, text)?,
        Node::Not(node) => {
            text.push_str("(not (");
            write(node, schema, text)?;
            text.push_str("))");
        }
        Node::Leaf(leaf) => condition(leaf, schema, text)?,
    }
    Ok(())
}

fn group(nodes: &[Node], sign: &str, schema: &Schema, text: &mut String) -> Result<()> {
    for (index, node) in nodes.iter().enumerate() {
        text.push_str(if index == 0 { "(" } else { sign });
        write(node, schema, text)?;
    }
    text.push(')');
    Ok(())
}

fn condition(leaf: &Leaf, schema: &Schema, text: &mut String) -> Result<()> {
    let field = &leaf.field;
    match &leaf.condition {
        Condition::AnyOf(values) => {
            for (index, value) in values.iter().enumerate() {
                text.push_str(if index == 0 { "(\"" } else { " or \"" });
                push_encoded(value, text);
                text.push_str("\" in .");
                text.push_str(field);
            }
            text.push(')');
        }
        Condition::Number(interval) => {
            let [lower, upper] = interval.ends();
            let ends = [(lower, [" >= ", " > "]), (upper, [" <= ", " < "])];
            let mut sign = "(";
            for (end, [inclusive, exclusive]) in ends {
                let (comparison, number) = match end {
                    End::Open => continue,
                    End::Inclusive(number) => (inclusive, number),
                    End::Exclusive(number) => (exclusive, number),
                };
                text.push_str(sign);
                sign = " and ";
                text.push('.');
                text.push_str(field);
                text.push_str(comparison);
                push_number(number, text);
            }
            text.push(')');
        }
        Condition::Missing => match schema.field(field).map(crate::Field::kind) {
            Some(FieldKind::Tag) => text.push_str(&format!("(not .{field})")),
            // Only what is not a number is neither.
            Some(FieldKind::Numeric) => {
                text.push_str(&format!("(not (.{field} >= 0 or .{field} < 0))"));
            }
            _ => {
                return Err(Error::Unsupported {
                    what: "a vector set cannot look for documents that lack a TEXT field",
                    instead: "store a tag that means \"missing\", or use RedisVectorIndex",
                });
            }
        },
        Condition::TagPrefix(_) => {
            return Err(Error::Unsupported {
                what: "a vector set cannot filter by the prefix of a tag",
                instead: "store the prefix as a tag of its own, or use RedisVectorIndex",
            });
        }
        Condition::Text(_) => {
            return Err(Error::Unsupported {
                what: "a vector set cannot filter by words",
                instead: "filter by tags and numbers, or use RedisVectorIndex",
            });
        }
    }
    Ok(())
}

/// Writes a finite number.
fn push_number(number: f64, text: &mut String) {
    let decimal = Decimal(number).to_string();
    // A sign in the exponent ends the number; as a string it is read whole, and compared as a number.
    let quote = if decimal.contains("e-") { "\"" } else { "" };
    text.push_str(quote);
    text.push_str(&decimal);
    text.push_str(quote);
}

/// Percent-encodes what would need an escape in a string of JSON or of an expression.
///
/// Some servers undo escapes in an expression and others do not, so the values on both sides have none.
pub(crate) fn push_encoded(tag: &str, text: &mut String) {
    for character in tag.chars() {
        if character.is_ascii_control() || matches!(character, '"' | '\\' | '%') {
            text.push_str(&format!("%{:02X}", u32::from(character)));
        } else {
            text.push(character);
        }
    }
}

/// Undoes [`push_encoded`]; what it did not write stays as it is.
pub(crate) fn decoded(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let code = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(code.unwrap_or(b'%'));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Field, Text, VectorField};

    fn schema() -> Schema {
        Schema::builder("docs", "docs:", VectorField::flat("v", 2))
            .field(Field::tag("color").index_missing())
            .field(Field::numeric("price").index_missing())
            .field(Field::text("title").index_missing())
            .build()
            .unwrap()
    }

    fn rendered(filter: &Filter) -> String {
        filter.to_expression(&schema()).unwrap().unwrap()
    }

    #[test]
    fn expressions_are_golden() {
        let red = || Filter::any_of("color", ["red", "a\" or 1 or \"\\%\n'"]).unwrap();
        let price = |range: std::ops::Range<f64>| Filter::number("price", range).unwrap();
        assert_eq!(
            rendered(&red()),
            r#"("red" in .color or "a%22 or 1 or %22%5C%25%0A'" in .color)"#
        );
        assert_eq!(rendered(&price(-1.5..2e16)), "(.price >= -1.5 and .price < 2e16)");
        let tiny = Filter::number("price", ..=-1e-9).unwrap();
        assert_eq!(rendered(&tiny), r#"(.price <= "-1e-9")"#);
        let missing = Filter::missing("color").unwrap() | !Filter::missing("price").unwrap();
        assert_eq!(
            rendered(&(missing & tiny)),
            r#"(((not .color) or (not ((not (.price >= 0 or .price < 0))))) and (.price <= "-1e-9"))"#
        );
        assert_eq!(Filter::all().to_expression(&schema()).unwrap(), None);
    }

    #[test]
    fn what_an_expression_cannot_say_is_refused() {
        for filter in [
            Filter::tag_prefix("color", "re"),
            Filter::text("title", Text::all("red")),
            Filter::missing("title"),
        ] {
            let filter = !filter.unwrap() & Filter::tag("color", "red").unwrap();
            let error = filter.to_expression(&schema()).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        }
        let unknown = Filter::tag("nowhere", "x").unwrap();
        assert!(matches!(unknown.to_expression(&schema()), Err(Error::UnknownField { .. })));
    }
}
