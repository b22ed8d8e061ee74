use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{EntryId, Message, SessionId, UserId};

/// What a session begins with.
#[derive(Clone)]
#[non_exhaustive]
pub struct NewSession {
    /// The session's id.
    pub id: SessionId,
    /// The user it belongs to.
    pub user: UserId,
    /// The model that answers.
    pub model: Option<String>,
    /// The system prompt, with which every window begins.
    pub system: Option<String>,
    /// The tokens of the system prompt, where the caller knows better than the store's counter.
    pub system_tokens: Option<u64>,
    /// The caller's own data, such as a title or JSON.
    pub metadata: Option<String>,
}

impl NewSession {
    /// Begins a session of a user.
    #[must_use]
    pub fn new(id: SessionId, user: UserId) -> Self {
        Self { id, user, model: None, system: None, system_tokens: None, metadata: None }
    }

    /// Sets the model.
    #[must_use]
    pub fn with_model(mut self, model: impl Into<String>) -> Self {
        self.model = Some(model.into());
        self
    }

    /// Sets the system prompt.
    #[must_use]
    pub fn with_system(mut self, system: impl Into<String>) -> Self {
        self.system = Some(system.into());
        self
    }

    /// Sets the caller's own data.
    #[must_use]
    pub fn with_metadata(mut self, metadata: impl Into<String>) -> Self {
        self.metadata = Some(metadata.into());
        self
    }
}

impl fmt::Debug for NewSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewSession")
            .field("id", &self.id)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

/// A session as it stands, without its messages.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Session {
    /// The session's id.
    pub id: SessionId,
    /// The user it belongs to.
    pub user: UserId,
    /// The model that answers.
    pub model: Option<String>,
    /// The system prompt.
    pub system: Option<String>,
    /// The tokens of the system prompt.
    pub system_tokens: u64,
    /// The caller's own data.
    pub metadata: Option<String>,
    /// When it was created, in milliseconds since the Unix epoch by the server's clock.
    pub created: u64,
    /// The last message that was appended, on whatever branch.
    pub last: Option<EntryId>,
    /// How many messages were ever appended, on all branches.
    pub messages: u64,
    /// The tokens of all messages of the active branch.
    pub tokens: u64,
    /// The newest message of the active branch, if there are branches; [`EntryId::ZERO`] if it is empty.
    pub leaf: Option<EntryId>,
    /// The newest summary.
    pub summary: Option<Summary>,
    /// The summary of what was trimmed from the log.
    pub base: Option<Summary>,
    /// Changes with every summary and with every change of branch.
    pub summary_version: u64,
    /// The last message that is in the archive.
    pub archived: Option<EntryId>,
    /// How many answers are being streamed.
    pub drafts: u64,
}

impl Session {
    /// Makes a session without messages, for an implementor of [`SessionStore`](crate::SessionStore).
    #[must_use]
    pub fn new(new: &NewSession, system_tokens: u64, created: u64) -> Self {
        Self {
            id: new.id.clone(),
            user: new.user.clone(),
            model: new.model.clone(),
            system: new.system.clone(),
            system_tokens,
            metadata: new.metadata.clone(),
            created,
            last: None,
            messages: 0,
            tokens: 0,
            leaf: None,
            summary: None,
            base: None,
            summary_version: 0,
            archived: None,
            drafts: 0,
        }
    }

    /// Returns when something was last said, or else when it was created, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.last.map_or(self.created, EntryId::millis)
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("last", &self.last)
            .field("messages", &self.messages)
            .field("tokens", &self.tokens)
            .field("leaf", &self.leaf)
            .field("summary", &self.summary)
            .field("archived", &self.archived)
            .finish_non_exhaustive()
    }
}

/// What stands in a window for older messages.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Summary {
    /// The text.
    pub text: String,
    /// Its tokens.
    pub tokens: u64,
    /// The last message it stands for.
    pub upto: EntryId,
    /// How many messages it stands for.
    pub messages: u64,
}

impl Summary {
    /// Makes a summary.
    #[must_use]
    pub fn new(text: impl Into<String>, tokens: u64, upto: EntryId, messages: u64) -> Self {
        Self { text: text.into(), tokens, upto, messages }
    }

    /// Returns the system message that tells a model of it.
    #[must_use]
    pub fn to_message(&self) -> Message {
        Message::system(format!("Summary of the conversation so far:\n{}", self.text))
    }
}

impl fmt::Debug for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Summary")
            .field("tokens", &self.tokens)
            .field("upto", &self.upto)
            .field("messages", &self.messages)
            .finish_non_exhaustive()
    }
}
