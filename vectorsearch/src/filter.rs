use std::fmt;

use crate::schema::{TAG_SEPARATOR, check_field_name};
use crate::{Error, FieldKind, Result, Schema};

/// The longest value of a TAG filter, in bytes: the server cuts longer ones off when it indexes them.
pub const MAX_TAG_BYTES: usize = 4095;

/// Which documents a search considers.
///
/// Values never become part of the query text: they travel as parameters, so they need no escaping and may hold any
/// punctuation.
/// There is no way to match everything by leaving something empty: [`Filter::all`] must be written out.
/// `Debug` prints the fields and the number of values, never the values.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Error, Filter};
///
/// let filter = Filter::tag("tenant", "a|b {c}")?.and(Filter::any_of("model", ["gpt-4", "gpt-5"])?);
/// # let _ = filter;
/// assert!(matches!(Filter::tag("tenant", ""), Err(Error::EmptyFilterValue { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Filter {
    /// All of these must hold; none of them means everything.
    clauses: Vec<Clause>,
}

#[derive(Clone, PartialEq)]
struct Clause {
    field: String,
    values: Vec<String>,
}

impl Filter {
    /// Considers every document of the index.
    #[must_use]
    pub fn all() -> Self {
        Self { clauses: Vec::new() }
    }

    /// Considers documents whose TAG `field` holds `value`, to the letter.
    ///
    /// # Errors
    ///
    /// As [`Filter::any_of`].
    pub fn tag(field: impl Into<String>, value: impl Into<String>) -> Result<Self> {
        Self::any_of(field, [value])
    }

    /// Considers documents whose TAG `field` holds at least one of `values`.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyFilterValue`] if a value is empty or there is none.
    /// [`Error::InvalidFilterValue`] for values that the server stores in another form than it searches, so that they
    /// would match nothing or something else: with a NUL byte or a unit separator (31), with blanks around them, or
    /// longer than [`MAX_TAG_BYTES`].
    /// [`Error::InvalidName`] if `field` is not a field name.
    pub fn any_of<V: Into<String>>(
        field: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        let field = field.into();
        check_field_name(&field)?;
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        if values.is_empty() || values.iter().any(String::is_empty) {
            return Err(Error::EmptyFilterValue { field });
        }
        if let Some(problem) = values.iter().find_map(|value| tag_problem(value)) {
            return Err(Error::InvalidFilterValue { field, problem });
        }
        Ok(Self { clauses: vec![Clause { field, values }] })
    }

    /// Considers documents that both filters consider.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.clauses.extend(other.clauses);
        self
    }

    /// Tells whether the filter considers every document.
    pub(crate) fn is_all(&self) -> bool {
        self.clauses.is_empty()
    }

    /// Tells whether the filter considers a document with these fields.
    pub(crate) fn matches<'d>(
        &self,
        schema: &Schema,
        field: &dyn Fn(&str) -> Option<&'d [u8]>,
    ) -> Result<bool> {
        self.render(schema, &mut String::new(), &mut Vec::new())?;
        Ok(self.clauses.iter().all(|clause| {
            let stored = field(&clause.field).unwrap_or_default();
            let stored = String::from_utf8_lossy(stored).into_owned();
            stored.split(TAG_SEPARATOR).any(|tag| clause.values.iter().any(|value| value == tag))
        }))
    }

    /// Appends the query text and the values of its parameters `f0`, `f1`, ... in order.
    pub(crate) fn render<'a>(
        &'a self,
        schema: &Schema,
        text: &mut String,
        values: &mut Vec<&'a str>,
    ) -> Result<()> {
        if self.clauses.is_empty() {
            text.push('*');
            return Ok(());
        }
        text.push('(');
        for (index, clause) in self.clauses.iter().enumerate() {
            let field = schema.field(&clause.field).ok_or_else(|| Error::UnknownField {
                index: schema.index().to_owned(),
                field: clause.field.clone(),
            })?;
            if *field.kind() != FieldKind::Tag {
                return Err(Error::FieldKindMismatch {
                    field: clause.field.clone(),
                    expected: "TAG",
                });
            }
            text.push_str(if index == 0 { "@" } else { " @" });
            text.push_str(field.name());
            text.push_str(":{");
            for (index, value) in clause.values.iter().enumerate() {
                text.push_str(if index == 0 { "$f" } else { "|$f" });
                text.push_str(&values.len().to_string());
                values.push(value);
            }
            text.push('}');
        }
        text.push(')');
        Ok(())
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let clauses = self.clauses.iter().map(|clause| (&clause.field, clause.values.len()));
        f.write_str("Filter ")?;
        f.debug_map().entries(clauses).finish()
    }
}

pub(crate) fn tag_problem(value: &str) -> Option<&'static str> {
    // What `isspace` of the C locale takes for a blank.
    let blank =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_whitespace() || *byte == b'\x0b');
    if value.contains('\0') {
        Some("holds a NUL byte, which no parameter can match")
    } else if value.contains(TAG_SEPARATOR) {
        Some("holds the unit separator (31), which parts the values of a TAG field")
    } else if blank(value.as_bytes().first()) || blank(value.as_bytes().last()) {
        Some("starts or ends with a blank, which the index strips")
    } else if MAX_TAG_BYTES < value.len() {
        Some("is longer than 4095 bytes, where the index cuts it off")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_matches_everything_by_accident() {
        let none: [&str; 0] = [];
        for filter in
            [Filter::tag("t", ""), Filter::any_of("t", none), Filter::any_of("t", ["a", ""])]
        {
            assert!(matches!(filter, Err(Error::EmptyFilterValue { .. })));
        }
    }

    #[test]
    fn values_that_cannot_match_are_refused() {
        let long = "x".repeat(MAX_TAG_BYTES + 1);
        for value in ["a\0b", "a\u{1f}b", " a", "a ", "\ta", "a\u{b}", " ", &long] {
            let error = Filter::tag("t", value).unwrap_err();
            assert!(matches!(error, Error::InvalidFilterValue { .. }), "{value:?}");
            assert!(error.to_string().contains("`t`"), "{error}");
        }
        assert!(Filter::tag("t", "x".repeat(MAX_TAG_BYTES)).is_ok());
        assert!(matches!(Filter::tag("a b", "x"), Err(Error::InvalidName { .. })));
    }

    #[test]
    fn debug_shows_no_value() {
        let filter = Filter::any_of("tenant", ["s3cret", "other"]).unwrap();
        assert_eq!(format!("{filter:?}"), "Filter {\"tenant\": 2}");
    }
}
