//! What a filter may ask: of itself, and of a schema.

use super::{Condition, Leaf, MAX_TAG_BYTES, text};
use crate::{Error, Field, FieldKind, Result, Schema};

/// The server searches no shorter prefixes.
pub(super) const MIN_PREFIX_BYTES: usize = 2;

impl Leaf {
    pub(super) fn check(&self, schema: &Schema) -> Result<()> {
        let field = schema.field(&self.field).ok_or_else(|| Error::UnknownField {
            index: schema.index().to_owned(),
            field: self.field.clone(),
        })?;
        let invalid = |problem| Error::InvalidFilterValue { field: self.field.clone(), problem };
        let expect = |fits, expected| {
            let mismatch = || Error::FieldKindMismatch { field: self.field.clone(), expected };
            if fits { Ok(()) } else { Err(mismatch()) }
        };
        match &self.condition {
            Condition::AnyOf(values) => {
                expect(is_tag(field), "TAG")?;
                check_separator(field, values).map_err(invalid)
            }
            Condition::TagPrefix(prefix) => {
                expect(is_tag(field), "TAG")?;
                check_separator(field, std::slice::from_ref(prefix)).map_err(invalid)
            }
            Condition::Number(_) => expect(*field.kind() == FieldKind::Numeric, "NUMERIC"),
            Condition::Text(text) => {
                expect(*field.kind() == FieldKind::Text, "TEXT")?;
                text.indexed_problem(stop_words(schema))
                    .map_or(Ok(()), |problem| Err(invalid(problem)))
            }
            Condition::Missing if indexes_missing(field) => Ok(()),
            Condition::Missing => Err(Error::MissingNotIndexed { field: self.field.clone() }),
        }
    }
}

/// Why a condition is refused without a look at the schema.
pub(super) enum Problem {
    Empty,
    Invalid(&'static str),
}

impl Condition {
    pub(super) fn problem(&self) -> Option<Problem> {
        match self {
            Self::AnyOf(values) if values.is_empty() => Some(Problem::Empty),
            Self::AnyOf(values) => values.iter().find_map(|value| tag_problem(value)),
            Self::TagPrefix(prefix) => prefix_problem(prefix),
            Self::Number(interval) => interval.problem().map(Problem::Invalid),
            Self::Text(text) => text.problem(),
            Self::Missing => None,
        }
    }
}

/// Why the index would not find a stored tag as it is; an empty one is only not indexed.
pub(crate) fn stored_tag_problem(value: &str) -> Option<&'static str> {
    match tag_problem(value) {
        Some(Problem::Invalid(problem)) => Some(problem),
        Some(Problem::Empty) | None => None,
    }
}

fn tag_problem(value: &str) -> Option<Problem> {
    if value.ends_with(is_blank) {
        return Some(Problem::Invalid(
            "starts or ends with a blank, which the index strips: trim it",
        ));
    }
    tag_start_problem(value)
}

fn prefix_problem(prefix: &str) -> Option<Problem> {
    tag_start_problem(prefix).or_else(|| {
        (prefix.len() < MIN_PREFIX_BYTES)
            .then_some(Problem::Invalid("is shorter than 2 bytes: the server finds nothing by it"))
    })
}

/// What is wrong with a tag, whether or not more of it follows.
fn tag_start_problem(value: &str) -> Option<Problem> {
    let problem = if value.is_empty() {
        return Some(Problem::Empty);
    } else if value.contains('\0') {
        "holds a NUL byte, where the index cuts it off: store and filter by a digest of it"
    } else if value.starts_with(is_blank) {
        "starts or ends with a blank, which the index strips: trim it"
    } else if MAX_TAG_BYTES < value.len() {
        "is longer than 4095 bytes, where the index cuts it off: store and filter by a digest of it"
    } else {
        return None;
    };
    Some(Problem::Invalid(problem))
}

/// What `isspace` of the C locale takes for a blank.
pub(super) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

fn check_separator(field: &Field, values: &[String]) -> Result<(), &'static str> {
    if values.iter().any(|value| value.contains(tag_separator(field))) {
        return Err(
            "holds the separator of the field, which parts its values: store and filter by a digest of it",
        );
    }
    Ok(())
}

fn is_tag(field: &Field) -> bool {
    *field.kind() == FieldKind::Tag
}

/// What parts the values of a TAG field.
pub(super) fn tag_separator(field: &Field) -> char {
    field.separator()
}

/// Tells whether upper and lower case of a TAG field differ.
pub(super) fn is_case_sensitive(field: &Field) -> bool {
    field.is_case_sensitive()
}

/// Tells whether the server can say which documents lack the field.
fn indexes_missing(field: &Field) -> bool {
    field.is_index_missing()
}

/// The words that TEXT fields of the index leave out.
pub(super) fn stop_words(schema: &Schema) -> &'static [&'static str] {
    if schema.has_stop_words() { text::DEFAULT_STOP_WORDS } else { &[] }
}
