use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::Namespace;

use crate::form::Form;
use crate::tokens::tokens_of;
use crate::{Error, EstimatedTokens, Lifetime, Message, Result, Role, TokenCounter};

/// The most messages of one call.
pub const MAX_MESSAGES: usize = 1000;

/// The most tokens that a message counts for: sums of them stay exact in the scripts' numbers.
const MAX_TOKENS: u64 = 1 << 32;

/// How a store is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The namespace of the keys; empty by default.
    pub namespace: Namespace,
    /// How long sessions live: 1 hour until they are idle, 24 hours in all, and 1 hour of grace.
    pub lifetime: Lifetime,
    /// The longest message, in bytes of its content and of its tool calls: 1 MiB.
    pub max_message_bytes: usize,
    /// What counts the tokens of messages: [`EstimatedTokens`].
    pub counter: Arc<dyn TokenCounter>,
}

impl Config {
    /// Makes the default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Sets how long sessions live.
    #[must_use]
    pub fn with_lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets the longest message, in bytes.
    #[must_use]
    pub fn with_max_message_bytes(mut self, bytes: usize) -> Self {
        self.max_message_bytes = bytes;
        self
    }

    /// Sets what counts the tokens of messages.
    #[must_use]
    pub fn with_counter(mut self, counter: Arc<dyn TokenCounter>) -> Self {
        self.counter = counter;
        self
    }

    /// Refuses what no store can work with.
    pub(crate) fn check(&self) -> Result<()> {
        let Lifetime { idle, ttl, grace } = self.lifetime;
        let allowed = Duration::from_millis(1)..=Duration::from_secs(100 * 365 * 86_400);
        for (what, got) in [
            ("the idle time is between a millisecond and a hundred years", idle),
            ("the time to live is between a millisecond and a hundred years", ttl),
            ("the grace is between a millisecond and a hundred years", grace),
        ] {
            if !allowed.contains(&got) {
                return Err(Error::Config { what, got });
            }
        }
        if ttl < idle {
            return Err(Error::Config {
                what: "the time to live is at least the idle time",
                got: ttl,
            });
        }
        Ok(())
    }

    /// How long the server keeps a session that nobody looks after, in milliseconds.
    pub(crate) fn life(&self) -> u64 {
        millis(self.lifetime.ttl).saturating_add(millis(self.lifetime.grace))
    }

    /// By how much the expiry of the keys may lag behind, in milliseconds, so that not every message sets it anew.
    pub(crate) fn slack(&self) -> u64 {
        (millis(self.lifetime.grace) / 2).min(60_000)
    }

    /// How old a session's place in the user's index may be, in milliseconds.
    pub(crate) fn stale(&self) -> u64 {
        (millis(self.lifetime.idle) / 4).min(60_000)
    }

    /// Checks messages and counts their tokens.
    pub(crate) async fn rows<'a>(&self, messages: &'a [Message]) -> Result<Vec<Row<'a>>> {
        match messages.len() {
            0 => return Err(Error::NothingToAppend),
            1..=MAX_MESSAGES => {}
            got => return Err(Error::TooManyMessages { got, max: MAX_MESSAGES }),
        }
        let mut rows = Vec::with_capacity(messages.len());
        for message in messages {
            rows.push(self.row(message).await?);
        }
        Ok(rows)
    }

    pub(crate) async fn row<'a>(&self, message: &'a Message) -> Result<Row<'a>> {
        if message.role == Role::Tool {
            if message.tool_call_id.as_ref().is_none_or(String::is_empty) {
                return Err(Error::ToolWithoutCall);
            }
        } else if message.content.is_empty() && message.tool_calls.is_empty() {
            return Err(Error::EmptyMessage);
        }
        let form = Form::of(message)?;
        let (bytes, max) = (form.bytes(), self.max_message_bytes);
        if max < bytes {
            return Err(Error::message_too_long(bytes, max));
        }
        let tokens = tokens_of(&*self.counter, message).await?.min(MAX_TOKENS);
        Ok(Row { message, form, tokens })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: Namespace::default(),
            lifetime: Lifetime::default(),
            max_message_bytes: 1 << 20,
            counter: Arc::new(EstimatedTokens),
        }
    }
}

/// A message that may be stored.
#[derive(Debug)]
pub(crate) struct Row<'a> {
    pub(crate) message: &'a Message,
    pub(crate) form: Form<'a>,
    pub(crate) tokens: u64,
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
