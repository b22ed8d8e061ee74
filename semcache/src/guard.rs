use std::collections::HashSet;

use async_trait::async_trait;

use crate::verifier::VerifierError;
use crate::{Hit, Request, Verdict, Verifier};

/// Checks what vectors do not see: that two prompts have the same numbers, negations, opposites and names.
///
/// Embedding models put "Is it safe?" beside "Is it unsafe?", and 2019 beside 2024.
/// The guard compares words, costs microseconds and needs no model.
/// It rejects many rewordings too: measured on Quora questions it took a third of the wrong answers at the
/// same threshold, and a fifth of the hits with them.
///
/// It rejects if
/// - the numbers differ, or the one prompt has one more often;
/// - the one prompt has an odd number of negations and the other an even one, where `unsafe` negates `safe`;
/// - the one prompt has a word and the other its opposite, such as `enable` and `disable`;
/// - a capitalized word or an abbreviation of the one is no word of the other, unless it begins a sentence;
/// - names or numbers come in another order, and the prompts say from what to what.
///
/// The words are English; in other languages numbers and names still count.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Guard;

impl Guard {
    /// Tells whether the answer to `stored` may be given to `asked`.
    #[must_use]
    pub fn accepts(&self, asked: &str, stored: &str) -> bool {
        let (asked, stored) = (Words::of(asked), Words::of(stored));
        asked.numbers() == stored.numbers()
            && !opposed(&asked, &stored)
            && asked.names_are_in(&stored)
            && stored.names_are_in(&asked)
            && !(turned_round(&asked, &stored) && (asked.has_direction() || stored.has_direction()))
    }
}

#[async_trait]
impl Verifier for Guard {
    async fn verify(&self, asked: &Request, candidate: &Hit) -> Result<Verdict, VerifierError> {
        let accepted = self.accepts(asked.prompt(), &candidate.prompt);
        Ok(if accepted { Verdict::Accept } else { Verdict::Reject })
    }
}

const NEGATIONS: &[&str] = &[
    "aint", "cannot", "cant", "didnt", "doesnt", "dont", "except", "hadnt", "hasnt", "havent",
    "isnt", "neither", "never", "no", "nobody", "none", "nor", "not", "nothing", "nowhere",
    "shouldnt", "wasnt", "werent", "without", "wont", "wouldnt",
];

const PREFIXES: &[&str] = &["un", "in", "im", "ir", "il", "dis", "non", "de", "anti", "mis"];

const OPPOSITES: &[(&str, &str)] = &[
    ("activate", "deactivate"),
    ("add", "remove"),
    ("after", "before"),
    ("allow", "block"),
    ("allow", "deny"),
    ("allow", "forbid"),
    ("allow", "prevent"),
    ("always", "never"),
    ("ascending", "descending"),
    ("asc", "desc"),
    ("attach", "detach"),
    ("best", "worst"),
    ("biggest", "smallest"),
    ("bottom", "top"),
    ("buy", "sell"),
    ("cheap", "expensive"),
    ("cheapest", "expensive"),
    ("close", "open"),
    ("cold", "hot"),
    ("create", "delete"),
    ("credit", "debit"),
    ("decrease", "increase"),
    ("decrypt", "encrypt"),
    ("deposit", "withdraw"),
    ("disable", "enable"),
    ("disabled", "enabled"),
    ("disadvantages", "advantages"),
    ("down", "up"),
    ("download", "upload"),
    ("east", "west"),
    ("easy", "hard"),
    ("end", "start"),
    ("export", "import"),
    ("fail", "succeed"),
    ("false", "true"),
    ("fast", "slow"),
    ("female", "male"),
    ("first", "last"),
    ("gain", "lose"),
    ("gain", "loss"),
    ("good", "bad"),
    ("hide", "show"),
    ("high", "low"),
    ("highest", "lowest"),
    ("hire", "fire"),
    ("input", "output"),
    ("install", "uninstall"),
    ("largest", "smallest"),
    ("least", "most"),
    ("left", "right"),
    ("legal", "illegal"),
    ("less", "more"),
    ("lock", "unlock"),
    ("login", "logout"),
    ("long", "short"),
    ("longest", "shortest"),
    ("max", "min"),
    ("maximum", "minimum"),
    ("men", "women"),
    ("minus", "plus"),
    ("mute", "unmute"),
    ("new", "old"),
    ("newest", "oldest"),
    ("north", "south"),
    ("off", "on"),
    ("over", "under"),
    ("pass", "fail"),
    ("pros", "cons"),
    ("receive", "send"),
    ("serialize", "deserialize"),
    ("start", "stop"),
    ("strongest", "weakest"),
    ("subscribe", "unsubscribe"),
    ("tallest", "shortest"),
    ("win", "lose"),
    ("with", "without"),
];

