use inferkit_core::{Batch, Cmd, DriverExt as _, Reply, Script};

use super::{RedisSessionStore, append};
use crate::draft::assemble;
use crate::form::stream_entry;
use crate::{
    Delta, Draft, Entry, EntryId, Error, FinishReason, Finished, Pushed, Range, Result, SessionId,
    SessionStore as _, Turn,
};

static PUSH: Script = Script::new(include_str!("../scripts/draft_push.lua"));
static FINISH: Script = Script::new(concat!(
    include_str!("../scripts/append_core.lua"),
    include_str!("../scripts/draft_finish.lua")
));

/// What the scripts say of drafts.
const FINISHED: i64 = -5;
const MORE_DELTAS: i64 = -6;

/// How long a finished draft tells its readers so, in milliseconds.
const MARK: u64 = 10 * 60 * 1000;

/// Read and finish, once more if deltas came in between, and a last look if somebody else was quicker.
const ATTEMPTS: usize = 4;

const DAMAGED: Error = Error::Corrupt { what: "a draft" };

impl RedisSessionStore {
    pub(super) async fn push(
        &self,
        session: &SessionId,
        turn: &Turn,
        deltas: &[Delta],
    ) -> Result<Pushed> {
        if deltas.is_empty() {
            return Err(Error::NothingToAppend);
        }
        let keys = [self.meta_key(session), self.draft_key(session, turn)];
        let mut cmd = Cmd::eval(&PUSH, &keys).arg(self.config.life()).arg(turn.as_str());
        for delta in deltas {
            cmd = cmd.arg(serde_json::to_string(delta).map_err(Error::unwritable)?);
        }
        let reply: Reply = self.driver.query(cmd).await?;
        match &reply {
            Reply::Int(FINISHED) => Ok(Pushed::Finished),
            Reply::Int(code) => Err(append::refused(*code, None).err().unwrap_or(DAMAGED)),
            id => Ok(Pushed::Open(id.as_str().and_then(|id| id.parse().ok()).ok_or(DAMAGED)?)),
        }
    }

    pub(super) async fn read_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        after: EntryId,
    ) -> Result<Draft> {
        let mut batch = Batch::new();
        let cmd = Cmd::new("XRANGE").key(self.draft_key(session, turn)).readonly();
        let read = batch.push::<Vec<Reply>>(cmd.arg(format!("({after}")).arg("+"));
        let cmd = Cmd::new("HGET").key(self.meta_key(session)).arg(format!("d:{turn}"));
        let open = batch.push::<Option<String>>(cmd.readonly());
        let mut answers = self.driver.run(batch).await?;
        let read = match deltas(answers.take(read)?)? {
            Draft::Open(read) => read,
            ended => return Ok(ended),
        };
        let open = answers.take(open)?.is_some();
        // Deltas without the session's mark were read just before the draft was finished: they are in the message.
        Ok(if open || !read.is_empty() { Draft::Open(read) } else { Draft::Unknown })
    }

    pub(super) async fn finish(
        &self,
        session: &SessionId,
        turn: &Turn,
        reason: FinishReason,
    ) -> Result<Finished> {
        for _ in 0..ATTEMPTS {
            let deltas = match self.read_draft(session, turn, EntryId::ZERO).await? {
                Draft::Finished(id) => return Ok(Finished::Before(id)),
                Draft::Open(deltas) => deltas,
                Draft::Unknown => return Err(self.why_gone(session).await?),
            };
            let last = deltas.last().map(|(id, _)| id.to_string()).unwrap_or_default();
            let message = assemble(deltas.iter().map(|(_, delta)| delta), reason.clone());
            let rows = match &message {
                Some(message) => vec![self.config.row(message).await?],
                None => Vec::new(),
            };
            let [log, meta] = self.keys(session);
            let cmd = Cmd::eval(&FINISH, &[log, meta, self.draft_key(session, turn)])
                .arg(turn.as_str())
                .arg(last)
                .arg(MARK);
            let reply = self.driver.query(self.append_args(cmd, None, &rows)).await?;
            match reply {
                // Somebody else was quicker; or more had come, and now no more is accepted: look again.
                Reply::Int(FINISHED | MORE_DELTAS) => {}
                reply => {
                    let outcome = self.appended(reply, None)?;
                    self.follow_up(session, outcome.flags).await;
                    return match outcome.ids.first() {
                        None => Ok(Finished::Empty),
                        Some(id) => Ok(Finished::Stored(self.stored(session, *id).await?)),
                    };
                }
            }
        }
        Err(DAMAGED)
    }

    /// Reads back a message that was just stored, with its place on the branch.
    async fn stored(&self, session: &SessionId, id: EntryId) -> Result<Entry> {
        let before = match id.sequence().checked_sub(1) {
            Some(sequence) => EntryId::new(id.millis(), sequence),
            None => EntryId::new(id.millis().saturating_sub(1), u64::MAX),
        };
        let read = self.read(session, Range::After(before, 1)).await?;
        read.and_then(|entries| entries.into_iter().next()).ok_or(Error::NoMessage { id })
    }

    /// Why there is no draft.
    async fn why_gone(&self, session: &SessionId) -> Result<Error> {
        Ok(match self.inspect(session).await? {
            crate::Found::Erased => Error::Erased,
            crate::Found::Gone => Error::NoSession,
            crate::Found::Live(_) => Error::DraftGone,
        })
    }
}

/// Reads entries of a draft: deltas, or its end.
pub(super) fn deltas(entries: Vec<Reply>) -> Result<Draft> {
    let mut read = Vec::with_capacity(entries.len());
    for entry in entries {
        let (id, fields) = stream_entry(entry)?;
        let fields: Vec<_> = fields.iter().filter_map(Reply::as_bytes).collect();
        match fields[..] {
            [b"end", end] => {
                let end = str::from_utf8(end).map_err(|_| DAMAGED)?;
                let end = (!end.is_empty()).then(|| end.parse()).transpose();
                return Ok(Draft::Finished(end.map_err(|_| DAMAGED)?));
            }
            [b"delta", delta] => {
                read.push((id, serde_json::from_slice(delta).map_err(|_| DAMAGED)?));
            }
            _ => return Err(DAMAGED),
        }
    }
    Ok(Draft::Open(read))
}
