use std::time::Duration;

use crate::EntryId;

/// The result of a question to a session store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a session was not read or changed.
///
/// No message holds what was said, nor a user's id.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An archive could not be written or read.
    #[error("the archive failed: it is tried again when the lease of the session ends")]
    #[non_exhaustive]
    Archive {
        /// What the archive says.
        source: Source,
        /// Whether the same call may succeed later.
        transient: bool,
    },
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// System prompt, summary and the newest message do not fit the budget of a window.
    #[error(
        "the window has {budget} tokens, and {needed} are needed for the system prompt, the summary and the newest messages: raise the budget or summarize to less"
    )]
    #[non_exhaustive]
    BudgetTooSmall {
        /// The least that would do.
        needed: u64,
        /// The budget.
        budget: u64,
    },
    /// A setting is out of its range.
    #[error("{what}, got {got:?}")]
    #[non_exhaustive]
    Config {
        /// What is allowed.
        what: &'static str,
        /// What came.
        got: Duration,
    },
    /// A stored message, or a session's hash, is not in the form that this crate writes.
    #[error("{what} of the session is damaged: somebody else has written to its keys")]
    #[non_exhaustive]
    Corrupt {
        /// What is damaged.
        what: &'static str,
    },
    /// An answer that is being streamed ended, or was never begun.
    #[error("there is no such draft: it expired or was never begun")]
    DraftGone,
    /// A message says nothing.
    #[error("the message has neither content nor tool calls: append only what was said")]
    EmptyMessage,
    /// There are no messages to append.
    #[error("there is nothing to append: pass at least one message")]
    NothingToAppend,
    /// The session was deleted, or its user erased, and this writer is late.
    #[error("the session was deleted: begin a new one under another id")]
    Erased,
    /// A text is not the id of a message.
    #[error("a message id is two numbers like 1706140800000-0: pass the text of an EntryId")]
    InvalidEntryId,
    /// An id is empty or too long.
    #[error("a {what} has 1 to 256 bytes, got {bytes}")]
    #[non_exhaustive]
    InvalidId {
        /// Which id.
        what: &'static str,
        /// The length that came.
        bytes: usize,
    },
    /// A message is longer than the store allows.
    #[error(
        "the message has {bytes} bytes, and the store allows {max}: raise it with Config::with_max_message_bytes, or store large content elsewhere and refer to it"
    )]
    #[non_exhaustive]
    MessageTooLong {
        /// The length that came.
        bytes: usize,
        /// The longest that is allowed.
        max: usize,
    },
    /// One call has more messages than the store takes at once.
    #[error("one call takes at most {max} messages, got {got}: append them in several calls")]
    #[non_exhaustive]
    TooManyMessages {
        /// The number that came.
        got: usize,
        /// The most that are allowed.
        max: usize,
    },
    /// There is no such message in the log, so nothing can follow it.
    #[error("there is no message {id} in the log: it was trimmed, or belongs to another session")]
    #[non_exhaustive]
    NoMessage {
        /// The message that was named.
        id: EntryId,
    },
    /// There is no such session: it was never created, or it has expired.
    #[error("there is no such session: create it, and begin anew if it has expired")]
    NoSession,
    /// A session of this id belongs to another user.
    #[error("a session of this id belongs to another user: make ids that are unique")]
    OtherUser,
    /// A summarizer failed; nothing was changed.
    #[error("the summarizer failed: the messages stay as they are until the next attempt")]
    #[non_exhaustive]
    Summarizer {
        /// What the summarizer says.
        source: Source,
        /// Whether the same call may succeed later.
        transient: bool,
    },
    /// A token counter failed; nothing was stored.
    #[error("the token counter failed: give messages their tokens, or another counter")]
    #[non_exhaustive]
    TokenCounter {
        /// What the counter says.
        source: Source,
    },
    /// A tool's result does not say which call it answers.
    #[error(
        "a message of the role `tool` names the call that it answers: make it with Message::tool"
    )]
    ToolWithoutCall,
    /// A message cannot be written as JSON.
    #[error(
        "the message cannot be written as JSON: keep other values than JSON's out of its parts"
    )]
    #[non_exhaustive]
    Unwritable {
        /// What is wrong with it.
        source: Source,
    },
    /// Something was written in a form that this release does not know.
    #[error(
        "the session has format version {found}, and this release reads up to {known}: upgrade this service"
    )]
    #[non_exhaustive]
    UnknownVersion {
        /// The version that was found; a number that does not fit counts as the greatest that does.
        found: u32,
        /// The last version that is known.
        known: u32,
    },
}

impl Error {
    /// Makes the error of an [`Archive`](crate::Archive).
    #[must_use]
    pub fn archive(source: impl Into<Source>, transient: bool) -> Self {
        Self::Archive { source: source.into(), transient }
    }

    /// Makes the error of a [`Summarizer`](crate::Summarizer).
    #[must_use]
    pub fn summarizer(source: impl Into<Source>, transient: bool) -> Self {
        Self::Summarizer { source: source.into(), transient }
    }

    /// Makes the error of a [`TokenCounter`](crate::TokenCounter).
    #[must_use]
    pub fn token_counter(source: impl Into<Source>) -> Self {
        Self::TokenCounter { source: source.into() }
    }

    /// Makes the error of a message that is too long, for an implementor of [`SessionStore`](crate::SessionStore).
    #[must_use]
    pub fn message_too_long(bytes: usize, max: usize) -> Self {
        Self::MessageTooLong { bytes, max }
    }

    pub(crate) fn unwritable(source: serde_json::Error) -> Self {
        Self::Unwritable { source: source.into() }
    }

    /// Makes the error of a message that is not there, for an implementor of [`SessionStore`](crate::SessionStore).
    #[must_use]
    pub fn no_message(id: EntryId) -> Self {
        Self::NoMessage { id }
    }

    /// Tells whether the same call may succeed later without anybody changing anything.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Backend(error) => error.is_transient(),
            Self::Archive { transient, .. } | Self::Summarizer { transient, .. } => *transient,
            _ => false,
        }
    }

    /// Tells whether a write may have been done although the call failed.
    ///
    /// Messages with a [`ClientId`](crate::ClientId) may be appended again all the same: they are stored once.
    #[must_use]
    pub fn maybe_applied(&self) -> bool {
        match self {
            Self::Backend(error) => error.maybe_applied(),
            Self::Archive { .. } => true,
            _ => false,
        }
    }
}
