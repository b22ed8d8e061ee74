use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, KeyFamily, Namespace, Ttl};
use inferkit_core::{
    Batch, Cmd, DriverExt as _, DynDriver, ErrorKind, Leases, RedisLeases, Reply, Script,
};
use tracing::{Instrument as _, debug_span};

use crate::branch::{Walk, walk};
use crate::config::millis;
use crate::{
    Append, Appended, Config, Delta, Draft, Due, Entry, EntryId, Error, FinishReason, Finished,
    Fork, Found, Lifetime, NewSession, Pushed, Range, Recent, Result, Session, SessionId,
    SessionStore, Summary, Turn, UserId,
};

mod append;
mod draft;
mod follow;
mod groups;
mod meta;

pub use follow::DraftReader;

static CREATE: Script = Script::new(include_str!("../scripts/create.lua"));
static FORK: Script = Script::new(concat!(
    include_str!("../scripts/append_core.lua"),
    include_str!("../scripts/fork.lua")
));
static SUMMARIZE: Script = Script::new(include_str!("../scripts/summarize.lua"));
static TRIM: Script = Script::new(include_str!("../scripts/trim.lua"));
static ERASE: Script = Script::new(include_str!("../scripts/erase.lua"));
static EXPIRE: Script = Script::new(include_str!("../scripts/expire.lua"));
static ARCHIVED: Script = Script::new(include_str!("../scripts/archived.lua"));
static INDEX: Script = Script::new(include_str!("../scripts/index.lua"));
static SCHEDULE: Script = Script::new(include_str!("../scripts/schedule.lua"));
static CLAIM: Script = Script::new(include_str!("../scripts/claim.lua"));
static SETTLE: Script = Script::new(include_str!("../scripts/settle.lua"));

/// The keys that [`RedisSessionStore`] writes.
///
/// Leases of summarizers are in the core's [`LEASE_KEYS`](inferkit_core::LEASE_KEYS) besides.
pub const KEYS: &[KeyFamily] = &[
    KeyFamily::new(
        "chat",
        "chat:{<session>}:log",
        "stream",
        Ttl::Always("time to live and grace after the last message"),
        &[
            "EVALSHA",
            "EVAL",
            "XADD",
            "XRANGE",
            "XREVRANGE",
            "XTRIM",
            "PEXPIRE",
            "UNLINK",
            "XGROUP",
            "XREADGROUP",
            "XAUTOCLAIM",
            "XACK",
        ],
    ),
    KeyFamily::new(
        "chat",
        "chat:{<session>}:meta",
        "hash",
        Ttl::Always("as the log; as a tombstone as long after the deletion"),
        &[
            "EVALSHA", "EVAL", "HMGET", "HGET", "HGETALL", "HKEYS", "HEXISTS", "HSET", "HINCRBY",
            "HDEL", "DEL", "PEXPIRE", "PTTL", "UNLINK", "TIME",
        ],
    ),
    KeyFamily::new(
        "chat",
        "chat:{<session>}:draft:<turn>",
        "stream",
        Ttl::Always("time to live and grace after the last delta; 10 minutes after it is finished"),
        &["XADD", "XRANGE", "XREAD", "XREVRANGE", "EXISTS", "PEXPIRE", "UNLINK"],
    ),
    KeyFamily::new(
        "chat",
        "chat:user:<user>",
        "zset",
        Ttl::Always("time to live and grace after the user's last message"),
        &["EVALSHA", "EVAL", "ZADD", "ZREVRANGE", "ZREM", "ZREMRANGEBYSCORE", "PEXPIRE", "TIME"],
    ),
    KeyFamily::new(
        "chat",
        "chat:due:<partition>",
        "zset",
        Ttl::Never("the janitor takes out what is gone"),
        &["EVALSHA", "EVAL", "ZADD", "ZRANGEBYSCORE", "ZSCORE", "ZREM", "TIME"],
    ),
];

/// The parts that the due-set has, so that a cluster shares it; a constant, since sessions stay in theirs.
const PARTITIONS: u16 = 16;

