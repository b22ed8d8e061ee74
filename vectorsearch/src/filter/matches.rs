//! A filter evaluated in memory.

use super::check::{is_blank, is_case_sensitive, stop_words, tag_separator};
use super::{Condition, Filter, Leaf, MAX_TAG_BYTES, Node, number};
use crate::{Error, Field, Result, Schema};

impl Filter {
    /// Tells whether a document fulfils the filter, as the server would: `document` returns the bytes of a field of it.
    ///
    /// Tags, numbers and words are read as RediSearch 2.10 reads them.
    /// Two things differ: a prefix has no limit of 200 different values, and [`Text::prefix`](crate::Text::prefix)
    /// finds words with upper-case letters outside of ASCII.
    ///
    /// # Errors
    ///
    /// As [`Filter::check`]; [`Error::NotANumber`] if a NUMERIC field that the filter looks at holds something else:
    /// the server would not have indexed the document.
    pub fn matches<'d>(
        &self,
        schema: &Schema,
        document: &dyn Fn(&str) -> Option<&'d [u8]>,
    ) -> Result<bool> {
        self.check(schema)?;
        self.0.matches(schema, document)
    }
}

impl Node {
    pub(super) fn matches<'d>(
        &self,
        schema: &Schema,
        document: &dyn Fn(&str) -> Option<&'d [u8]>,
    ) -> Result<bool> {
        match self {
            Self::All => Ok(true),
            Self::And(nodes) => {
                for node in nodes {
                    if !node.matches(schema, document)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            Self::Or(nodes) => {
                for node in nodes {
                    if node.matches(schema, document)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Not(node) => Ok(!node.matches(schema, document)?),
            Self::Leaf(leaf) => leaf.matches(schema, document),
        }
    }
}

impl Leaf {
    fn matches<'d>(
        &self,
        schema: &Schema,
        document: &dyn Fn(&str) -> Option<&'d [u8]>,
    ) -> Result<bool> {
        let (Some(field), Some(stored)) = (schema.field(&self.field), document(&self.field)) else {
            return Ok(self.condition == Condition::Missing);
        };
        Ok(match &self.condition {
            Condition::Missing => false,
            Condition::AnyOf(values) => {
                let holds = |tag: &[u8]| {
                    let equals = |value: &String| compare(field, tag, value.as_bytes());
                    values.iter().any(equals)
                };
                tags(field, stored).any(holds)
            }
            Condition::TagPrefix(prefix) => tags(field, stored).any(|tag| {
                let start = tag.get(..prefix.len());
                start.is_some_and(|start| compare(field, start, prefix.as_bytes()))
            }),
            Condition::Number(interval) => {
                let not_a_number = || Error::NotANumber { field: self.field.clone() };
                interval.contains(number::parse(stored).ok_or_else(not_a_number)?)
            }
            Condition::Text(text) => text.matches(stored, stop_words(schema)),
        })
    }
}

fn compare(field: &Field, tag: &[u8], value: &[u8]) -> bool {
    if is_case_sensitive(field) { tag == value } else { tag.eq_ignore_ascii_case(value) }
}

/// Parts a stored TAG field into its values as the server does.
fn tags<'d>(field: &Field, stored: &'d [u8]) -> impl Iterator<Item = &'d [u8]> {
    let separator = tag_separator(field);
    let end = stored.iter().position(|byte| *byte == 0).unwrap_or(stored.len());
    let stored = stored.get(..end).unwrap_or_default();
    let parts = stored.split(move |byte| char::from(*byte) == separator);
    parts.map(trim).filter(|tag| !tag.is_empty()).map(|tag| tag.get(..MAX_TAG_BYTES).unwrap_or(tag))
}

fn trim(mut tag: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = tag
        && is_blank(char::from(*first))
    {
        tag = rest;
    }
    while let [rest @ .., last] = tag
        && is_blank(char::from(*last))
    {
        tag = rest;
    }
    tag
}
