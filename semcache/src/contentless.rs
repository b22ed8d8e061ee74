//! Prompts that say nothing without what was said before: their vectors are near each other in every conversation.

/// Words of which a prompt may consist without saying anything by itself.
const FILLERS: &[&str] = &[
    "a",
    "again",
    "ahead",
    "all",
    "alright",
    "and",
    "anything",
    "as",
    "at",
    "be",
    "but",
    "can",
    "cancel",
    "continue",
    "cool",
    "correct",
    "could",
    "detail",
    "details",
    "do",
    "done",
    "elaborate",
    "else",
    "exactly",
    "example",
    "examples",
    "expand",
    "explain",
    "fine",
    "first",
    "further",
    "give",
    "go",
    "good",
    "got",
    "great",
    "hello",
    "here",
    "hey",
    "hi",
    "how",
    "i",
    "in",
    "is",
    "it",
    "keep",
    "last",
    "less",
    "longer",
    "me",
    "more",
    "my",
    "next",
    "nice",
    "no",
    "nope",
    "not",
    "now",
    "of",
    "ok",
    "okay",
    "on",
    "one",
    "ones",
    "option",
    "or",
    "other",
    "perfect",
    "please",
    "previous",
    "proceed",
    "really",
    "redo",
    "repeat",
    "retry",
    "right",
    "same",
    "second",
    "shorter",
    "simpler",
    "so",
    "start",
    "stop",
    "sure",
    "tell",
    "test",
    "thank",
    "thanks",
    "that",
    "the",
    "them",
    "then",
    "these",
    "they",
    "third",
    "this",
    "those",
    "to",
    "too",
    "try",
    "understood",
    "undo",
    "up",
    "us",
    "wait",
    "we",
    "well",
    "what",
    "when",
    "where",
    "which",
    "who",
    "why",
    "with",
    "yeah",
    "yep",
    "yes",
    "you",
];

/// Tells whether a prompt says something by itself: it holds a word that is neither a filler nor one of `more`, which are
/// in lower case.
pub(crate) fn has_content(prompt: &str, more: &[String]) -> bool {
    let gap =
        |c: char| c.is_whitespace() || matches!(c, '.' | ',' | ';' | ':' | '!' | '?' | '/' | '…');
    prompt.split(gap).any(|word| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        // "that's", "I'm", "don't"
        let stem = word.split('\'').next().unwrap_or_default();
        let number = word.bytes().all(|byte| byte.is_ascii_digit());
        let filler = |word: &str| FILLERS.binary_search(&word).is_ok() || stem == "don";
        !word.is_empty() && !number && !filler(stem) && !more.contains(&word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_sorted() {
        assert!(FILLERS.is_sorted());
    }

    #[test]
    fn prompts_without_content_are_told() {
        for prompt in [
            "",
            " ",
            "\n",
            "continue",
            "Continue.",
            "CONTINUE!!!",
            "go on",
            "yes",
            "Yes, please",
            "no",
            "ok",
            "...",
            "👍",
            "?",
            "why?",
            "2",
            "option 2",
            "the first one",
            "Tell me more",
            "that's it",
            "What's next?",
            "don't",
            "Thanks!",
            "give me more details",
        ] {
            assert!(!has_content(prompt, &[]), "{prompt:?}");
        }
    }

    #[test]
    fn prompts_with_content_are_told() {
        for prompt in [
            "What is the capital of France?",
            "photosynthesis",
            "explain recursion",
            "17*23",
            "1@0",
            "法国的首都是哪里",
            "wie spät ist es",
            "continue the poem",
            "yes or no: is water wet",
        ] {
            assert!(has_content(prompt, &[]), "{prompt:?}");
        }
        assert!(!has_content("weiter", &["weiter".to_owned()]));
    }
}