/// The messages of the first page of [`SessionStore::recent`], and of later ones.
const PAGES: [usize; 2] = [50, 200];

/// The messages that are read at once where all are wanted.
const READ_PAGE: usize = 500;

/// Conversations on Redis or Valkey: a stream and a hash per session.
///
/// Cloning is cheap, and clones share the connection.
///
/// # Examples
///
/// ```no_run
/// use inferkit_chatsession::inferkit_core::DynDriver;
/// use inferkit_chatsession::{
///     Config, Message, NewSession, RedisSessionStore, SessionId, SessionStore, UserId,
/// };
///
/// # async fn example(driver: DynDriver) -> inferkit_chatsession::Result<()> {
/// let store = RedisSessionStore::new(driver, Config::new())?;
/// let id = SessionId::new("s1")?;
/// store.create(&NewSession::new(id.clone(), UserId::new("ann")?)).await?;
/// let _ids = store.append(&id, &Message::user("Hello").into()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisSessionStore {
    driver: DynDriver,
    leases: RedisLeases,
    config: Arc<Config>,
}

impl RedisSessionStore {
    /// Makes a store; nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for times that make no sense.
    pub fn new(driver: DynDriver, config: Config) -> Result<Self> {
        config.check()?;
        let leases = RedisLeases::new(Arc::clone(&driver), config.namespace.clone());
        Ok(Self { driver, leases, config: Arc::new(config) })
    }

    /// Returns the settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the key of a session's log, a stream.
    #[must_use]
    pub fn log_key(&self, session: &SessionId) -> Key {
        self.namespace().family("chat").tag(session.as_str()).literal("log").build()
    }

    /// Returns the key of a session's hash.
    #[must_use]
    pub fn meta_key(&self, session: &SessionId) -> Key {
        self.namespace().family("chat").tag(session.as_str()).literal("meta").build()
    }

    fn namespace(&self) -> &Namespace {
        &self.config.namespace
    }

    /// The two keys that nearly all scripts take.
    fn keys(&self, session: &SessionId) -> [Key; 2] {
        [self.log_key(session), self.meta_key(session)]
    }

    fn draft_key(&self, session: &SessionId, turn: &Turn) -> Key {
        let key = self.namespace().family("chat").tag(session.as_str());
        key.literal("draft").part(turn.as_str()).build()
    }

    fn user_key(&self, user: &UserId) -> Key {
        self.namespace().family("chat").literal("user").part(user.as_str()).build()
    }

    fn due_key(&self, partition: u16) -> Key {
        self.namespace().family("chat").literal("due").part(partition.to_string()).build()
    }

    fn partition(session: &SessionId) -> u16 {
        inferkit_core::keys::slot(session.as_str().as_bytes()) % PARTITIONS
    }

    fn index_cmd(&self, user: &UserId, session: &SessionId) -> Cmd {
        let life = self.config.life();
        Cmd::eval(&INDEX, &[self.user_key(user)]).arg(life).arg(session.as_str()).idempotent()
    }

    /// Makes the janitor look at a session in `after` milliseconds at the latest.
    fn schedule_cmd(&self, session: &SessionId, after: u64) -> Cmd {
        let key = self.due_key(Self::partition(session));
        Cmd::eval(&SCHEDULE, &[key]).arg(after).arg(session.as_str()).idempotent()
    }

    async fn due_soon(&self, session: &SessionId) -> Result<()> {
        Ok(self.driver.query(self.schedule_cmd(session, 0)).await?)
    }

