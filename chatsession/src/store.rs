use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::Leases;

use crate::{
    Delta, Draft, Entry, EntryId, FinishReason, Finished, Message, NewSession, Pushed, Result,
    Session, SessionId, Summary, Turn, UserId,
};

/// Conversations: the contract with those who implement a store.
///
/// Callers use [`SessionStoreExt`](crate::SessionStoreExt) besides.
/// Writes to a session that does not exist are errors: a late writer never brings a session back.
#[async_trait]
pub trait SessionStore: Debug + Send + Sync + 'static {
    /// Creates a session; `false` if this user has it already, which is left as it is.
    ///
    /// Repeating the call is safe.
    ///
    /// # Errors
    ///
    /// [`Error::OtherUser`](crate::Error::OtherUser); [`Error::Erased`](crate::Error::Erased) if it was deleted lately.
    async fn create(&self, new: &NewSession) -> Result<bool>;

    /// Appends messages: all or none, in their order, nothing of others in between.
    ///
    /// A message whose client id is among the newest 256 of the session's last ten minutes is not stored again.
    /// The session lives from now as long as a new one.
    ///
    /// # Errors
    ///
    /// [`Error::NoSession`](crate::Error::NoSession), [`Error::Erased`](crate::Error::Erased),
    /// [`Error::NoMessage`](crate::Error::NoMessage) for a place that is not there; errors of bad messages.
    /// Nothing is stored then, except that after [`Error::maybe_applied`](crate::Error::maybe_applied) the messages may be:
    /// repeat the call if they have client ids.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may still append the messages.
    async fn append(&self, session: &SessionId, append: &Append) -> Result<Appended>;

    /// Returns a session without its messages; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn session(&self, session: &SessionId) -> Result<Option<Session>>;

    /// Returns messages of the log in the order of their ids, those of all branches; `None` if there is no session.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`](crate::Error::Corrupt), [`Error::UnknownVersion`](crate::Error::UnknownVersion),
    /// [`Error::Backend`](crate::Error::Backend).
    async fn read(&self, session: &SessionId, range: Range) -> Result<Option<Vec<Entry>>>;

    /// Returns the end of the active branch: the summary and the messages after it, the newest that together have at least
    /// `tokens` tokens, or all; `None` if there is no session.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn recent(&self, session: &SessionId, tokens: u64) -> Result<Option<Recent>>;

    /// Makes another message the one that the next message follows, and returns that message; [`EntryId::ZERO`] is the
    /// beginning.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    async fn fork(&self, session: &SessionId, at: Fork) -> Result<EntryId>;

    /// Stores a summary if the session's [`summary_version`](Session::summary_version) is still `version`; `false` if not.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    async fn commit_summary(
        &self,
        session: &SessionId,
        version: u64,
        summary: &Summary,
    ) -> Result<bool>;

    /// Removes messages from the log that are in the summary, and returns how many.
    ///
    /// A branched session keeps all of them.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    async fn trim(&self, session: &SessionId) -> Result<u64>;

    /// Appends deltas to the draft of an answer, which begins with the first ones.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    async fn push_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        deltas: &[Delta],
    ) -> Result<Pushed>;

    /// Returns the deltas of a draft after `after`, all of them for [`EntryId::ZERO`].
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn draft(&self, session: &SessionId, turn: &Turn, after: EntryId) -> Result<Draft>;

    /// Moves a draft into the log as one message: what has been pushed, whoever pushed it; late deltas are refused.
    ///
    /// Repeating the call is safe.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append); [`Error::DraftGone`](crate::Error::DraftGone) if there is none.
    async fn finish_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        reason: FinishReason,
    ) -> Result<Finished>;

    /// Returns the answers that are being streamed.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn open_drafts(&self, session: &SessionId) -> Result<Vec<Turn>>;

    /// Deletes a session and what is in it; `false` if there was none.
    ///
    /// Late writers get [`Error::Erased`](crate::Error::Erased), and the janitor removes the session from the archive.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): repeat the call.
    async fn delete(&self, session: &SessionId) -> Result<bool>;

    /// Returns the sessions of a user, the latest active first.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn sessions(&self, user: &UserId, limit: usize) -> Result<Vec<Session>>;

    /// Deletes all sessions of a user, also those that are being created, and returns them.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): some may be deleted; repeat the call.
    async fn erase_user(&self, user: &UserId) -> Result<Vec<SessionId>>;

    /// Takes sessions that are due for the janitor; nobody else gets them for the time of `lease`.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<Due>>;

    /// Gives sessions back that were [claimed](Self::claim), each with its next deadline in milliseconds since the Unix
    /// epoch, or `None` if it is gone; a claim that was lost changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): they are due again when the lease ends.
    async fn settle(&self, settled: &[(Due, Option<u64>)]) -> Result<()>;

    /// Tells what became of a session that is due.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    async fn inspect(&self, session: &SessionId) -> Result<Found>;

    /// Notes that a session is archived up to a message, or nothing but that it must be kept for `keep`; `false` if the
    /// session was deleted meanwhile.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn mark_archived(
        &self,
        session: &SessionId,
        upto: Option<EntryId>,
        keep: Duration,
    ) -> Result<bool>;

    /// Removes a session whose time has come, if its last message is still `last` and no answer is being streamed;
    /// `false` if not.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn expire(&self, session: &Session) -> Result<bool>;

    /// Returns how long sessions live.
    fn lifetime(&self) -> Lifetime;

    /// Counts the tokens of a text as those of messages are counted.
    ///
    /// # Errors
    ///
    /// [`Error::TokenCounter`](crate::Error::TokenCounter).
    async fn count_tokens(&self, text: &str) -> Result<u64>;

    /// Returns the leases under which sessions are summarized.
    fn leases(&self) -> &dyn Leases;
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<S: SessionStore + ?Sized> SessionStore for $pointer<S> {
            async fn create(&self, new: &NewSession) -> Result<bool> {
                (**self).create(new).await
            }
            async fn append(&self, session: &SessionId, append: &Append) -> Result<Appended> {
                (**self).append(session, append).await
            }
            async fn session(&self, session: &SessionId) -> Result<Option<Session>> {
                (**self).session(session).await
            }
            async fn read(&self, session: &SessionId, range: Range) -> Result<Option<Vec<Entry>>> {
                (**self).read(session, range).await
            }
            async fn recent(&self, session: &SessionId, tokens: u64) -> Result<Option<Recent>> {
                (**self).recent(session, tokens).await
            }
            async fn fork(&self, session: &SessionId, at: Fork) -> Result<EntryId> {
                (**self).fork(session, at).await
            }
            async fn commit_summary(
                &self,
                session: &SessionId,
                version: u64,
                summary: &Summary,
            ) -> Result<bool> {
                (**self).commit_summary(session, version, summary).await
            }
            async fn trim(&self, session: &SessionId) -> Result<u64> {
                (**self).trim(session).await
            }
            async fn push_draft(
                &self,
                session: &SessionId,
                turn: &Turn,
                deltas: &[Delta],
            ) -> Result<Pushed> {
                (**self).push_draft(session, turn, deltas).await
            }
            async fn draft(
                &self,
                session: &SessionId,
                turn: &Turn,
                after: EntryId,
            ) -> Result<Draft> {
                (**self).draft(session, turn, after).await
            }
            async fn finish_draft(
                &self,
                session: &SessionId,
                turn: &Turn,
                reason: FinishReason,
            ) -> Result<Finished> {
                (**self).finish_draft(session, turn, reason).await
            }
            async fn open_drafts(&self, session: &SessionId) -> Result<Vec<Turn>> {
                (**self).open_drafts(session).await
            }
            async fn delete(&self, session: &SessionId) -> Result<bool> {
                (**self).delete(session).await
            }
            async fn sessions(&self, user: &UserId, limit: usize) -> Result<Vec<Session>> {
                (**self).sessions(user, limit).await
            }
            async fn erase_user(&self, user: &UserId) -> Result<Vec<SessionId>> {
                (**self).erase_user(user).await
            }
            async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<Due>> {
                (**self).claim(limit, lease).await
            }
            async fn settle(&self, settled: &[(Due, Option<u64>)]) -> Result<()> {
                (**self).settle(settled).await
            }
            async fn inspect(&self, session: &SessionId) -> Result<Found> {
                (**self).inspect(session).await
            }
            async fn mark_archived(
                &self,
                session: &SessionId,
                upto: Option<EntryId>,
                keep: Duration,
            ) -> Result<bool> {
                (**self).mark_archived(session, upto, keep).await
            }
            async fn expire(&self, session: &Session) -> Result<bool> {
                (**self).expire(session).await
            }
            fn lifetime(&self) -> Lifetime {
                (**self).lifetime()
            }
            async fn count_tokens(&self, text: &str) -> Result<u64> {
                (**self).count_tokens(text).await
            }
            fn leases(&self) -> &dyn Leases {
                (**self).leases()
            }
        }
    )*};
}
forward!(Arc, Box);

