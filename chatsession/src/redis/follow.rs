use std::sync::Arc;
use std::time::Duration;

use inferkit_core::{Cmd, Connect, DriverExt as _, DynDriver, Reply};
use tokio::time::Instant;

use super::RedisSessionStore;
use super::draft::deltas;
use crate::{Draft, EntryId, Error, Result, SessionId, SessionStore as _, Turn};

/// How long the server is waited for at once: a connection that went silent, and a draft that is gone, are noticed then.
const ROUND: Duration = Duration::from_secs(1);

/// The pause before a lost connection is opened again.
const REST: Duration = Duration::from_millis(50);

/// A reader of an answer that is being streamed, which waits at the server for what comes.
///
/// It has a connection of its own, which it opens when it first waits, and again when it is lost: nothing is missed and
/// nothing comes twice, since it goes on after the last delta it returned.
/// A client that went away resumes at [`position`](Self::position), from any process.
///
/// # Examples
///
/// ```no_run
/// use std::sync::Arc;
/// use std::time::Duration;
/// use inferkit_chatsession::inferkit_core::Connect;
/// use inferkit_chatsession::{Delta, Draft, EntryId, RedisSessionStore, SessionId, Turn};
///
/// # async fn example(
/// #     store: RedisSessionStore, connect: Arc<dyn Connect>, session: SessionId, turn: Turn,
/// # ) -> inferkit_chatsession::Result<()> {
/// // connect: a pool, for example.
/// let mut reader = store.follow_draft(connect, &session, &turn, EntryId::ZERO);
/// while let Draft::Open(deltas) = reader.next(Duration::from_secs(15)).await? {
///     // None of them within 15 seconds: the time to tell the client that the stream is alive.
///     for (_id, delta) in deltas {
///         if let Delta::Text { text } = delta {
///             println!("{text}");
///         }
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct DraftReader {
    store: RedisSessionStore,
    connect: Arc<dyn Connect>,
    /// Not there while it waits, so that a wait that was dropped leaves no connection with an answer to come.
    waiter: Option<DynDriver>,
    session: SessionId,
    turn: Turn,
    after: EntryId,
    found: bool,
}

impl RedisSessionStore {
    /// Follows the draft of an answer from after a delta, from its beginning for [`EntryId::ZERO`]; nothing is sent.
    #[must_use]
    pub fn follow_draft(
        &self,
        connect: Arc<dyn Connect>,
        session: &SessionId,
        turn: &Turn,
        after: EntryId,
    ) -> DraftReader {
        let (session, turn) = (session.clone(), turn.clone());
        let found = after != EntryId::ZERO;
        DraftReader { store: self.clone(), connect, waiter: None, session, turn, after, found }
    }
}

impl DraftReader {
    /// Returns the id of the last delta that was returned.
    #[must_use]
    pub fn position(&self) -> EntryId {
        self.after
    }

    /// Waits up to `wait` for what comes next: deltas, or the end.
    ///
    /// [`Draft::Open`] without deltas says that nothing came in that time, [`Draft::Finished`] where the message is in the
    /// log, [`Draft::Unknown`] that the draft has not begun in that time, or is gone with its session.
    /// Deltas that the reader has not had when the draft is finished are in the message.
    ///
    /// One `XREAD` that waits at the server; for each second without a delta another, and one look at the session.
    ///
    /// # Errors
    ///
    /// As [`SessionStore::draft`](crate::SessionStore::draft); a lost connection only if it does not come back within
    /// `wait`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing; the next call opens a new connection.
    pub async fn next(&mut self, wait: Duration) -> Result<Draft> {
        let begun = Instant::now();
        loop {
            let left = wait.saturating_sub(begun.elapsed());
            match self.round(left).await {
                Ok(Draft::Open(deltas)) if deltas.is_empty() && !left.is_zero() => {
                    self.found = true;
                }
                Ok(Draft::Unknown) if !self.found && !left.is_zero() => {}
                Ok(draft) => {
                    if let Draft::Open(deltas) = &draft {
                        self.found = true;
                        self.after = deltas.last().map_or(self.after, |(id, _)| *id);
                    }
                    return Ok(draft);
                }
                Err(Error::Backend(error)) if error.is_transient() && !left.is_zero() => {
                    tracing::debug!(%error, "a draft is followed on a new connection");
                    tokio::time::sleep(REST.min(left)).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits once, and looks at the session if nothing comes.
    async fn round(&mut self, left: Duration) -> Result<Draft> {
        let wait = left.min(ROUND);
        // The server takes zero for ever.
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        if 0 < millis {
            let waiter = match self.waiter.take() {
                Some(waiter) => waiter,
                None => self.connect.connect().await?,
            };
            let key = self.store.draft_key(&self.session, &self.turn);
            let cmd = Cmd::new("XREAD").arg("BLOCK").arg(millis).arg("STREAMS").key(key);
            let cmd = cmd.arg(self.after.to_string()).blocking(wait).readonly();
            let reply: Reply = waiter.query(cmd).await?;
            self.waiter = Some(waiter);
            if !reply.is_nil()
                && let Some((_, read)) = reply.into_pairs()?.into_iter().next()
            {
                return deltas(read.into_array()?);
            }
        }
        self.store.draft(&self.session, &self.turn, self.after).await
    }
}