    /// Deletes one session, if it is the user's.
    async fn erase(&self, session: &SessionId, user: Option<&UserId>) -> Result<bool> {
        // First, so that the archive is cleared even if this process ends here.
        // A full server erases before it has room for that.
        let full = match self.due_soon(session).await {
            Err(Error::Backend(error)) if error.kind() == ErrorKind::OutOfMemory => true,
            scheduled => scheduled.map(|()| false)?,
        };
        let cmd = Cmd::eval(&ERASE, &self.keys(session))
            .arg(self.config.life())
            .arg(user.map_or("", UserId::as_str))
            .idempotent();
        let mut reply = self.driver.query::<Vec<Reply>>(cmd).await?.into_iter();
        let flag = reply.next().and_then(|flag| flag.as_i64()).unwrap_or_default();
        let owner = reply.next().and_then(|owner| owner.as_str().map(str::to_owned));
        let mut batch = Batch::new();
        let mut dropped = Vec::new();
        for turn in reply {
            let turn = turn.as_str().and_then(|turn| Turn::new(turn).ok());
            if let Some(turn) = turn {
                let key = self.draft_key(session, &turn);
                dropped.push(batch.push::<()>(Cmd::new("UNLINK").key(key).idempotent()));
            }
        }
        let owner = owner.and_then(|owner| UserId::new(owner).ok());
        if let Some(user) = user.or(owner.as_ref()) {
            let cmd = Cmd::new("ZREM").key(self.user_key(user)).arg(session.as_str());
            dropped.push(batch.push::<()>(cmd.idempotent()));
        }
        let mut answers = self.driver.run(batch).await?;
        for slot in dropped {
            answers.take(slot)?;
        }
        if full {
            match self.due_soon(session).await {
                // The janitor comes anyway when the session would have been idle or over.
                Err(error) if flag == 1 => {
                    tracing::warn!(%error, "the janitor hears later of an erased session");
                }
                scheduled => scheduled?,
            }
        }
        Ok(flag == 1)
    }
}

#[async_trait]
impl SessionStore for RedisSessionStore {
    /// Two round trips: index and due-set, side by side, then the session, so that nobody who erases the user overlooks it.
    async fn create(&self, new: &NewSession) -> Result<bool> {
        let system_tokens = match (new.system_tokens, &new.system) {
            (Some(tokens), _) => tokens,
            (None, Some(system)) => self.config.counter.count(system).await?,
            (None, None) => 0,
        };
        let mut batch = Batch::new();
        let index = batch.push::<()>(self.index_cmd(&new.user, &new.id));
        let due = batch.push::<()>(self.schedule_cmd(&new.id, millis(self.config.lifetime.idle)));
        let mut answers = self.driver.run(batch).await?;
        answers.take(index)?;
        answers.take(due)?;
        let mut cmd = Cmd::eval(&CREATE, &[self.meta_key(&new.id)])
            .arg(self.config.life())
            .arg(new.user.as_str())
            .arg("systok")
            .arg(system_tokens)
            .idempotent();
        for (name, value) in
            [("model", &new.model), ("system", &new.system), ("metadata", &new.metadata)]
        {
            if let Some(value) = value {
                cmd = cmd.arg(name).arg(value);
            }
        }
        let created: i64 = self.driver.query(cmd).await?;
        if created == append::OTHER_USER {
            let cmd = Cmd::new("ZREM").key(self.user_key(&new.user)).arg(new.id.as_str());
            self.driver.query::<()>(cmd.idempotent()).await?;
        }
        Ok(append::refused(created, None)? == 1)
    }

    /// One `EVALSHA`; about once a minute another round trip for the user's index and the due-set.
    async fn append(&self, session: &SessionId, append: &Append) -> Result<Appended> {
        let span = debug_span!("chatsession.append", messages = append.messages.len());
        self.append_messages(session, append).instrument(span).await
    }

    /// One `HMGET`.
    async fn session(&self, session: &SessionId) -> Result<Option<Session>> {
        let reply: Vec<Reply> = self.driver.query(self.meta_cmd(session)).await?;
        Ok(match meta::found(session, reply)? {
            Found::Live(session) => Some(session),
            _ => None,
        })
    }

