use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{Clock, Leases, MemoryLeases, SystemClock};

use crate::branch::{Walk, walk};
use crate::config::{Row, millis};
use crate::draft::assemble;
use crate::{
    Append, Appended, ClientId, Config, Delta, Draft, Due, Entry, EntryId, Error, FinishReason,
    Finished, Fork, Found, Lifetime, NewSession, Pushed, Range, Recent, Result, Session, SessionId,
    SessionStore, Summary, Turn, UserId,
};

/// How many clients' ids a session remembers, and for how long in milliseconds.
const REMEMBERED: (usize, u64) = (256, 10 * 60 * 1000);

/// Conversations in this process: for tests and for tools that need no server.
///
/// It keeps every promise of [`SessionStore`] until the process ends.
/// Expired sessions are removed when the janitor [claims](SessionStore::claim).
#[derive(Debug)]
pub struct MemorySessionStore {
    config: Config,
    clock: Arc<dyn Clock>,
    leases: MemoryLeases,
    // A `std` mutex: never held across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    chats: HashMap<SessionId, Chat>,
    /// The sessions that were deleted, and until when that is known.
    erased: HashMap<SessionId, u64>,
    due: HashMap<SessionId, u64>,
}

#[derive(Debug)]
struct Chat {
    session: Session,
    log: Vec<Entry>,
    clients: Vec<(ClientId, EntryId)>,
    drafts: HashMap<Turn, Stream>,
    end: u64,
}

/// A draft: its deltas, and the message that it became.
#[derive(Debug, Default)]
struct Stream {
    deltas: Vec<(EntryId, Delta)>,
    finished: Option<Option<EntryId>>,
}

impl MemorySessionStore {
    /// Makes an empty store.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] for times that make no sense.
    pub fn new(config: Config) -> Result<Self> {
        Self::with_clock(config, Arc::new(SystemClock::default()))
    }

