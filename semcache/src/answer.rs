use std::fmt;

use bytes::Bytes;

use crate::{Error, Result};

/// What a model answered, to be stored.
///
/// `Debug` does not print the answer.
#[derive(Clone, Eq, PartialEq)]
pub struct Answer {
    response: Bytes,
    tokens_used: Option<u64>,
    completion_tokens: Option<u64>,
    tags: Vec<String>,
    finish: Finish,
}

/// How the model ended an answer.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Finish {
    /// It said all that it wanted to.
    #[default]
    Complete,
    /// It failed, or a filter stopped it; such an answer is never stored.
    Failed,
    /// A limit cut it off; such an answer is stored only if the request
    /// [asks for it](crate::CacheControl::store_truncated).
    Truncated,
}

impl Finish {
    /// Reads the `finish_reason` of an OpenAI-compatible endpoint, or the `stop_reason` of Anthropic's.
    ///
    /// Reasons that are not known count as [`Finish::Failed`], since nothing is known about the answer.
    #[must_use]
    pub fn of_reason(reason: &str) -> Self {
        match reason {
            "stop" | "end_turn" | "stop_sequence" | "tool_calls" | "tool_use" | "function_call" => {
                Self::Complete
            }
            "length" | "max_tokens" => Self::Truncated,
            _ => Self::Failed,
        }
    }
}

impl Answer {
    /// Makes an answer of its text, or of any bytes that the caller can read again.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyAnswer`] if it holds nothing but blanks.
    pub fn new(response: impl Into<Bytes>) -> Result<Self> {
        let response = response.into();
        if str::from_utf8(&response).is_ok_and(|text| text.trim().is_empty()) {
            return Err(Error::EmptyAnswer);
        }
        Ok(Self {
            response,
            tokens_used: None,
            completion_tokens: None,
            tags: Vec::new(),
            finish: Finish::Complete,
        })
    }

    /// Sets the number of tokens that the answer cost, those of the prompt included.
    #[must_use]
    pub fn with_tokens_used(mut self, tokens_used: u64) -> Self {
        self.tokens_used = Some(tokens_used);
        self
    }

    /// Sets the number of tokens of the request and of the answer, so that the money saved can be told.
    #[must_use]
    pub fn with_usage(mut self, prompt_tokens: u64, completion_tokens: u64) -> Self {
        self.tokens_used = Some(prompt_tokens.saturating_add(completion_tokens));
        self.completion_tokens = Some(completion_tokens);
        self
    }

    /// Adds a tag by which the entry can be invalidated, such as the id of a document that the answer came from.
    ///
    /// Only its digest is stored.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyTag`] if it holds nothing but blanks.
    pub fn with_tag(mut self, tag: impl Into<String>) -> Result<Self> {
        let tag = tag.into();
        if tag.trim().is_empty() {
            return Err(Error::EmptyTag);
        }
        self.tags.push(tag);
        Ok(self)
    }

    /// Sets how the model ended.
    #[must_use]
    pub fn with_finish(mut self, finish: Finish) -> Self {
        self.finish = finish;
        self
    }

    /// Returns the answer.
    #[must_use]
    pub fn response(&self) -> &Bytes {
        &self.response
    }

    /// Returns the answer as text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        str::from_utf8(&self.response).ok()
    }

    /// Returns the number of tokens that the answer cost, if known.
    #[must_use]
    pub fn tokens_used(&self) -> Option<u64> {
        self.tokens_used
    }

    /// Returns how many of these tokens are the answer's own, if known.
    #[must_use]
    pub fn completion_tokens(&self) -> Option<u64> {
        self.completion_tokens
    }

    /// Returns the tags.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    /// Returns how the model ended.
    #[must_use]
    pub fn finish(&self) -> Finish {
        self.finish
    }

    /// The answer of a hit, which is not empty.
    pub(crate) fn of_hit(
        response: Bytes,
        tokens_used: Option<u64>,
        completion_tokens: Option<u64>,
        finish: Finish,
    ) -> Self {
        let tags = Vec::new();
        Self { response, tokens_used, completion_tokens, tags, finish }
    }

    pub(crate) fn with_counts(mut self, tokens_used: Option<u64>, completion: Option<u64>) -> Self {
        self.tokens_used = tokens_used;
        self.completion_tokens = completion;
        self
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("bytes", &self.response.len())
            .field("tokens_used", &self.tokens_used)
            .field("completion_tokens", &self.completion_tokens)
            .field("tags", &self.tags.len())
            .field("finish", &self.finish)
            .finish_non_exhaustive()
    }
}