    /// One round trip for 500 messages.
    async fn read(&self, session: &SessionId, range: Range) -> Result<Option<Vec<Entry>>> {
        let (mut after, limit, last) = match range {
            Range::All => (EntryId::ZERO, usize::MAX, false),
            Range::After(id, limit) => (id, limit, false),
            Range::Last(limit) => (EntryId::ZERO, limit, true),
        };
        let mut entries = Vec::new();
        // `Last` reads backwards from here.
        let mut before = None;
        loop {
            let count = READ_PAGE.min(limit - entries.len());
            let cmd = if last { "XREVRANGE" } else { "XRANGE" };
            let cmd = Cmd::new(cmd).key(self.log_key(session)).readonly();
            let cmd = match (last, before) {
                (false, _) => cmd.arg(format!("({after}")).arg("+"),
                (true, None) => cmd.arg("+").arg("-"),
                (true, Some(id)) => cmd.arg(format!("({id}")).arg("-"),
            };
            let mut batch = Batch::new();
            // Zero is no limit to the server.
            let page = batch.push::<Vec<Reply>>(cmd.arg("COUNT").arg(count.max(1)));
            let exists = batch.push::<Option<String>>(
                Cmd::new("HGET").key(self.meta_key(session)).arg("v").readonly(),
            );
            let mut answers = self.driver.run(batch).await?;
            let page = answers.take(page)?;
            match answers.take(exists)? {
                None => return Ok(None),
                Some(version) => {
                    crate::form::unknown_version(version.as_bytes()).map_or(Ok(()), Err)?;
                }
            }
            let whole = page.len() < count || count == 0;
            for reply in page.into_iter().take(count) {
                entries.push(crate::form::entry(reply)?);
            }
            if let Some(entry) = entries.last() {
                (after, before) = (entry.id, Some(entry.id));
            }
            if whole || limit <= entries.len() {
                break;
            }
        }
        if last {
            entries.reverse();
        }
        Ok(Some(entries))
    }

    /// One round trip for the newest 50 messages, of `XREVRANGE` and `HMGET`; one more for each 200 before them.
    async fn recent(&self, session: &SessionId, tokens: u64) -> Result<Option<Recent>> {
        let span = debug_span!("chatsession.recent");
        self.read_recent(session, tokens).instrument(span).await
    }

    /// One `EVALSHA`.
    async fn fork(&self, session: &SessionId, at: Fork) -> Result<EntryId> {
        let cmd = Cmd::eval(&FORK, &self.keys(session)).arg(append::place(Some(at))).idempotent();
        let reply: Reply = self.driver.query(cmd).await?;
        match &reply {
            Reply::Int(code) => {
                Err(append::refused(*code, Some(at)).err().unwrap_or(meta::DAMAGED))
            }
            other => other.as_str().and_then(|id| id.parse().ok()).ok_or(meta::DAMAGED),
        }
    }

    /// One `EVALSHA`.
    async fn commit_summary(
        &self,
        session: &SessionId,
        version: u64,
        summary: &Summary,
    ) -> Result<bool> {
        let cmd = Cmd::eval(&SUMMARIZE, &[self.meta_key(session)])
            .arg(version)
            .arg(summary.upto.to_string())
            .arg(&summary.text)
            .arg(summary.tokens)
            .arg(summary.messages);
        Ok(append::refused(self.driver.query(cmd).await?, None)? == 1)
    }

    /// One `EVALSHA`.
    async fn trim(&self, session: &SessionId) -> Result<u64> {
        let cmd = Cmd::eval(&TRIM, &self.keys(session)).idempotent();
        let removed = append::refused(self.driver.query(cmd).await?, None)?;
        Ok(u64::try_from(removed).unwrap_or_default())
    }

