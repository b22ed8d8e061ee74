//! Words: how the server parts a text into them, and what a filter asks of them.

use std::fmt;

use super::check::{MIN_PREFIX_BYTES, Problem};

/// The longest word of a TEXT filter, in bytes: the server cuts longer ones off when it indexes them.
pub const MAX_WORD_BYTES: usize = 128;

/// The words that RediSearch leaves out of TEXT fields unless it is told otherwise.
pub(super) const DEFAULT_STOP_WORDS: &[&str] = &[
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it",
    "no", "not", "of", "on", "or", "such", "that", "the", "their", "then", "there", "these",
    "they", "this", "to", "was", "will", "with",
];

/// What a filter asks of the words of a TEXT field.
///
/// The words are anybody's text: blanks, punctuation and control characters part them and mean nothing else.
/// They are compared as they stand, with upper and lower case of ASCII letters alike.
/// Inflections do not count, not even on a field that the server stems: it stems words but not their negation, so that
/// a document could fulfil both.
///
/// Stop words (`the`, `for`, ...) are left out on both sides, as the server does: `all("the shoe")` asks for `shoe`,
/// and `phrase("shoes for men")` also finds `shoes men`.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Filter, Text};
///
/// let filter = Filter::text("title", Text::all("red shoes"))? & !Filter::text("title", Text::prefix("child"))?;
/// # let _ = filter;
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, PartialEq)]
pub struct Text {
    pub(super) kind: TextKind,
    words: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TextKind {
    All,
    Any,
    Phrase,
    Prefix,
}

impl Text {
    /// Asks for all of these words, in any order.
    pub fn all(words: impl AsRef<str>) -> Self {
        Self::new(TextKind::All, words.as_ref())
    }

    /// Asks for at least one of these words.
    pub fn any(words: impl AsRef<str>) -> Self {
        Self::new(TextKind::Any, words.as_ref())
    }

    /// Asks for these words in this order with no other between them.
    ///
    /// No word may stand twice in a row: the server would find `bora` by the phrase `bora bora`.
    pub fn phrase(words: impl AsRef<str>) -> Self {
        Self::new(TextKind::Phrase, words.as_ref())
    }

    /// Asks for a word that starts with `word` (at least 2 bytes).
    ///
    /// The server looks up at most 200 different words that start so (its setting `MAXPREFIXEXPANSIONS`), and leaves
    /// out the rest without a word.
    /// It does not find words with upper-case letters outside of ASCII this way.
    pub fn prefix(word: impl AsRef<str>) -> Self {
        Self::new(TextKind::Prefix, word.as_ref())
    }

    fn new(kind: TextKind, text: &str) -> Self {
        let parts = |character: char| character.is_ascii() && !is_word_byte(character);
        let words = text.split(parts).filter(|word| !word.is_empty());
        Self { kind, words: words.map(str::to_ascii_lowercase).collect() }
    }

    pub(super) fn problem(&self) -> Option<Problem> {
        let problem = if self.words.is_empty() {
            return Some(Problem::Empty);
        } else if self.words.iter().any(|word| MAX_WORD_BYTES < word.len()) {
            "has a word of more than 128 bytes, where the index cuts it off: leave that word out"
        } else if self.kind == TextKind::Prefix && 1 < self.words.len() {
            "is a prefix of several words: join a prefix and Text::all with `&`"
        } else if self.kind == TextKind::Prefix
            && self.words.iter().any(|word| word.len() < MIN_PREFIX_BYTES)
        {
            "is a prefix shorter than 2 bytes: the server finds nothing by it"
        } else {
            return None;
        };
        Some(Problem::Invalid(problem))
    }

    /// What is wrong with the words that are left without the stop words.
    pub(super) fn indexed_problem(&self, stop_words: &[&str]) -> Option<&'static str> {
        let words = self.indexed_words(stop_words);
        if words.is_empty() {
            return Some(
                "holds only stop words such as `the`, which the index leaves out: add a word that says more",
            );
        }
        let repeats = words.windows(2).any(|pair| matches!(pair, [a, b] if a == b));
        (self.kind == TextKind::Phrase && repeats).then_some(
            "is a phrase with a word twice in a row, which the server takes for once: use Text::all, or a shorter phrase",
        )
    }