const DIRECTIONS: &[&str] = &[
    "after", "before", "beat", "beats", "better", "bigger", "cause", "causes", "from", "into",
    "less", "minus", "more", "over", "than", "to", "toward", "towards", "under", "versus",
];

const NUMBER_WORDS: &[(&str, &str)] = &[
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
];

/// The words of a prompt.
struct Words {
    /// In lower case, without apostrophes.
    all: Vec<String>,
    set: HashSet<String>,
    /// The places of names among them.
    names: Vec<usize>,
}

impl Words {
    fn of(prompt: &str) -> Self {
        let (mut all, mut names) = (Vec::new(), Vec::new());
        let mut first = true;
        for piece in prompt.split_whitespace() {
            for word in piece.split(is_gap).filter(|word| !word.is_empty()) {
                let capitals = word.chars().filter(|c| c.is_uppercase()).count();
                let name = match word.chars().next() {
                    Some(start) if start.is_uppercase() => !first || 1 < capitals,
                    _ => 0 < capitals,
                };
                let word: String = word.chars().filter(|c| !is_apostrophe(*c)).collect();
                // `I` is no name, wherever it stands.
                if name && word != "I" && !word.starts_with("Im") {
                    names.push(all.len());
                }
                let word = word.trim_end_matches('.').to_lowercase();
                let number = NUMBER_WORDS.iter().find(|(name, _)| *name == word);
                all.push(number.map_or(word, |(_, digits)| (*digits).to_owned()));
                first = false;
            }
            first |= piece.ends_with(['.', '!', '?', ':', '\n']);
        }
        Self { set: all.iter().cloned().collect(), all, names }
    }

    /// The words with a digit, sorted.
    fn numbers(&self) -> Vec<&str> {
        let digit = |word: &&str| word.bytes().any(|byte| byte.is_ascii_digit());
        let mut numbers: Vec<&str> = self.all.iter().map(String::as_str).filter(digit).collect();
        numbers.sort_unstable();
        numbers
    }

    fn names_are_in(&self, other: &Self) -> bool {
        self.names.iter().filter_map(|place| self.all.get(*place)).all(|name| {
            let stem = name.strip_suffix('s').unwrap_or(name);
            other.set.contains(name)
                || other.set.contains(stem)
                || other.set.contains(&format!("{stem}s"))
        })
    }

    /// Whether the negations come to one.
    fn is_negated(&self) -> bool {
        self.all.iter().filter(|word| NEGATIONS.contains(&word.as_str())).count() % 2 == 1
    }

    fn has_direction(&self) -> bool {
        self.all.iter().any(|word| DIRECTIONS.contains(&word.as_str()))
    }

    /// How many words there are that `other` has with a prefix that negates.
    fn negated_in(&self, other: &Self) -> usize {
        let negated = |word: &&String| {
            2 < word.len()
                && !other.set.contains(*word)
                && PREFIXES.iter().any(|prefix| {
                    let longer = format!("{prefix}{word}");
                    other.set.contains(&longer) && !self.set.contains(&longer)
                })
        };
        self.set.iter().filter(negated).count()
    }
}