    /// One `EVALSHA`.
    async fn push_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        deltas: &[Delta],
    ) -> Result<Pushed> {
        self.push(session, turn, deltas).await
    }

    /// One round trip.
    async fn draft(&self, session: &SessionId, turn: &Turn, after: EntryId) -> Result<Draft> {
        self.read_draft(session, turn, after).await
    }

    /// Three round trips: the deltas, the script, and the message read back; two more if deltas came in between.
    async fn finish_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        reason: FinishReason,
    ) -> Result<Finished> {
        let span = debug_span!("chatsession.finish_draft");
        self.finish(session, turn, reason).instrument(span).await
    }

    /// One `HKEYS`.
    async fn open_drafts(&self, session: &SessionId) -> Result<Vec<Turn>> {
        let cmd = Cmd::new("HKEYS").key(self.meta_key(session)).readonly();
        let fields: Vec<String> = self.driver.query(cmd).await?;
        fields.iter().filter_map(|field| field.strip_prefix("d:")).map(Turn::new).collect()
    }

    /// Three round trips.
    async fn delete(&self, session: &SessionId) -> Result<bool> {
        let span = debug_span!("chatsession.delete");
        self.erase(session, None).instrument(span).await
    }

    /// Two round trips, more if many of the user's sessions have expired.
    async fn sessions(&self, user: &UserId, limit: usize) -> Result<Vec<Session>> {
        let (mut sessions, mut start) = (Vec::new(), 0_usize);
        while sessions.len() < limit {
            let count = (limit - sessions.len()).min(READ_PAGE);
            let cmd = Cmd::new("ZREVRANGE").key(self.user_key(user)).readonly();
            let cmd = cmd.arg(start).arg(start + count - 1);
            let ids: Vec<String> = self.driver.query(cmd).await?;
            let ids = ids.iter().map(SessionId::new).collect::<Result<Vec<_>>>()?;
            start += count;
            let mut batch = Batch::new();
            let slots: Vec<_> =
                ids.iter().map(|id| batch.push::<Vec<Reply>>(self.meta_cmd(id))).collect();
            let mut answers = self.driver.run(batch).await?;
            for (id, slot) in ids.iter().zip(slots) {
                match meta::found(id, answers.take(slot)?)? {
                    Found::Live(session) if session.user == *user => sessions.push(session),
                    _ => {}
                }
            }
            if ids.len() < count {
                break;
            }
        }
        sessions.sort_by_key(|session| std::cmp::Reverse((session.active(), session.created)));
        Ok(sessions)
    }

    /// Three round trips per session.
    async fn erase_user(&self, user: &UserId) -> Result<Vec<SessionId>> {
        let mut erased = Vec::new();
        loop {
            let cmd = Cmd::new("ZREVRANGE").key(self.user_key(user)).arg(0).arg(READ_PAGE - 1);
            let ids: Vec<String> = self.driver.query(cmd.readonly()).await?;
            if ids.is_empty() {
                return Ok(erased);
            }
            for id in ids {
                let id = SessionId::new(id)?;
                if self.erase(&id, Some(user)).await? {
                    erased.push(id);
                }
            }
        }
    }

    /// One round trip.
    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<Due>> {
        let each = limit.div_ceil(usize::from(PARTITIONS)).max(1);
        let mut batch = Batch::new();
        let slots: Vec<_> = (0..PARTITIONS)
            .map(|partition| {
                let cmd = Cmd::eval(&CLAIM, &[self.due_key(partition)]);
                batch.push::<Vec<Reply>>(cmd.arg(each).arg(millis(lease)))
            })
            .collect();
        let mut answers = self.driver.run(batch).await?;
        let mut due = Vec::new();
        for slot in slots {
            let mut reply = answers.take(slot)?.into_iter();
            let mut time = || {
                let time = reply.next().and_then(|time| time.as_i64());
                time.and_then(|time| u64::try_from(time).ok()).ok_or(meta::DAMAGED)
            };
            let (now, until) = (time()?, time()?);
            for id in reply {
                let id = id.as_str().ok_or(meta::DAMAGED)?;
                due.push(Due::new(SessionId::new(id)?, now, until));
            }
        }
        Ok(due)
    }

    /// One round trip.
    async fn settle(&self, settled: &[(Due, Option<u64>)]) -> Result<()> {
        let mut batch = Batch::new();
        let mut slots = Vec::new();
        for partition in 0..PARTITIONS {
            let mut cmd = Cmd::eval(&SETTLE, &[self.due_key(partition)]).idempotent();
            let mut any = false;
            for (due, next) in settled {
                if Self::partition(&due.session) == partition {
                    any = true;
                    cmd = cmd.arg(due.session.as_str()).arg(due.until);
                    cmd = next.map_or_else(|| cmd.clone().arg(""), |next| cmd.clone().arg(next));
                }
            }
            if any {
                slots.push(batch.push::<()>(cmd));
            }
        }
        let mut answers = self.driver.run(batch).await?;
        for slot in slots {
            answers.take(slot)?;
        }
        Ok(())
    }

    /// One `HMGET`.
    async fn inspect(&self, session: &SessionId) -> Result<Found> {
        meta::found(session, self.driver.query(self.meta_cmd(session)).await?)
    }

    /// One `EVALSHA`.
    async fn mark_archived(
        &self,
        session: &SessionId,
        upto: Option<EntryId>,
        keep: Duration,
    ) -> Result<bool> {
        let upto = upto.map(|upto| upto.to_string()).unwrap_or_default();
        let cmd = Cmd::eval(&ARCHIVED, &self.keys(session)).arg(upto).arg(millis(keep));
        Ok(self.driver.query::<i64>(cmd.idempotent()).await? == 1)
    }

    /// Two round trips: the session, then its place in the user's index.
    async fn expire(&self, session: &Session) -> Result<bool> {
        let last = session.last.map(|last| last.to_string()).unwrap_or_default();
        let cmd = Cmd::eval(&EXPIRE, &self.keys(&session.id)).arg(last).idempotent();
        let expired = self.driver.query(cmd).await?;
        if expired {
            let cmd = Cmd::new("ZREM").key(self.user_key(&session.user)).arg(session.id.as_str());
            self.driver.query::<()>(cmd.idempotent()).await?;
        }
        Ok(expired)
    }

    fn lifetime(&self) -> Lifetime {
        self.config.lifetime
    }

    async fn count_tokens(&self, text: &str) -> Result<u64> {
        self.config.counter.count(text).await
    }

    fn leases(&self) -> &dyn Leases {
        &self.leases
    }
}

