//! A store of somebody else's, made with the public API only: it passes the suite.
//!
//! It keeps what it is told in another store, and makes every answer anew out of its parts.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_chatsession::{
    Append, Appended, Delta, Draft, Due, Entry, EntryId, FinishReason, Finished, Fork, Found,
    Lifetime, MemorySessionStore, NewSession, Pushed, Range, Recent, Result, Session, SessionId,
    SessionStore, Summary, Turn, UserId, conformance, session_store_conformance,
};
use inferkit_core::Leases;

#[derive(Debug)]
struct Audited {
    inner: MemorySessionStore,
    calls: AtomicU64,
}

impl Audited {
    fn inner(&self) -> &MemorySessionStore {
        self.calls.fetch_add(1, Ordering::SeqCst);
        &self.inner
    }
}

fn entry(entry: Entry) -> Entry {
    Entry::new(entry.id, entry.parent, entry.offset, entry.tokens, entry.message)
}

fn summary(summary: Summary) -> Summary {
    Summary::new(summary.text, summary.tokens, summary.upto, summary.messages)
}

fn session(old: Session) -> Session {
    let mut new = NewSession::new(old.id, old.user);
    (new.model, new.system, new.metadata) = (old.model, old.system, old.metadata);
    let mut session = Session::new(&new, old.system_tokens, old.created);
    session.last = old.last;
    session.messages = old.messages;
    session.tokens = old.tokens;
    session.leaf = old.leaf;
    session.summary = old.summary.map(summary);
    session.base = old.base.map(summary);
    session.summary_version = old.summary_version;
    session.archived = old.archived;
    session.drafts = old.drafts;
    session
}

#[async_trait]
impl SessionStore for Audited {
    async fn create(&self, new: &NewSession) -> Result<bool> {
        self.inner().create(new).await
    }

    async fn append(&self, session: &SessionId, append: &Append) -> Result<Appended> {
        let appended = self.inner().append(session, append).await?;
        Ok(Appended::new(appended.ids, appended.duplicates))
    }

    async fn session(&self, id: &SessionId) -> Result<Option<Session>> {
        Ok(self.inner().session(id).await?.map(session))
    }

    async fn read(&self, session: &SessionId, range: Range) -> Result<Option<Vec<Entry>>> {
        let entries = self.inner().read(session, range).await?;
        Ok(entries.map(|entries| entries.into_iter().map(entry).collect()))
    }

    async fn recent(&self, id: &SessionId, tokens: u64) -> Result<Option<Recent>> {
        let recent = self.inner().recent(id, tokens).await?;
        Ok(recent.map(|recent| {
            let entries = recent.entries.into_iter().map(entry).collect();
            Recent::new(session(recent.session), recent.summary.map(summary), entries)
        }))
    }

    async fn fork(&self, session: &SessionId, at: Fork) -> Result<EntryId> {
        self.inner().fork(session, at).await
    }

    async fn commit_summary(
        &self,
        session: &SessionId,
        version: u64,
        summary: &Summary,
    ) -> Result<bool> {
        self.inner().commit_summary(session, version, summary).await
    }

    async fn trim(&self, session: &SessionId) -> Result<u64> {
        self.inner().trim(session).await
    }

    async fn push_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        deltas: &[Delta],
    ) -> Result<Pushed> {
        Ok(match self.inner().push_draft(session, turn, deltas).await? {
            Pushed::Open(id) => Pushed::Open(id),
            _ => Pushed::Finished,
        })
    }

    async fn draft(&self, session: &SessionId, turn: &Turn, after: EntryId) -> Result<Draft> {
        Ok(match self.inner().draft(session, turn, after).await? {
            Draft::Open(deltas) => Draft::Open(deltas),
            Draft::Finished(id) => Draft::Finished(id),
            _ => Draft::Unknown,
        })
    }

    async fn finish_draft(
        &self,
        session: &SessionId,
        turn: &Turn,
        reason: FinishReason,
    ) -> Result<Finished> {
        Ok(match self.inner().finish_draft(session, turn, reason).await? {
            Finished::Stored(stored) => Finished::Stored(entry(stored)),
            Finished::Before(id) => Finished::Before(id),
            _ => Finished::Empty,
        })
    }

    async fn open_drafts(&self, session: &SessionId) -> Result<Vec<Turn>> {
        self.inner().open_drafts(session).await
    }

    async fn delete(&self, session: &SessionId) -> Result<bool> {
        self.inner().delete(session).await
    }

    async fn sessions(&self, user: &UserId, limit: usize) -> Result<Vec<Session>> {
        let sessions = self.inner().sessions(user, limit).await?;
        Ok(sessions.into_iter().map(session).collect())
    }

    async fn erase_user(&self, user: &UserId) -> Result<Vec<SessionId>> {
        self.inner().erase_user(user).await
    }

    async fn claim(&self, limit: usize, lease: Duration) -> Result<Vec<Due>> {
        let due = self.inner().claim(limit, lease).await?;
        Ok(due.into_iter().map(|due| Due::new(due.session, due.now, due.until)).collect())
    }

    async fn settle(&self, settled: &[(Due, Option<u64>)]) -> Result<()> {
        self.inner().settle(settled).await
    }

    async fn inspect(&self, id: &SessionId) -> Result<Found> {
        Ok(match self.inner().inspect(id).await? {
            Found::Live(live) => Found::Live(session(live)),
            Found::Erased => Found::Erased,
            _ => Found::Gone,
        })
    }

    async fn mark_archived(
        &self,
        session: &SessionId,
        upto: Option<EntryId>,
        keep: Duration,
    ) -> Result<bool> {
        self.inner().mark_archived(session, upto, keep).await
    }

    async fn expire(&self, session: &Session) -> Result<bool> {
        self.inner().expire(session).await
    }

    fn lifetime(&self) -> Lifetime {
        self.inner.lifetime()
    }

    async fn count_tokens(&self, text: &str) -> Result<u64> {
        self.inner.count_tokens(text).await
    }

    fn leases(&self) -> &dyn Leases {
        self.inner.leases()
    }
}

async fn make() -> Audited {
    let inner = MemorySessionStore::new(conformance::config()).unwrap();
    Audited { inner, calls: AtomicU64::new(0) }
}

session_store_conformance!(make);

#[tokio::test]
async fn a_store_works_behind_any_pointer() {
    let store = make().await;
    let boxed: Box<dyn SessionStore> = Box::new(std::sync::Arc::new(store));
    conformance::messages_come_back_in_order(&boxed).await;
}
