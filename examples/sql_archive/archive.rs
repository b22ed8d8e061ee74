//! A SQL database as an archive: two tables, and each call one transaction.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use inferkit::chatsession::{
    Archive, Entry, Error, Result, Session, SessionId, Transcript, UserId,
};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior, params};

/// With another database only the connection and the types of the columns differ.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS session (
        id TEXT PRIMARY KEY, owner TEXT NOT NULL, messages INTEGER NOT NULL, head TEXT NOT NULL);
    CREATE INDEX IF NOT EXISTS session_owner ON session (owner);
    CREATE TABLE IF NOT EXISTS message (
        session TEXT NOT NULL REFERENCES session ON DELETE CASCADE,
        millis INTEGER NOT NULL, sequence INTEGER NOT NULL, role TEXT NOT NULL, tokens INTEGER NOT NULL,
        entry TEXT NOT NULL,
        PRIMARY KEY (session, millis, sequence));
    PRAGMA foreign_keys = ON;
";

#[derive(Clone, Debug)]
pub(crate) struct SqlArchive {
    connection: Arc<Mutex<Connection>>,
}

impl SqlArchive {
    pub(crate) fn open(path: &str) -> Result<Self> {
        let connection = Connection::open(path).map_err(failed)?;
        connection.execute_batch(SCHEMA).map_err(failed)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }

    /// Does one transaction on a thread for blocking work.
    pub(crate) async fn transact<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = Arc::clone(&self.connection);
        let done = tokio::task::spawn_blocking(move || {
            let mut connection = connection.lock().unwrap_or_else(PoisonError::into_inner);
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate);
            let transaction = transaction.map_err(failed)?;
            let done = work(&transaction)?;
            transaction.commit().map_err(failed)?;
            Ok(done)
        });
        done.await.map_err(|error| Error::archive(error, true))?
    }
}

#[async_trait]
impl Archive for SqlArchive {
    async fn store(&self, transcript: &Transcript) -> Result<()> {
        let Transcript { session, entries } = transcript.clone();
        self.transact(move |sql| {
            let id = session.id.as_str();
            // Of two janitors that overlap, the one that saw more messages has the newer head.
            sql.execute(
                "INSERT INTO session VALUES (?1, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE
                     SET messages = excluded.messages, head = excluded.head
                     WHERE messages <= excluded.messages",
                params![id, session.user.as_str(), number(session.messages)?, json(&session)?],
            )
            .map_err(failed)?;
            let mut insert = sql
                .prepare(
                    "INSERT INTO message VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                )
                .map_err(failed)?;
            for entry in &entries {
                let (millis, sequence) = (number(entry.id.millis())?, number(entry.id.sequence())?);
                let (role, tokens) = (entry.message.role.as_str(), number(entry.tokens)?);
                insert
                    .execute(params![id, millis, sequence, role, tokens, json(entry)?])
                    .map_err(failed)?;
            }
            Ok(())
        })
        .await
    }

    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>> {
        let id = session.to_string();
        self.transact(move |sql| {
            let head = "SELECT head FROM session WHERE id = ?1";
            let head = sql.query_row(head, [&id], |row| row.get::<_, String>(0)).optional();
            let Some(head) = head.map_err(failed)? else { return Ok(None) };
            let session: Session = serde_json::from_str(&head).map_err(damaged)?;
            let mut select = sql
                .prepare("SELECT entry FROM message WHERE session = ?1 ORDER BY millis, sequence")
                .map_err(failed)?;
            let rows = select.query_map([&id], |row| row.get::<_, String>(0)).map_err(failed)?;
            let entries = rows
                .map(|row| serde_json::from_str::<Entry>(&row.map_err(failed)?).map_err(damaged));
            Ok(Some(Transcript { session, entries: entries.collect::<Result<_>>()? }))
        })
        .await
    }

    async fn remove(&self, session: &SessionId) -> Result<bool> {
        let id = session.to_string();
        let removed = "DELETE FROM session WHERE id = ?1";
        self.transact(move |sql| Ok(0 < sql.execute(removed, [id]).map_err(failed)?)).await
    }

    async fn remove_user(&self, user: &UserId) -> Result<usize> {
        let user = user.to_string();
        let removed = "DELETE FROM session WHERE owner = ?1";
        self.transact(move |sql| sql.execute(removed, [user]).map_err(failed)).await
    }
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(damaged)
}

/// SQL's integers have a sign.
fn number(value: u64) -> Result<i64> {
    i64::try_from(value).map_err(|error| Error::archive(error, false))
}

fn failed(error: rusqlite::Error) -> Error {
    Error::archive(error, true)
}

fn damaged(error: serde_json::Error) -> Error {
    Error::archive(error, false)
}