/// Messages to append, and where.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Append {
    /// The messages, in order.
    pub messages: Vec<Message>,
    /// Where they go; after the newest message of the active branch if this is `None`.
    pub at: Option<Fork>,
}

impl Append {
    /// Appends messages after the newest one of the active branch.
    #[must_use]
    pub fn new(messages: impl IntoIterator<Item = Message>) -> Self {
        Self { messages: messages.into_iter().collect(), at: None }
    }

    /// Begins a new branch with the messages, which becomes the active one.
    #[must_use]
    pub fn at(mut self, at: Fork) -> Self {
        self.at = Some(at);
        self
    }
}

impl From<Message> for Append {
    fn from(message: Message) -> Self {
        Self::new([message])
    }
}

/// Where a branch begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fork {
    /// After a message; [`EntryId::ZERO`] is the beginning.
    After(EntryId),
    /// In the place of a message: an edit of it, or an answer generated again.
    Instead(EntryId),
}

/// What was appended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Appended {
    /// The messages' ids, in order; a message that was stored before has the id of then.
    pub ids: Vec<EntryId>,
    /// How many of them were stored before.
    pub duplicates: usize,
}

impl Appended {
    /// Makes the outcome of an append, for an implementor of [`SessionStore`].
    pub fn new(ids: Vec<EntryId>, duplicates: usize) -> Self {
        Self { ids, duplicates }
    }
}

