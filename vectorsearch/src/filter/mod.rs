//! Which documents a search considers: the tree and how it is built.

mod check;
mod expression;
mod matches;
pub(crate) mod number;
mod relevance;
mod render;
mod text;

use std::fmt;
use std::ops::{BitAnd, BitOr, Not, RangeBounds};
use std::time::SystemTime;

use check::Problem;
pub(crate) use check::stored_tag_problem;
pub(crate) use expression::{MISSING_NUMBER, MISSING_TAG, decoded, push_encoded};
use number::Interval;
pub(crate) use relevance::Lookup;
pub use render::{Rendered, Rendering};
pub use text::{MAX_WORD_BYTES, Text};

use crate::schema::{check_field_name, check_range};
use crate::{Error, Result, Schema};

/// The longest value of a TAG filter, in bytes: the server cuts longer ones off when it indexes them.
pub const MAX_TAG_BYTES: usize = 4095;

/// How deep a [`Filter`] may be nested; the server's parser gives up somewhere above 100.
///
/// Chains of `&` and chains of `|` are one level each, however long.
pub const MAX_FILTER_DEPTH: usize = 32;

/// Which documents a search considers: conditions on fields, joined with `&`, `|` and `!`.
///
/// Making a filter checks its values, and [`render`](Self::render) and [`matches`](Self::matches) check it against a
/// [`Schema`].
/// An empty value is an error, so nothing matches everything or nothing by accident: [`Filter::all`] must be written
/// out.
/// A document without the field fulfils no condition on it, and so fulfils the negation of each.
/// `Debug` prints the fields and what is asked of them, never the values.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Error, Filter, Text};
///
/// let affordable = Filter::tag("tenant", "a|b {c}")? & Filter::number("price", ..100.0)?;
/// let filter = affordable & (Filter::any_of("color", ["red", "wine"])? | Filter::text("title", Text::phrase("ruby red"))?)
///     & !Filter::tag_prefix("sku", "OLD-")?;
/// assert_eq!(filter.fields(), ["tenant", "price", "color", "title", "sku"]);
/// assert!(matches!(Filter::tag("tenant", ""), Err(Error::EmptyFilterValue { .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Filter(Node);

#[derive(Clone, PartialEq)]
enum Node {
    All,
    /// At least two, none of them `All` or `And`.
    And(Vec<Self>),
    /// At least two, none of them `All` or `Or`.
    Or(Vec<Self>),
    /// Not of a `Not`.
    Not(Box<Self>),
    Leaf(Leaf),
}

#[derive(Clone, PartialEq)]
struct Leaf {
    field: String,
    condition: Condition,
}

#[derive(Clone, PartialEq)]
enum Condition {
    AnyOf(Vec<String>),
    Missing,
    Number(Interval),
    TagPrefix(String),
    Text(Text),
}