    /// Makes an empty store that lives by `clock`.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self> {
        config.check()?;
        let leases = MemoryLeases::new(Arc::clone(&clock));
        Ok(Self { config, clock, leases, state: Mutex::default() })
    }

    fn now(&self) -> u64 {
        millis(self.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with a session that must be there.
    fn with<T>(&self, id: &SessionId, then: impl FnOnce(&mut Chat) -> Result<T>) -> Result<T> {
        let now = self.now();
        let mut state = self.lock();
        if state.is_erased(id, now) {
            return Err(Error::Erased);
        }
        then(state.live(id, now).ok_or(Error::NoSession)?)
    }

    /// Appends rows to a session that is there.
    fn store(&self, id: &SessionId, at: Option<Fork>, rows: &[Row<'_>]) -> Result<Appended> {
        let now = self.now();
        let appended = self.with(id, |chat| {
            let appended = chat.append(at, rows, now)?;
            if appended.duplicates < rows.len() {
                chat.end = now.saturating_add(self.config.life());
            }
            Ok(appended)
        })?;
        self.lock().schedule(id, now.saturating_add(millis(self.config.lifetime.idle)));
        Ok(appended)
    }

    fn erase(&self, id: &SessionId) -> bool {
        let now = self.now();
        let mut state = self.lock();
        let was = state.live(id, now).is_some();
        state.chats.remove(id);
        state.erased.insert(id.clone(), now.saturating_add(self.config.life()));
        state.schedule(id, now);
        was
    }
}

impl State {
    fn is_erased(&self, id: &SessionId, now: u64) -> bool {
        self.erased.get(id).is_some_and(|end| now < *end)
    }

    fn live(&mut self, id: &SessionId, now: u64) -> Option<&mut Chat> {
        self.chats.get_mut(id).filter(|chat| now < chat.end)
    }

    fn schedule(&mut self, id: &SessionId, at: u64) {
        let due = self.due.entry(id.clone()).or_insert(at);
        *due = at.min(*due);
    }
}

impl Chat {
    /// Where a message goes: its parent, and the tokens before it.
    fn place(&self, at: Fork) -> Result<(EntryId, u64)> {
        let (Fork::After(id) | Fork::Instead(id)) = at;
        if id == EntryId::ZERO {
            return Ok((id, 0));
        }
        let index = self.log.iter().position(|entry| entry.id == id);
        let index = index.ok_or_else(|| Error::no_message(id))?;
        let entry = self.log.get(index).ok_or_else(|| Error::no_message(id))?;
        if matches!(at, Fork::After(_)) {
            return Ok((id, entry.end()));
        }
        let before = || index.checked_sub(1).and_then(|index| self.log.get(index));
        let trimmed = || self.session.base.as_ref().map_or(EntryId::ZERO, |base| base.upto);
        let parent = entry.parent.or_else(|| Some(before()?.id)).unwrap_or_else(trimmed);
        Ok((parent, entry.offset))
    }

    fn append(&mut self, at: Option<Fork>, rows: &[Row<'_>], now: u64) -> Result<Appended> {
        let mut ids = Vec::with_capacity(rows.len());
        let (mut duplicates, mut began) = (0, false);
        for row in rows {
            let client = row.message.client_id.as_ref();
            let known = self.clients.iter().find(|(known, _)| Some(known) == client);
            if let Some((_, id)) = known {
                ids.push(*id);
                duplicates += 1;
                continue;
            }
            let session = &self.session;
            let mut parent = session.leaf.filter(|leaf| Some(*leaf) != session.last);
            let mut offset = session.tokens;
            if let (Some(at), false) = (at, began) {
                let (place, before) = self.place(at)?;
                let first = session.last.is_none() && place == EntryId::ZERO;
                let branches = session.leaf.is_some() || !(first || Some(place) == session.last);
                parent = Some(place).filter(|_| branches && Some(place) != session.last);
                offset = before;
                if branches {
                    self.session.leaf = Some(place);
                    self.session.summary_version += 1;
                }
            }
            began = true;
            let id = self.next_id(now);
            let mut message = row.message.clone();
            message.tokens = None;
            self.log.push(Entry::new(id, parent, offset, row.tokens, message));
            let session = &mut self.session;
            session.last = Some(id);
            session.leaf = session.leaf.map(|_| id);
            session.messages += 1;
            session.tokens = offset.saturating_add(row.tokens);
            if let Some(client) = client {
                self.clients.push((client.clone(), id));
            }
            ids.push(id);
        }
        let (newest, millis) = REMEMBERED;
        let old = self.clients.len().saturating_sub(newest);
        self.clients.drain(..old);
        self.clients.retain(|(_, id)| now.saturating_sub(id.millis()) < millis);
        Ok(Appended::new(ids, duplicates))
    }

    fn next_id(&self, now: u64) -> EntryId {
        after(self.session.last, now)
    }
}

/// The next id of a stream.
fn after(last: Option<EntryId>, now: u64) -> EntryId {
    match last {
        Some(last) if now <= last.millis() => EntryId::new(last.millis(), last.sequence() + 1),
        _ => EntryId::new(now, 0),
    }
}

#[async_trait]
impl SessionStore for MemorySessionStore {
    async fn create(&self, new: &NewSession) -> Result<bool> {
        let system_tokens = match (new.system_tokens, &new.system) {
            (Some(tokens), _) => tokens,
            (None, Some(system)) => self.config.counter.count(system).await?,
            (None, None) => 0,
        };
        let now = self.now();
        let mut state = self.lock();
        if state.is_erased(&new.id, now) {
            return Err(Error::Erased);
        }
        if let Some(chat) = state.live(&new.id, now) {
            return if chat.session.user == new.user { Ok(false) } else { Err(Error::OtherUser) };
        }
        let chat = Chat {
            session: Session::new(new, system_tokens, now),
            log: Vec::new(),
            clients: Vec::new(),
            drafts: HashMap::new(),
            end: now.saturating_add(self.config.life()),
        };
        state.chats.insert(new.id.clone(), chat);
        state.schedule(&new.id, now.saturating_add(millis(self.config.lifetime.idle)));
        Ok(true)
    }

    async fn append(&self, session: &SessionId, append: &Append) -> Result<Appended> {
        let rows = self.config.rows(&append.messages).await?;
        self.store(session, append.at, &rows)
    }

    async fn session(&self, session: &SessionId) -> Result<Option<Session>> {
        let now = self.now();
        Ok(self.lock().live(session, now).map(|chat| chat.session.clone()))
    }

    async fn read(&self, session: &SessionId, range: Range) -> Result<Option<Vec<Entry>>> {
        let now = self.now();
        let mut state = self.lock();
        let Some(chat) = state.live(session, now) else { return Ok(None) };
        let log = chat.log.iter();
        Ok(Some(match range {
            Range::All => log.cloned().collect(),
            Range::After(id, limit) => {
                log.filter(|entry| id < entry.id).take(limit).cloned().collect()
            }
            Range::Last(limit) => log.skip(chat.log.len().saturating_sub(limit)).cloned().collect(),
        }))
    }

    async fn recent(&self, session: &SessionId, tokens: u64) -> Result<Option<Recent>> {
        let now = self.now();
        let mut state = self.lock();
        let Some(chat) = state.live(session, now) else { return Ok(None) };
        let newest: Vec<Entry> = chat.log.iter().rev().cloned().collect();
        match walk(&chat.session, &newest, true, tokens)? {
            Walk::Found(branch) => Ok(Some(branch.take(chat.session.clone(), newest))),
            Walk::More | Walk::Stale => Err(Error::Corrupt { what: "a branch" }),
        }
    }

    async fn fork(&self, session: &SessionId, at: Fork) -> Result<EntryId> {
        self.with(session, |chat| {
            let (place, tokens) = chat.place(at)?;
            let session = &mut chat.session;
            if session.leaf.is_some() || place != session.last.unwrap_or(EntryId::ZERO) {
                session.leaf = Some(place);
                session.tokens = tokens;
                session.summary_version += 1;
            }
            Ok(place)
        })
    }

    async fn commit_summary(
        &self,
        session: &SessionId,
        version: u64,
        summary: &Summary,
    ) -> Result<bool> {
        self.with(session, |chat| {
            let session = &mut chat.session;
            if session.summary_version != version {
                return Ok(false);
            }
            session.summary = Some(summary.clone());
            session.summary_version += 1;
            Ok(true)
        })
    }

    async fn trim(&self, session: &SessionId) -> Result<u64> {
        self.with(session, |chat| {
            let Some(summary) = &chat.session.summary else { return Ok(0) };
            if chat.session.leaf.is_some() {
                return Ok(0);
            }
            let before = chat.log.len();
            chat.log.retain(|entry| summary.upto < entry.id);
            chat.session.base = Some(summary.clone());
            Ok(u64::try_from(before - chat.log.len()).unwrap_or(u64::MAX))
        })
    }

    async fn push_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        deltas: &[Delta],
    ) -> Result<Pushed> {
        if deltas.is_empty() {
            return Err(Error::NothingToAppend);
        }
        let now = self.now();
        self.with(session, |chat| {
            let begins = !chat.drafts.contains_key(turn);
            let stream = chat.drafts.entry(turn.clone()).or_default();
            if stream.finished.is_some() {
                return Ok(Pushed::Finished);
            }
            let mut last = EntryId::ZERO;
            for delta in deltas {
                last = after(stream.deltas.last().map(|(id, _)| *id), now);
                stream.deltas.push((last, delta.clone()));
            }
            chat.session.drafts += u64::from(begins);
            Ok(Pushed::Open(last))
        })
    }

    async fn draft(&self, session: &SessionId, turn: &Turn, after: EntryId) -> Result<Draft> {
        let now = self.now();
        let mut state = self.lock();
        let stream = state.live(session, now).and_then(|chat| chat.drafts.get(turn));
        Ok(match stream {
            None => Draft::Unknown,
            Some(Stream { finished: Some(id), .. }) => Draft::Finished(*id),
            Some(Stream { deltas, .. }) => {
                Draft::Open(deltas.iter().filter(|(id, _)| after < *id).cloned().collect())
            }
        })
    }

    async fn finish_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        reason: FinishReason,
    ) -> Result<Finished> {
        loop {
            let deltas = self.with(session, |chat| {
                let stream = chat.drafts.get(turn).ok_or(Error::DraftGone)?;
                Ok(stream.finished.ok_or_else(|| stream.deltas.clone()))
            })?;
            let deltas = match deltas {
                Ok(id) => return Ok(Finished::Before(id)),
                Err(deltas) => deltas,
            };
            let message = assemble(deltas.iter().map(|(_, delta)| delta), reason.clone());
            let rows = match &message {
                Some(message) => vec![self.config.row(message).await?],
                None => Vec::new(),
            };
            let now = self.now();
            let stored = self.with(session, |chat| {
                let stream = chat.drafts.get(turn).ok_or(Error::DraftGone)?;
                if stream.finished.is_some() || stream.deltas.len() != deltas.len() {
                    return Ok(None);
                }
                let id = chat.append(None, &rows, now)?.ids.first().copied();
                if id.is_some() {
                    chat.end = now.saturating_add(self.config.life());
                }
                let stored = chat.log.last().filter(|entry| Some(entry.id) == id).cloned();
                if let Some(stream) = chat.drafts.get_mut(turn) {
                    *stream = Stream { deltas: Vec::new(), finished: Some(id) };
                }
                chat.session.drafts = chat.session.drafts.saturating_sub(1);
                Ok(Some(stored.map_or(Finished::Empty, Finished::Stored)))
            })?;
            if let Some(finished) = stored {
                return Ok(finished);
            }
        }
    }

    async fn open_drafts(&self, session: &SessionId) -> Result<Vec<Turn>> {
        let now = self.now();
        let mut state = self.lock();
        let Some(chat) = state.live(session, now) else { return Ok(Vec::new()) };
        let open = chat.drafts.iter().filter(|(_, stream)| stream.finished.is_none());
        Ok(open.map(|(turn, _)| turn.clone()).collect())
    }

    async fn delete(&self, session: &SessionId) -> Result<bool> {
        Ok(self.erase(session))
    }

    async fn sessions(&self, user: &UserId, limit: usize) -> Result<Vec<Session>> {
        let now = self.now();
        let state = self.lock();
        let chats =
            state.chats.values().filter(|chat| now < chat.end && chat.session.user == *user);
        let mut sessions: Vec<Session> = chats.map(|chat| chat.session.clone()).collect();
        sessions.sort_by_key(|session| Reverse((session.active(), session.created)));
        sessions.truncate(limit);
        Ok(sessions)
    }

    async fn erase_user(&self, user: &UserId) -> Result<Vec<SessionId>> {
        let sessions = self.sessions(user, usize::MAX).await?;
        Ok(sessions
            .into_iter()
            .filter(|session| self.erase(&session.id))
            .map(|session| session.id)
            .collect())
    }

    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<Due>> {
        let now = self.now();
        let until = now.saturating_add(millis(lease));
        let mut state = self.lock();
        state.chats.retain(|_, chat| now < chat.end);
        state.erased.retain(|_, end| now < *end);
        let due = state.due.iter_mut().filter(|(_, at)| **at <= now).take(limit);
        Ok(due
            .map(|(id, at)| {
                *at = until;
                Due::new(id.clone(), now, until)
            })
            .collect())
    }

    async fn settle(&self, settled: &[(Due, Option<u64>)]) -> Result<()> {
        let mut state = self.lock();
        for (due, next) in settled {
            if state.due.get(&due.session) == Some(&due.until) {
                match next {
                    Some(next) => state.due.insert(due.session.clone(), *next),
                    None => state.due.remove(&due.session),
                };
            }
        }
        Ok(())
    }

    async fn inspect(&self, session: &SessionId) -> Result<Found> {
        let now = self.now();
        let mut state = self.lock();
        if state.is_erased(session, now) {
            return Ok(Found::Erased);
        }
        let live = state.live(session, now);
        Ok(live.map_or(Found::Gone, |chat| Found::Live(chat.session.clone())))
    }

    async fn mark_archived(
        &self,
        session: &SessionId,
        upto: Option<EntryId>,
        keep: Duration,
    ) -> Result<bool> {
        let end = self.now().saturating_add(millis(keep));
        let marked = self.with(session, |chat| {
            chat.session.archived = upto.or(chat.session.archived);
            chat.end = chat.end.max(end);
            Ok(())
        });
        Ok(marked.is_ok())
    }

    async fn expire(&self, session: &Session) -> Result<bool> {
        let now = self.now();
        let mut state = self.lock();
        let same = state
            .live(&session.id, now)
            .is_some_and(|chat| chat.session.last == session.last && chat.session.drafts == 0);
        if same {
            state.chats.remove(&session.id);
        }
        Ok(same)
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