    /// Returns the words that the index can hold; each is letters, digits, `_` and characters outside of ASCII.
    pub(super) fn indexed_words(&self, stop_words: &[&str]) -> Vec<&str> {
        let mut words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        if self.kind != TextKind::Prefix {
            words.retain(|word| !stop_words.contains(word));
        }
        words
    }

    /// Tells whether a stored text fulfils this.
    pub(super) fn matches(&self, stored: &[u8], stop_words: &[&str]) -> bool {
        let tokens = indexed_tokens(stored, stop_words);
        let words = self.indexed_words(stop_words);
        let words: Vec<&[u8]> = words.into_iter().map(str::as_bytes).collect();
        let holds = |word: &&[u8]| tokens.iter().any(|token| token == word);
        match self.kind {
            TextKind::All => words.iter().all(holds),
            TextKind::Any => words.iter().any(holds),
            TextKind::Phrase => tokens
                .windows(words.len().max(1))
                .any(|window| window.iter().map(Vec::as_slice).eq(words.iter().copied())),
            TextKind::Prefix => {
                words.iter().all(|word| tokens.iter().any(|token| token.starts_with(word)))
            }
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "text {:?} of {}", self.kind, self.words.len())
    }
}

fn is_word_byte(character: char) -> bool {
    character.is_ascii_alphanumeric() || character == '_'
}

/// The words of a stored text that the index holds.
pub(super) fn indexed_tokens(stored: &[u8], stop_words: &[&str]) -> Vec<Vec<u8>> {
    let mut tokens = tokens(stored);
    tokens.retain(|token| !stop_words.iter().any(|stop| stop.as_bytes() == token.as_slice()));
    tokens
}

/// Parts a stored text into words as RediSearch does.
///
/// ASCII blanks and punctuation part words, except `_`; a backslash makes what follows a part of the word; control
/// characters, newlines too, vanish and join what is around them; a NUL byte ends the text.
fn tokens(stored: &[u8]) -> Vec<Vec<u8>> {
    let mut tokens = vec![Vec::new()];
    let mut escaped = false;
    for &byte in stored.iter().take_while(|byte| **byte != 0) {
        let parts = byte == b'\t' || byte == b' ' || (byte.is_ascii_punctuation() && byte != b'_');
        if byte == b'\\' && !escaped {
            escaped = true;
            continue;
        }
        if parts && !escaped {
            tokens.push(Vec::new());
        } else if !byte.is_ascii_control()
            && let Some(token) = tokens.last_mut()
        {
            token.push(byte.to_ascii_lowercase());
        }
        escaped = false;
    }
    tokens.retain(|token| !token.is_empty());
    tokens.iter_mut().for_each(|token| token.truncate(MAX_WORD_BYTES));
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_text_is_parted_as_the_server_parts_it() {
        for (text, words) in [
            ("The red, SHOE-lace 3.14", &["the", "red", "shoe", "lace", "3", "14"][..]),
            ("a_b it's", &["a_b", "it", "s"]),
            ("red\nshoe car\u{7f}t", &["redshoe", "cart"]),
            (
                "xa\\ya bb\\-cc dd\\\\ ee ff\\ gg hh\\",
                &["xaya", "bb-cc", "dd\\", "ee", "ff gg", "hh"],
            ),
            ("cut\0off", &["cut"]),
            ("SCHÖNE", &["schÖne"]),
            (" . ", &[]),
        ] {
            let found: Vec<String> = tokens(text.as_bytes())
                .into_iter()
                .map(|word| String::from_utf8(word).unwrap())
                .collect();
            assert_eq!(found, words, "{text:?}");
        }
    }

    #[test]
    fn words_hold_no_syntax() {
        let text: String = (0..=127_u8).map(char::from).collect();
        let Text { words, .. } = Text::all(text);
        assert_eq!(
            words,
            ["0123456789", "abcdefghijklmnopqrstuvwxyz", "_", "abcdefghijklmnopqrstuvwxyz"]
        );
    }
}
