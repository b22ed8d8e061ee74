use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};

use crate::{Result, SessionId, Transcript, UserId};

mod jsonl;
#[cfg(feature = "object-store")]
mod object;

pub use jsonl::JsonlArchive;
#[cfg(feature = "object-store")]
pub use object::ObjectArchive;

/// Where sessions go before they expire: the contract with those who implement one.
///
/// # Examples
///
/// In a SQL database it is two tables, and each call one transaction:
///
/// ```sql
/// CREATE TABLE session (id TEXT PRIMARY KEY, owner TEXT NOT NULL, head JSONB NOT NULL);
/// CREATE INDEX session_owner ON session (owner);
/// CREATE TABLE message (
///     session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
///     millis BIGINT NOT NULL, sequence BIGINT NOT NULL, entry JSONB NOT NULL,
///     PRIMARY KEY (session, millis, sequence));
///
/// -- store
/// INSERT INTO session VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET head = $3;
/// INSERT INTO message VALUES ($1, $4, $5, $6) ON CONFLICT DO NOTHING; -- for each message
/// -- load
/// SELECT entry FROM message WHERE session = $1 ORDER BY millis, sequence;
/// -- remove, remove_user
/// DELETE FROM session WHERE id = $1;
/// DELETE FROM session WHERE owner = $1 RETURNING id;
/// ```
#[async_trait]
pub trait Archive: Debug + Send + Sync + 'static {
    /// Stores a session and its messages, beside those messages of it that are there.
    ///
    /// It is called again for a session that went on, whose older messages may have been trimmed meanwhile, and for one whose
    /// janitor crashed; two calls may overlap.
    /// When it returns, the messages are safe: the session may be deleted next.
    ///
    /// # Errors
    ///
    /// [`Error::archive`](crate::Error::archive); the janitor comes again.
    async fn store(&self, transcript: &Transcript) -> Result<()>;

    /// Returns a session with all messages that were ever stored of it; `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::archive`](crate::Error::archive), [`Error::Corrupt`](crate::Error::Corrupt).
    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>>;

    /// Removes a session; `false` if there was none.
    ///
    /// # Errors
    ///
    /// [`Error::archive`](crate::Error::archive).
    async fn remove(&self, session: &SessionId) -> Result<bool>;

    /// Removes all sessions of a user, and returns how many.
    ///
    /// # Errors
    ///
    /// [`Error::archive`](crate::Error::archive): some may be removed; repeat the call.
    async fn remove_user(&self, user: &UserId) -> Result<usize>;
}

#[async_trait]
impl<A: Archive + ?Sized> Archive for Arc<A> {
    async fn store(&self, transcript: &Transcript) -> Result<()> {
        (**self).store(transcript).await
    }
    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>> {
        (**self).load(session).await
    }
    async fn remove(&self, session: &SessionId) -> Result<bool> {
        (**self).remove(session).await
    }
    async fn remove_user(&self, user: &UserId) -> Result<usize> {
        (**self).remove_user(user).await
    }
}

/// An archive in this process, for tests.
#[derive(Debug, Default)]
pub struct MemoryArchive {
    // A `std` mutex: never held across an await.
    sessions: Mutex<HashMap<SessionId, Transcript>>,
}

impl MemoryArchive {
    /// Makes an empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, Transcript>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Archive for MemoryArchive {
    async fn store(&self, transcript: &Transcript) -> Result<()> {
        let mut sessions = self.lock();
        let mut transcript = transcript.clone();
        if let Some(earlier) = sessions.remove(&transcript.session.id) {
            transcript.merge(earlier);
        }
        sessions.insert(transcript.session.id.clone(), transcript);
        Ok(())
    }

    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>> {
        Ok(self.lock().get(session).cloned())
    }

    async fn remove(&self, session: &SessionId) -> Result<bool> {
        Ok(self.lock().remove(session).is_some())
    }

    async fn remove_user(&self, user: &UserId) -> Result<usize> {
        let mut sessions = self.lock();
        let before = sessions.len();
        sessions.retain(|_, transcript| transcript.session.user != *user);
        Ok(before - sessions.len())
    }
}

/// A name for an id that every archive can hold.
fn digest(id: &str) -> String {
    Sha256::digest(id.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
