//! A filter as the text of a query.

use std::fmt::{self, Write as _};

use super::check::stop_words;
use super::number::{Decimal, End};
use super::text::TextKind;
use super::{Condition, Filter, Leaf, Node};
use crate::{Error, Result, Schema};

/// How the values of a [`Filter`] travel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rendering {
    /// As parameters `$f0`, `$f1`, ... beside the query: RediSearch and Dragonfly.
    ///
    /// The text holds the words of [`Text`](crate::Text) filters, for which the server has no exact parameters; they are
    /// letters, digits, `_` and characters outside of ASCII.
    Params,
    /// In the text of the query, escaped: valkey-search, which has no parameters in filters.
    ///
    /// Tags with control characters other than TAB, LF and CR are refused, and prefixes with a backslash.
    Literal,
}

/// A [`Filter`] in the query language, DIALECT 2.
///
/// `Debug` shows no values.
#[derive(Clone, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rendered {
    /// The query text: `*`, one clause, or a group in parentheses.
    pub text: String,
    /// The names and values of the parameters in it.
    pub params: Vec<(String, String)>,
}

impl fmt::Debug for Rendered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rendered").field("params", &self.params.len()).finish_non_exhaustive()
    }
}

impl Filter {
    /// Writes the filter in the query language, DIALECT 2.
    ///
    /// # Errors
    ///
    /// As [`Filter::check`]; with [`Rendering::Literal`] also [`Error::InvalidFilterValue`] for what cannot be escaped.
    pub fn render(&self, schema: &Schema, rendering: Rendering) -> Result<Rendered> {
        self.check(schema)?;
        let rendered = Rendered { text: String::with_capacity(64), params: Vec::new() };
        let mut writer = Writer { schema, rendering, rendered };
        writer.node(&self.0)?;
        Ok(writer.rendered)
    }
}

struct Writer<'a> {
    schema: &'a Schema,
    rendering: Rendering,
    rendered: Rendered,
}

impl Writer<'_> {
    fn node(&mut self, node: &Node) -> Result<()> {
        match node {
            Node::All => self.push("*"),
            Node::And(nodes) => self.group(nodes, " ")?,
            Node::Or(nodes) => self.group(nodes, " | ")?,
            Node::Not(node) => {
                self.push("(-");
                self.node(node)?;
                self.push(")");
            }
            Node::Leaf(leaf) => self.leaf(leaf)?,
        }
        Ok(())
    }

    fn group(&mut self, nodes: &[Node], sign: &str) -> Result<()> {
        for (index, node) in nodes.iter().enumerate() {
            self.push(if index == 0 { "(" } else { sign });
            self.node(node)?;
        }
        self.push(")");
        Ok(())
    }

    fn leaf(&mut self, leaf: &Leaf) -> Result<()> {
        let field = &leaf.field;
        match &leaf.condition {
            Condition::Missing => {
                self.push("ismissing(@");
                self.push(field);
                self.push(")");
            }
            Condition::AnyOf(values) => {
                self.open(field, "{");
                for (index, value) in values.iter().enumerate() {
                    if index != 0 {
                        self.push("|");
                    }
                    self.tag(field, value)?;
                }
                self.push("}");
            }
            Condition::TagPrefix(prefix) => {
                self.open(field, "{");
                if self.rendering == Rendering::Literal && prefix.contains('\\') {
                    return Err(Error::InvalidFilterValue {
                        field: field.clone(),
                        problem: "is a prefix with a backslash, which the server misreads when it is escaped: filter by the whole tag",
                    });
                }
                self.tag(field, prefix)?;
                self.push("*}");
            }
            Condition::Number(interval) => {
                let [lower, upper] = interval.ends();
                self.open(field, "[");
                self.end(&lower, "-inf");
                self.push(" ");
                self.end(&upper, "+inf");
                self.push("]");
            }
            Condition::Text(text) => {
                let words = text.indexed_words(stop_words(self.schema));
                self.open(field, "(");
                self.words(text.kind, &words);
                self.push(")");
            }
        }
        Ok(())
    }

    fn open(&mut self, field: &str, bracket: &str) {
        self.push("@");
        self.push(field);
        self.push(":");
        self.push(bracket);
    }

    fn tag(&mut self, field: &str, value: &str) -> Result<()> {
        if self.rendering == Rendering::Params {
            // The server undoes backslashes even in the value of a parameter.
            self.param(value.replace('\\', r"\\"));
            return Ok(());
        }
        let spaces = ['\t', '\n', '\r'];
        if value.contains(|character: char| {
            character.is_ascii_control() && !spaces.contains(&character)
        }) {
            return Err(Error::InvalidFilterValue {
                field: field.to_owned(),
                problem: "holds a control character, which cannot be escaped: store and filter by a digest of it",
            });
        }
        self.escaped(value);
        Ok(())
    }

    fn end(&mut self, end: &End, open: &str) {
        let number = match end {
            End::Open => return self.push(open),
            End::Inclusive(number) => number,
            End::Exclusive(number) => {
                self.push("(");
                number
            }
        };
        let text = Decimal(*number).to_string();
        match self.rendering {
            Rendering::Params => self.param(text),
            Rendering::Literal => self.push(&text),
        }
    }

    /// Quotes keep the server from stemming a word, which parameters do not.
    fn words(&mut self, kind: TextKind, words: &[&str]) {
        let (quote, sign) = match kind {
            TextKind::All => ("\"", "\" \""),
            TextKind::Any => ("\"", "\"|\""),
            TextKind::Phrase => ("\"", " "),
            TextKind::Prefix => ("", ""),
        };
        self.push(quote);
        for (index, word) in words.iter().enumerate() {
            if index != 0 {
                self.push(sign);
            }
            match (kind, self.rendering) {
                (TextKind::Prefix, Rendering::Params) => self.param((*word).to_owned()),
                (TextKind::Prefix, Rendering::Literal) => self.escaped(word),
                _ => self.push(word),
            }
        }
        self.push(if kind == TextKind::Prefix { "*" } else { quote });
    }

    /// Puts a backslash before everything of ASCII that is no letter and no digit.
    fn escaped(&mut self, value: &str) {
        for character in value.chars() {
            if character.is_ascii() && !character.is_ascii_alphanumeric() {
                self.rendered.text.push('\\');
            }
            self.rendered.text.push(character);
        }
    }

    fn param(&mut self, value: String) {
        let name = format!("f{}", self.rendered.params.len());
        // Writing to a string cannot fail.
        let _written = write!(self.rendered.text, "${name}");
        self.rendered.params.push((name, value));
    }

    fn push(&mut self, text: &str) {
        self.rendered.text.push_str(text);
    }
}