impl Filter {
    /// Considers every document of the index.
    #[must_use]
    pub fn all() -> Self {
        Self(Node::All)
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
    /// would match nothing or something else: with a NUL byte, with blanks around them, or longer than
    /// [`MAX_TAG_BYTES`]; with the field's separator when the filter meets the schema.
    /// [`Error::InvalidName`] if `field` is not a field name.
    pub fn any_of<V: Into<String>>(
        field: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self> {
        let values: Vec<String> = values.into_iter().map(Into::into).collect();
        Self::leaf(field, Condition::AnyOf(values))
    }

    /// Considers documents whose TAG `field` holds a value that starts with `prefix`, to the letter.
    ///
    /// The server looks up at most 200 different values of the field that start so (its setting
    /// `MAXPREFIXEXPANSIONS`), and leaves out the rest without a word; negated, it lets the rest in.
    /// Use it where there are fewer, and never to keep tenants apart.
    ///
    /// # Errors
    ///
    /// As [`Filter::any_of`]; blanks at the end are allowed, and fewer than 2 bytes are [`Error::InvalidFilterValue`],
    /// since the server would find nothing.
    pub fn tag_prefix(field: impl Into<String>, prefix: impl Into<String>) -> Result<Self> {
        Self::leaf(field, Condition::TagPrefix(prefix.into()))
    }

    /// Considers documents whose NUMERIC `field` holds a number in `range`.
    ///
    /// `5.0..=5.0` asks for equality; a pair of [`Bound`](std::ops::Bound)s can leave out the lower end too.
    /// Infinite numbers, which [`Document`](crate::Document) does not take, may be found or not.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidFilterValue`] if a bound is NaN or infinite, if no number is in the range, or if it is open on
    /// both sides.
    /// [`Error::InvalidName`] if `field` is not a field name.
    pub fn number(field: impl Into<String>, range: impl RangeBounds<f64>) -> Result<Self> {
        let interval = Interval::new(range.start_bound().cloned(), range.end_bound().cloned());
        Self::leaf(field, Condition::Number(interval))
    }

    /// Considers documents whose NUMERIC `field` holds a time in `range`: seconds since the Unix epoch as a decimal
    /// number, with fractions if wanted.
    ///
    /// The server computes with 64-bit floats, which tell times of this century apart that differ by a microsecond.
    ///
    /// # Errors
    ///
    /// As [`Filter::number`].
    pub fn time(field: impl Into<String>, range: impl RangeBounds<SystemTime>) -> Result<Self> {
        let interval = Interval::new(
            range.start_bound().map(|time| number::seconds(*time)),
            range.end_bound().map(|time| number::seconds(*time)),
        );
        Self::leaf(field, Condition::Number(interval))
    }

    /// Considers documents whose TEXT `field` holds certain words; see [`Text`].
    ///
    /// # Errors
    ///
    /// [`Error::EmptyFilterValue`] if there is no word in the text.
    /// [`Error::InvalidFilterValue`] if a word is longer than [`MAX_WORD_BYTES`], or a prefix is several words or
    /// shorter than 2 bytes; if there are only stop words, or a phrase has a word twice in a row,
    /// when the filter meets the schema.
    /// [`Error::InvalidName`] if `field` is not a field name.
    pub fn text(field: impl Into<String>, text: Text) -> Result<Self> {
        Self::leaf(field, Condition::Text(text))
    }

    /// Considers documents that do not have `field`.
    ///
    /// It takes RediSearch 2.10 or later and a field that is declared with `INDEXMISSING`; elsewhere store a tag that
    /// means "missing".
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if `field` is not a field name; [`Error::MissingNotIndexed`] when the filter meets a
    /// schema that does not index what is missing.
    pub fn missing(field: impl Into<String>) -> Result<Self> {
        Self::leaf(field, Condition::Missing)
    }

    /// Considers documents that both filters consider, as `&` does.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self & other
    }

    /// Tells whether the filter considers every document.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0 == Node::All
    }

    /// Returns the names of the fields that the filter looks at, each once, in the order of their first use.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        self.0.collect_fields(&mut fields);
        fields
    }

    /// Checks that the filter fits `schema`; [`render`](Self::render) and [`matches`](Self::matches) do it too.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`] and [`Error::FieldKindMismatch`] if a field is not in the schema or of another kind.
    /// [`Error::InvalidFilterValue`] if a tag holds the separator of its field, a text only stop words, or a phrase a word
    /// twice in a row.
    /// [`Error::MissingNotIndexed`] if the schema does not index which documents lack the field.
    /// [`Error::MatchesNothing`] if it negates [`Filter::all`].
    /// [`Error::InvalidParameter`] if it is nested deeper than [`MAX_FILTER_DEPTH`].
    pub fn check(&self, schema: &Schema) -> Result<()> {
        check_range("the depth of the filter", self.0.depth(), 1, MAX_FILTER_DEPTH)?;
        self.0.check(schema)
    }

    fn leaf(field: impl Into<String>, condition: Condition) -> Result<Self> {
        let field = field.into();
        check_field_name(&field)?;
        match condition.problem() {
            None => Ok(Self(Node::Leaf(Leaf { field, condition }))),
            Some(Problem::Empty) => Err(Error::EmptyFilterValue { field }),
            Some(Problem::Invalid(problem)) => Err(Error::InvalidFilterValue { field, problem }),
        }
    }
}