impl RedisSessionStore {
    fn meta_cmd(&self, session: &SessionId) -> Cmd {
        Cmd::with_capacity("HMGET", 256).key(self.meta_key(session)).args(meta::FIELDS).readonly()
    }

    async fn read_recent(&self, id: &SessionId, tokens: u64) -> Result<Option<Recent>> {
        let [first, later] = PAGES;
        let mut log: Vec<Entry> = Vec::new();
        // The session as of the first page.
        let mut seen: Option<Session> = None;
        for attempt in 0..8 {
            loop {
                let count = if seen.is_none() { first } else { later };
                // Messages that were newer than the session, or the other way round, are read again, both at once.
                let mut batch = if attempt == 0 { Batch::new() } else { Batch::atomic() };
                let cmd = Cmd::with_capacity("XREVRANGE", 96).key(self.log_key(id)).readonly();
                let cmd = match log.last() {
                    None => cmd.arg("+"),
                    Some(entry) => cmd.arg(format!("({}", entry.id)),
                };
                // The log first: a summary that comes in between stands for messages that were read, and none is missing.
                let page = batch.push::<Vec<Reply>>(cmd.arg("-").arg("COUNT").arg(count));
                let meta = batch.push::<Vec<Reply>>(self.meta_cmd(id));
                let mut answers = self.driver.run(batch).await?;
                let page = answers.take(page)?;
                let Found::Live(now) = meta::found(id, answers.take(meta)?)? else {
                    return Ok(None);
                };
                let complete = page.len() < count;
                log.reserve(page.len());
                for reply in page {
                    log.push(crate::form::entry(reply)?);
                }
                let trimmed = seen.as_ref().is_some_and(|session| session.base != now.base);
                let session = seen.get_or_insert(now);
                if trimmed {
                    // The older messages were trimmed meanwhile.
                    break;
                }
                match walk(session, &log, complete, tokens)? {
                    Walk::Found(branch) => {
                        return Ok(seen.take().map(|session| branch.take(session, log)));
                    }
                    Walk::More => {}
                    Walk::Stale => break,
                }
            }
            seen = None;
            log.clear();
        }
        Err(Error::Corrupt { what: "a branch" })
    }
}