/// Whether the one prompt says the opposite of the other.
fn opposed(a: &Words, b: &Words) -> bool {
    let prefixed = a.negated_in(b) + b.negated_in(a);
    let negations = usize::from(a.is_negated()) + usize::from(b.is_negated()) + prefixed;
    let only = |word: &str, here: &Words, there: &Words| {
        here.set.contains(word) && !there.set.contains(word)
    };
    let opposites = OPPOSITES.iter().any(|(one, other)| {
        (only(one, a, b) && only(other, b, a)) || (only(other, a, b) && only(one, b, a))
    });
    negations % 2 == 1 || opposites
}

/// Whether the same names and numbers come in another order.
fn turned_round(a: &Words, b: &Words) -> bool {
    let marked = |words: &Words| -> Vec<String> {
        let digit = |word: &String| word.bytes().any(|byte| byte.is_ascii_digit());
        let of_either = |word: &String| {
            digit(word)
                || [a, b].iter().any(|words| {
                    words.names.iter().any(|place| words.all.get(*place) == Some(word))
                })
        };
        words.all.iter().filter(|word| of_either(word)).cloned().collect()
    };
    let (mut a, mut b) = (marked(a), marked(b));
    if a == b {
        return false;
    }
    a.sort_unstable();
    b.sort_unstable();
    a == b
}

/// What parts words; a point or a comma between digits does not.
fn is_gap(c: char) -> bool {
    !(c.is_alphanumeric() || is_apostrophe(c) || c == '.')
}

fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{2019}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_vectors_do_not_see_is_rejected() {
        for (a, b) in [
            ("Is it safe to mix bleach and ammonia?", "Is it unsafe to mix bleach and ammonia?"),
            ("convert 100 USD to EUR", "convert 100 EUR to USD"),
            ("Who was CEO of Twitter in 2019?", "Who was CEO of Twitter in 2024?"),
            ("What is 17*23?", "What is 17*24?"),
            ("How do I enable 2FA?", "How do I disable 2FA?"),
            ("How to print in Python 2", "How to print in Python 3"),
            ("Can I take aspirin with ibuprofen?", "Can I take aspirin without ibuprofen?"),
            ("Does this work?", "Does this not work?"),
            ("Why doesn't my code compile?", "Why does my code compile?"),
            ("What is the capital of France?", "What is the capital of Germany?"),
            ("list three reasons", "list five reasons"),
            ("is 5 bigger than 3", "is 3 bigger than 5"),
            ("flights from Paris to Rome", "flights from Rome to Paris"),
            ("Is the product legal?", "Is the product illegal?"),
            ("How do I turn on dark mode?", "How do I turn off dark mode?"),
        ] {
            assert!(!Guard.accepts(a, b) && !Guard.accepts(b, a), "{a} / {b}");
        }
    }

    #[test]
    fn rewordings_are_accepted() {
        for (a, b) in [
            ("What is the capital of France?", "what's the capital of france?"),
            ("What is the capital of France?", "Tell me France's capital"),
            ("How do I reset my password?", "I forgot my password, how can I reset it?"),
            ("Which is not allowed?", "What is disallowed?"),
            ("Explain photosynthesis briefly", "Briefly explain photosynthesis."),
            ("list three reasons", "list 3 reasons"),
            ("Compare Rust and Go", "Compare Go and Rust"),
            ("I think I'm lost. What now?", "i think im lost, what now"),
        ] {
            assert!(Guard.accepts(a, b) && Guard.accepts(b, a), "{a} / {b}");
        }
    }

    #[test]
    fn any_text_is_taken() {
        for text in ["", " ", "'", "...", "\0", "日本", "🙂🙂", "'''s", "a.b.c.", "İ ß ẞ"]
        {
            assert!(Guard.accepts(text, text), "{text:?}");
        }
    }
}