impl BitAnd for Filter {
    type Output = Self;

    /// Considers documents that both filters consider.
    fn bitand(self, other: Self) -> Self {
        let mut nodes = Vec::new();
        for node in [self.0, other.0] {
            match node {
                Node::All => {}
                Node::And(more) => nodes.extend(more),
                node => nodes.push(node),
            }
        }
        Self(match nodes.len() {
            0 | 1 => nodes.pop().unwrap_or(Node::All),
            _ => Node::And(nodes),
        })
    }
}

impl BitOr for Filter {
    type Output = Self;

    /// Considers documents that at least one of the filters considers.
    fn bitor(self, other: Self) -> Self {
        let mut nodes = Vec::new();
        for node in [self.0, other.0] {
            match node {
                Node::All => return Self(Node::All),
                Node::Or(more) => nodes.extend(more),
                node => nodes.push(node),
            }
        }
        Self(Node::Or(nodes))
    }
}

impl Not for Filter {
    type Output = Self;

    /// Considers documents that the filter does not consider.
    fn not(self) -> Self {
        Self(match self.0 {
            Node::Not(node) => *node,
            node => Node::Not(Box::new(node)),
        })
    }
}

impl Node {
    fn collect_fields<'a>(&'a self, fields: &mut Vec<&'a str>) {
        match self {
            Self::All => {}
            Self::And(nodes) | Self::Or(nodes) => {
                nodes.iter().for_each(|node| node.collect_fields(fields));
            }
            Self::Not(node) => node.collect_fields(fields),
            Self::Leaf(leaf) => {
                if !fields.contains(&leaf.field.as_str()) {
                    fields.push(&leaf.field);
                }
            }
        }
    }

    fn depth(&self) -> usize {
        match self {
            Self::All | Self::Leaf(_) => 1,
            Self::And(nodes) | Self::Or(nodes) => {
                1 + nodes.iter().map(Self::depth).max().unwrap_or_default()
            }
            Self::Not(node) => 1 + node.depth(),
        }
    }

    fn check(&self, schema: &Schema) -> Result<()> {
        match self {
            Self::All => Ok(()),
            Self::And(nodes) | Self::Or(nodes) => {
                nodes.iter().try_for_each(|node| node.check(schema))
            }
            Self::Not(node) if **node == Self::All => Err(Error::MatchesNothing),
            Self::Not(node) => node.check(schema),
            Self::Leaf(leaf) => leaf.check(schema),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter ")?;
        self.0.fmt(f)
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut join = |nodes: &[Self], sign: &str| {
            for (index, node) in nodes.iter().enumerate() {
                f.write_str(if index == 0 { "(" } else { sign })?;
                node.fmt(f)?;
            }
            f.write_str(")")
        };
        match self {
            Self::All => f.write_str("all"),
            Self::And(nodes) => join(nodes, " & "),
            Self::Or(nodes) => join(nodes, " | "),
            Self::Not(node) => write!(f, "!{node:?}"),
            Self::Leaf(Leaf { field, condition }) => match condition {
                Condition::AnyOf(values) => write!(f, "{field}: any of {}", values.len()),
                Condition::Missing => write!(f, "{field}: missing"),
                Condition::Number(_) => write!(f, "{field}: number"),
                Condition::TagPrefix(_) => write!(f, "{field}: tag prefix"),
                Condition::Text(text) => write!(f, "{field}: {text:?}"),
            },
        }
    }
}

#[cfg(test)]
mod tests;
