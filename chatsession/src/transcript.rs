use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::branch::{Walk, walk};
use crate::{Entry, Error, FORMAT_VERSION, Result, Session};

/// A session with its messages, as it is exported and archived.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a session and its messages are all there is")]
pub struct Transcript {
    /// The session.
    pub session: Session,
    /// Its messages in the order of their ids, those of all branches.
    pub entries: Vec<Entry>,
}

/// The first line.
#[derive(Deserialize, Serialize)]
struct Head<S> {
    v: u32,
    session: S,
}

#[derive(Deserialize)]
struct Version {
    v: u32,
}

impl Transcript {
    /// Writes the session as the first line of JSON, and one line per message.
    ///
    /// # Errors
    ///
    /// [`Error::Unwritable`] for parts of messages that are no JSON, which the store does not accept either.
    pub fn to_jsonl(&self) -> Result<String> {
        let head = Head { v: FORMAT_VERSION, session: &self.session };
        let mut lines = serde_json::to_string(&head).map_err(Error::unwritable)?;
        lines.push('\n');
        for entry in &self.entries {
            lines.push_str(&serde_json::to_string(entry).map_err(Error::unwritable)?);
            lines.push('\n');
        }
        Ok(lines)
    }

    /// Reads what [`to_jsonl`](Self::to_jsonl) wrote.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVersion`] for the form of a later release; [`Error::Corrupt`] for anything else, also for a last line
    /// that was not written to its end.
    pub fn from_jsonl(lines: &str) -> Result<Self> {
        const DAMAGED: Error = Error::Corrupt { what: "the transcript" };
        let lines = lines.strip_suffix('\n').ok_or(DAMAGED)?;
        let mut lines = lines.split('\n');
        let first = lines.next().unwrap_or_default();
        let version: Version = serde_json::from_str(first).map_err(|_| DAMAGED)?;
        if version.v != FORMAT_VERSION {
            return Err(Error::UnknownVersion { found: version.v, known: FORMAT_VERSION });
        }
        let head: Head<Session> = serde_json::from_str(first).map_err(|_| DAMAGED)?;
        let entries = lines.map(|line| serde_json::from_str(line).map_err(|_| DAMAGED));
        Ok(Self { session: head.session, entries: entries.collect::<Result<_>>()? })
    }

    /// Returns the messages of the active branch, as far as they are in the transcript.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if a message in the midst of it is missing.
    pub fn branch(&self) -> Result<Vec<Entry>> {
        let mut session = self.session.clone();
        session.summary = None;
        // Messages that were trimmed may be in an archive.
        let has = |id| self.entries.iter().any(|entry| entry.id == id);
        session.base = session.base.filter(|base| !has(base.upto));
        let newest: Vec<Entry> = self.entries.iter().rev().cloned().collect();
        match walk(&session, &newest, true, u64::MAX)? {
            Walk::Found(branch) => Ok(branch.take(session, newest).entries),
            Walk::More | Walk::Stale => Err(Error::Corrupt { what: "a branch" }),
        }
    }

    /// Adds the messages of an earlier transcript of the same session that are not in this one, such as trimmed ones.
    ///
    /// # Examples
    ///
    /// An [`Archive`](crate::Archive) merges what it has with what comes, so that no message is lost when a session is trimmed
    /// between two visits of the janitor.
    pub fn merge(&mut self, earlier: Self) {
        let mut entries: BTreeMap<_, _> =
            earlier.entries.into_iter().map(|entry| (entry.id, entry)).collect();
        entries.extend(self.entries.drain(..).map(|entry| (entry.id, entry)));
        self.entries.extend(entries.into_values());
    }
}
