use async_trait::async_trait;
use tiktoken_rs::tokenizer::{Tokenizer, get_tokenizer};

use crate::{Error, Result, TokenCounter};

/// Counts tokens as OpenAI's models do, exactly.
///
/// The first count loads the vocabulary, which takes half a second of CPU time and 46 MB that stay.
/// A count takes about a microsecond for 16 bytes of ordinary text and ten times as long for one character repeated, so all of
/// them run on tokio's threads for blocking work.
#[derive(Clone, Copy, Debug)]
pub struct Tiktoken {
    tokenizer: Tokenizer,
}

impl Tiktoken {
    /// Makes a counter for a model of OpenAI, such as `gpt-4o`; nothing is loaded yet.
    ///
    /// # Errors
    ///
    /// [`Error::TokenCounter`] for a model that is not OpenAI's or too new: count with
    /// [`EstimatedTokens`](crate::EstimatedTokens) instead.
    pub fn for_model(model: &str) -> Result<Self> {
        match get_tokenizer(model) {
            Some(tokenizer) => Ok(Self { tokenizer }),
            None => Err(Error::token_counter("the tokenizer of this model is not known")),
        }
    }
}

#[async_trait]
impl TokenCounter for Tiktoken {
    async fn count(&self, text: &str) -> Result<u64> {
        if text.is_empty() {
            return Ok(0);
        }
        let (text, tokenizer) = (text.to_owned(), self.tokenizer);
        let count = tokio::task::spawn_blocking(move || {
            let bpe = tiktoken_rs::bpe_for_tokenizer(tokenizer);
            bpe.map(|bpe| bpe.count_ordinary(&text)).map_err(|error| error.to_string())
        });
        let count = count.await.map_err(Error::token_counter)?.map_err(Error::token_counter)?;
        Ok(u64::try_from(count).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::EstimatedTokens;

    #[tokio::test]
    async fn counts_are_openai_s() {
        let counter = Tiktoken::for_model("gpt-4o").unwrap();
        for (text, tokens) in [
            ("", 0),
            ("Hello, world!", 4),
            ("The quick brown fox jumps over the lazy dog.", 10),
            ("<|endoftext|>", 7),
        ] {
            assert_eq!(counter.count(text).await.unwrap(), tokens, "{text}");
        }
        assert!(matches!(Tiktoken::for_model("claude"), Err(Error::TokenCounter { .. })));
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_long_count_does_not_hold_up_the_others() {
        let counter = Tiktoken::for_model("gpt-4o").unwrap();
        counter.count("loaded").await.unwrap();
        let text = "a".repeat(300_000);
        let longest = async {
            let mut longest = Duration::ZERO;
            for _ in 0..50 {
                let start = Instant::now();
                tokio::time::sleep(Duration::from_millis(1)).await;
                longest = longest.max(start.elapsed());
            }
            longest
        };
        let start = Instant::now();
        let (count, longest) = tokio::join!(counter.count(&text), longest);
        let whole = start.elapsed();
        assert!(0 < count.unwrap());
        assert!(longest < whole / 2, "{longest:?} of {whole:?}");
    }

    #[tokio::test]
    async fn estimates_are_near_the_counts() {
        let counter = Tiktoken::for_model("gpt-4o").unwrap();
        let json = r#"{"id":"call_7","type":"function","function":{"name":"get_weather"}}"#;
        let chinese = "今天天气很好,我们一起去公园散步吧。晚上再去吃火锅,好不好?";
        for text in [include_str!("../README.md"), include_str!("memory.rs"), json, chinese] {
            let count = counter.count(text).await.unwrap();
            let estimate = EstimatedTokens::estimate(text);
            let near = count * 9 / 10 <= estimate && estimate <= count * 3 / 2;
            assert!(near, "{estimate} for {count}: {}", text.get(..40).unwrap_or_default());
        }
    }
}
