use std::time::Duration;

use inferkit_core::{Cmd, DriverExt as _, ErrorKind, Reply};

use super::{RedisSessionStore, meta};
use crate::config::millis;
use crate::form::entry;
use crate::{Entry, EntryId, Result, SessionId};

/// Consumer groups of the server on a session's log, for moderation or analytics beside the conversation.
impl RedisSessionStore {
    /// Makes a group that reads a session's log from its beginning; `false` if it is there.
    ///
    /// One round trip; the session must have a message.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend), also if there is no log.
    pub async fn ensure_group(&self, session: &SessionId, group: &str) -> Result<bool> {
        let cmd = Cmd::new("XGROUP").arg("CREATE").key(self.log_key(session)).arg(group).arg("0");
        match self.driver.query::<()>(cmd.idempotent()).await {
            Ok(()) => Ok(true),
            Err(error)
                if error.kind() == ErrorKind::Server && error.code() == Some("BUSYGROUP") =>
            {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a member of a group messages that no member has had, of all branches; they are this member's until it
    /// [acknowledges](Self::acknowledge) them.
    ///
    /// One round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend), also if there is no such group.
    pub async fn read_group(
        &self,
        session: &SessionId,
        group: &str,
        member: &str,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let cmd = Cmd::new("XREADGROUP").arg("GROUP").arg(group).arg(member);
        let cmd = cmd.arg("COUNT").arg(limit.max(1)).arg("STREAMS");
        let cmd = cmd.key(self.log_key(session)).arg(">");
        let reply: Reply = self.driver.query(cmd).await?;
        if reply.is_nil() {
            return Ok(Vec::new());
        }
        let mut entries = Vec::new();
        for (_, log) in reply.into_pairs()? {
            for message in log.into_array()? {
                entries.push(entry(message)?);
            }
        }
        Ok(entries)
    }

    /// Gives a member messages that another has had for at least `idle` without acknowledging them: what a member that
    /// crashed left; from the oldest, at most `limit`.
    ///
    /// One round trip.
    /// Messages that were trimmed meanwhile are no longer open.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend), also if there is no such group.
    pub async fn reclaim_group(
        &self,
        session: &SessionId,
        group: &str,
        member: &str,
        idle: Duration,
        limit: usize,
    ) -> Result<Vec<Entry>> {
        let cmd = Cmd::new("XAUTOCLAIM").key(self.log_key(session)).arg(group).arg(member);
        let cmd = cmd.arg(millis(idle)).arg("0-0").arg("COUNT").arg(limit.max(1));
        let reply: Vec<Reply> = self.driver.query(cmd).await?;
        let claimed = reply.into_iter().nth(1).ok_or(meta::DAMAGED)?;
        claimed.into_array()?.into_iter().map(entry).collect()
    }

    /// Notes that a group is done with messages, and returns how many were open.
    ///
    /// One round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    pub async fn acknowledge(
        &self,
        session: &SessionId,
        group: &str,
        ids: &[EntryId],
    ) -> Result<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let cmd = Cmd::new("XACK").key(self.log_key(session)).arg(group);
        Ok(self.driver.query(cmd.args(ids.iter().map(EntryId::to_string)).idempotent()).await?)
    }
}
