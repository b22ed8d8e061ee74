use std::future::Future;

use crate::{
    Append, Appended, Budget, Fork, Message, Range, Result, SessionId, SessionStore, Summarized,
    Summarizer, SummaryRule, Transcript, Window,
};

/// What callers do with a [`SessionStore`].
pub trait SessionStoreExt: SessionStore {
    /// Appends one message; see [`SessionStore::append`].
    ///
    /// # Errors
    ///
    /// As [`SessionStore::append`].
    fn say(
        &self,
        session: &SessionId,
        message: Message,
    ) -> impl Future<Output = Result<Appended>> + Send {
        async move { self.append(session, &message.into()).await }
    }

    /// Puts another message in the place of one, on a new branch that becomes the active one: an edit, or an answer
    /// generated again.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::append`].
    fn replace(
        &self,
        session: &SessionId,
        id: crate::EntryId,
        message: Message,
    ) -> impl Future<Output = Result<Appended>> + Send {
        async move { self.append(session, &Append::from(message).at(Fork::Instead(id))).await }
    }

    /// Makes the window that a model is shown: see [`Window::new`]; `None` if there is no session.
    ///
    /// Round trips are those of [`SessionStore::recent`].
    ///
    /// # Errors
    ///
    /// As [`SessionStore::recent`] and [`Window::new`].
    fn window(
        &self,
        session: &SessionId,
        budget: Budget,
    ) -> impl Future<Output = Result<Option<Window>>> + Send {
        async move {
            // A step more than the budget, so that the pairs at its edge are seen.
            let tokens = budget.tokens.saturating_add(budget.step);
            let Some(recent) = self.recent(session, tokens).await? else { return Ok(None) };
            Window::new(&recent, budget).map(Some)
        }
    }

    /// Summarizes the older messages of the active branch, if the rule says so.
    ///
    /// One round trip if it does not; else five, or six if it trims, besides the summarizer's work, which happens under a lease that is kept, so
    /// that two processes do not pay for the same summary.
    /// The summary is stored by compare-and-set: however leases end and processes crash, each message is in the summary or
    /// after it, and never in both.
    /// Calls of tools and their results are not separated.
    ///
    /// # Errors
    ///
    /// [`Error::NoSession`](crate::Error::NoSession), [`Error::Summarizer`](crate::Error::Summarizer), and as
    /// [`SessionStore::recent`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the lease until it ends.
    fn summarize(
        &self,
        session: &SessionId,
        summarizer: &dyn Summarizer,
        rule: SummaryRule,
    ) -> impl Future<Output = Result<Summarized>> + Send {
        crate::summarize::summarize(self, session, summarizer, rule)
    }

    /// Returns a session with all messages that are in its log, those of all branches: what is archived, and what a user
    /// who asks for the data gets as [JSON lines](Transcript::to_jsonl); `None` if there is no session.
    ///
    /// Messages that were trimmed are in the summary, and in the archive if there is one.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::read`].
    fn export(
        &self,
        session: &SessionId,
    ) -> impl Future<Output = Result<Option<Transcript>>> + Send {
        async move {
            // The log first: a summary that comes in between stands for messages that are in it.
            let Some(entries) = self.read(session, Range::All).await? else { return Ok(None) };
            let session = self.session(session).await?;
            Ok(session.map(|session| Transcript { session, entries }))
        }
    }
}

impl<S: SessionStore + ?Sized> SessionStoreExt for S {}
