use inferkit_core::{Batch, Cmd, DriverExt as _, Reply, Script, observe};

use super::{RedisSessionStore, meta};
use crate::config::{Row, millis};
use crate::{Append, Appended, EntryId, Error, Fork, Result, SessionId, SessionStore as _};

static APPEND: Script = Script::new(concat!(
    include_str!("../scripts/append_core.lua"),
    include_str!("../scripts/append.lua")
));

/// What the scripts say instead of an answer.
const NO_SESSION: i64 = -1;
const ERASED: i64 = -2;
const NO_MESSAGE: i64 = -3;
pub(super) const OTHER_USER: i64 = -4;
const LATER_RELEASE: i64 = -7;

const MESSAGES: &str = "inferkit_chatsession_messages_total";

/// Turns a script's refusal into the error.
pub(super) fn refused(code: i64, at: Option<Fork>) -> Result<i64> {
    let named = match at {
        Some(Fork::After(id) | Fork::Instead(id)) => id,
        None => EntryId::ZERO,
    };
    Err(match code {
        0.. => return Ok(code),
        NO_SESSION => Error::NoSession,
        ERASED => Error::Erased,
        NO_MESSAGE => Error::no_message(named),
        OTHER_USER => Error::OtherUser,
        _ => meta::DAMAGED,
    })
}

/// Says to a script where a message goes.
pub(super) fn place(at: Option<Fork>) -> String {
    match at {
        None => String::new(),
        Some(Fork::After(id)) => format!("={id}"),
        Some(Fork::Instead(id)) => format!("/{id}"),
    }
}

impl RedisSessionStore {
    pub(super) async fn append_messages(
        &self,
        session: &SessionId,
        append: &Append,
    ) -> Result<Appended> {
        let rows = self.config.rows(&append.messages).await?;
        let again = rows.iter().all(|row| row.message.client_id.is_some());
        let cmd = self.append_args(Cmd::eval(&APPEND, &self.keys(session)), append.at, &rows);
        let cmd = if again { cmd.idempotent() } else { cmd };
        let reply: Reply = self.driver.query(cmd).await?;
        if matches!(reply, Reply::Int(LATER_RELEASE)) {
            // Says of which one.
            self.inspect(session).await?;
        }
        let appended = self.appended(reply, append.at)?;
        self.follow_up(session, appended.flags).await;
        let duplicates = appended.duplicates;
        let stored = u64::try_from(rows.len() - duplicates).unwrap_or_default();
        observe::count(MESSAGES, &[("outcome", "stored")], stored);
        observe::count(
            MESSAGES,
            &[("outcome", "repeated")],
            u64::try_from(duplicates).unwrap_or_default(),
        );
        Ok(Appended::new(appended.ids, duplicates))
    }

    /// Appends the arguments that `append_core.lua` takes.
    pub(super) fn append_args(&self, mut cmd: Cmd, at: Option<Fork>, rows: &[Row<'_>]) -> Cmd {
        let config = &self.config;
        cmd = cmd.arg(config.life()).arg(config.slack()).arg(config.stale()).arg(place(at));
        for Row { message, form, tokens } in rows {
            let client = message.client_id.as_ref().map_or("", |id| id.as_str());
            cmd = cmd
                .arg(form.form)
                .arg(message.role.as_str())
                .arg(&*form.content)
                .arg(*tokens)
                .arg(&form.extra)
                .arg(client);
        }
        cmd
    }

    /// Reads the reply of `append_core.lua`.
    pub(super) fn appended(&self, reply: Reply, at: Option<Fork>) -> Result<Outcome> {
        if let Reply::Int(code) = reply {
            refused(code, at)?;
        }
        let mut reply = reply.into_array()?.into_iter();
        let flags = reply.next().and_then(|flags| flags.as_i64()).ok_or(meta::DAMAGED)?;
        let mut outcome = Outcome { flags, ids: Vec::with_capacity(reply.len()), duplicates: 0 };
        for id in reply {
            let id = id.as_str().ok_or(meta::DAMAGED)?;
            let known = id.strip_prefix('=');
            outcome.duplicates += usize::from(known.is_some());
            outcome.ids.push(known.unwrap_or(id).parse().map_err(|_| meta::DAMAGED)?);
        }
        Ok(outcome)
    }

    /// Renews what is in other slots; it is not worth an error, since the messages are stored and the next minute tries again.
    pub(super) async fn follow_up(&self, session: &SessionId, flags: i64) {
        if flags == 0 {
            return;
        }
        if let Err(error) = self.renew(session).await {
            tracing::warn!(%error, "the session's place in the indexes was not renewed");
        }
    }

    async fn renew(&self, id: &SessionId) -> Result<()> {
        let cmd = Cmd::new("HGET").key(self.meta_key(id)).arg("user").readonly();
        let Some(user) = self.driver.query::<Option<String>>(cmd).await? else { return Ok(()) };
        let mut batch = Batch::new();
        let index = batch.push::<()>(self.index_cmd(&crate::UserId::new(user)?, id));
        let due = batch.push::<()>(self.schedule_cmd(id, millis(self.config.lifetime.idle)));
        let mut answers = self.driver.run(batch).await?;
        answers.take(index)?;
        answers.take(due)?;
        Ok(())
    }
}

/// What `append_core.lua` did.
pub(super) struct Outcome {
    pub(super) flags: i64,
    pub(super) ids: Vec<EntryId>,
    pub(super) duplicates: usize,
}