/// Which messages are read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Range {
    /// All of them.
    All,
    /// Those after one, at most so many.
    After(EntryId, usize),
    /// The last ones, at most so many.
    Last(usize),
}

/// The end of the active branch.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Recent {
    /// The session.
    pub session: Session,
    /// The summary of what was before, if it belongs to this branch.
    pub summary: Option<Summary>,
    /// The messages after it, in order.
    pub entries: Vec<Entry>,
}

impl Recent {
    /// Makes the end of a branch, for an implementor of [`SessionStore`].
    #[must_use]
    pub fn new(session: Session, summary: Option<Summary>, entries: Vec<Entry>) -> Self {
        Self { session, summary, entries }
    }
}

/// A session that the janitor has to look at.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Due {
    /// The session.
    pub session: SessionId,
    /// The time of the claim, in milliseconds since the Unix epoch.
    pub now: u64,
    /// When the claim ends.
    pub until: u64,
}

impl Due {
    /// Makes a claim, for an implementor of [`SessionStore`].
    #[must_use]
    pub fn new(session: SessionId, now: u64, until: u64) -> Self {
        Self { session, now, until }
    }
}

/// What became of a session that is due.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Found {
    /// It was deleted, and must go from the archive as well.
    Erased,
    /// It is gone.
    Gone,
    /// It is there.
    Live(Session),
}

/// How long sessions live after their last message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Lifetime {
    /// After this time a session is idle: the janitor archives it, if the rule says so.
    pub idle: Duration,
    /// After this time the janitor deletes it.
    pub ttl: Duration,
    /// How much longer the server keeps it, should no janitor come.
    pub grace: Duration,
}

impl Lifetime {
    /// Makes a lifetime with an hour of grace.
    #[must_use]
    pub fn new(idle: Duration, ttl: Duration) -> Self {
        Self { idle, ttl, grace: HOUR }
    }

    /// Sets how much longer the server keeps a session, should no janitor come.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Idle after an hour, deleted after a day.
impl Default for Lifetime {
    fn default() -> Self {
        Self::new(HOUR, 24 * HOUR)
    }
}
