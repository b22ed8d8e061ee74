use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use inferkit_core::observe;
use tracing::{Instrument as _, debug_span};

use crate::config::millis;
use crate::{
    Archive, Draft, Due, EntryId, FinishReason, Found, Result, Session, SessionId, SessionStore,
    SessionStoreExt as _, UserId,
};

type Rule = Arc<dyn Fn(&Session) -> bool + Send + Sync>;

/// Archives sessions that are idle, and deletes those whose time is over.
///
/// Any number of janitors, in any number of processes, share the work: each session is leased to one at a time.
/// A janitor that crashes loses nothing: its sessions are due again when the lease ends, and whatever it does it can do twice.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use inferkit_chatsession::{Config, Janitor, MemoryArchive, MemorySessionStore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> inferkit_chatsession::Result<()> {
/// let store = Arc::new(MemorySessionStore::new(Config::new())?);
/// let archive = Arc::new(MemoryArchive::new());
/// let janitor = Janitor::new(store).archiving(archive, |session| 4 <= session.messages);
/// let task = tokio::spawn(janitor.run());
/// task.abort();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Janitor {
    store: Arc<dyn SessionStore>,
    archive: Option<(Arc<dyn Archive>, Rule)>,
    every: Duration,
    lease: Duration,
    batch: usize,
}

impl fmt::Debug for Janitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Janitor")
            .field("store", &self.store)
            .field("archive", &self.archive.as_ref().map(|(archive, _)| archive))
            .field("every", &self.every)
            .field("lease", &self.lease)
            .field("batch", &self.batch)
            .finish()
    }
}

/// What a janitor has done.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Swept {
    /// Sessions that were due.
    pub due: usize,
    /// Sessions that are in the archive now.
    pub archived: usize,
    /// Sessions that were deleted since their time was over.
    pub deleted: usize,
    /// Sessions that were erased by somebody, and are out of the archive now.
    pub erased: usize,
    /// Sessions that could not be looked after; they are due again when the lease ends.
    pub failed: usize,
}

/// How many sessions a janitor looks after side by side.
const AT_ONCE: usize = 64;

impl Janitor {
    /// Makes a janitor that deletes sessions whose time is over; it looks every ten seconds.
    #[must_use]
    pub fn new(store: Arc<dyn SessionStore>) -> Self {
        let (every, lease) = (Duration::from_secs(10), Duration::from_secs(60));
        Self { store, archive: None, every, lease, batch: 1024 }
    }

    /// Archives idle sessions that meet the rule; without an archive all go without trace.
    #[must_use]
    pub fn archiving(
        mut self,
        archive: Arc<dyn Archive>,
        rule: impl Fn(&Session) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.archive = Some((archive, Arc::new(rule)));
        self
    }

    /// Sets how often it looks when nothing is due.
    #[must_use]
    pub fn with_every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets how long other janitors leave a session to this one.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how many sessions it takes at once.
    #[must_use]
    pub fn with_batch(mut self, batch: usize) -> Self {
        self.batch = batch.max(1);
        self
    }

    /// Looks after sessions for ever: spawn it, and abort it to stop.
    ///
    /// Errors are logged, and tried again.
    ///
    /// # Cancel safety
    ///
    /// Sessions that it had taken are due again when the lease ends.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let this = self.clone();
        async move {
            loop {
                match this.sweep().await {
                    Ok(Swept { due, .. }) if 0 < due => {}
                    Ok(_) => tokio::time::sleep(this.every).await,
                    Err(error) => {
                        tracing::warn!(%error, "the janitor could not look after sessions");
                        tokio::time::sleep(this.every).await;
                    }
                }
            }
        }
    }

    /// Looks after the sessions that are due, at most one batch of them.
    ///
    /// # Errors
    ///
    /// Those of [`SessionStore::claim`] and [`SessionStore::settle`]; a single session's are counted.
    pub async fn sweep(&self) -> Result<Swept> {
        let span = debug_span!("chatsession.sweep");
        self.look().instrument(span).await
    }

    async fn look(&self) -> Result<Swept> {
        let due = self.store.claim(self.batch, self.lease).await?;
        let mut swept = Swept { due: due.len(), ..Swept::default() };
        let visits = due.into_iter().map(|due| async move {
            let visit = self.visit(&due).await;
            (due, visit)
        });
        let mut visits = futures_util::stream::iter(visits).buffer_unordered(AT_ONCE);
        let mut settled = Vec::new();
        while let Some((due, visit)) = visits.next().await {
            match visit {
                Ok(visit) => {
                    swept.archived += usize::from(visit.archived);
                    swept.deleted += usize::from(visit.deleted);
                    swept.erased += usize::from(visit.erased);
                    settled.push((due, visit.next));
                }
                Err(error) => {
                    tracing::warn!(%error, "a session could not be looked after");
                    swept.failed += 1;
                }
            }
        }
        for (outcome, sessions) in [
            ("archived", swept.archived),
            ("deleted", swept.deleted),
            ("erased", swept.erased),
            ("failed", swept.failed),
        ] {
            let sessions = u64::try_from(sessions).unwrap_or_default();
            observe::count("inferkit_chatsession_swept_total", &[("outcome", outcome)], sessions);
        }
        self.store.settle(&settled).await?;
        Ok(swept)
    }

    /// Erases a user: all sessions of the store and of the archive.
    ///
    /// A janitor that is archiving one of them meanwhile finds it erased and takes it out again.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend), [`Error::Archive`](crate::Error::Archive): some may be erased; repeat the
    /// call.
    pub async fn erase_user(&self, user: &UserId) -> Result<()> {
        self.store.erase_user(user).await?;
        if let Some((archive, _)) = &self.archive {
            archive.remove_user(user).await?;
        }
        Ok(())
    }

    async fn visit(&self, due: &Due) -> Result<Visit> {
        let (id, now) = (&due.session, due.now);
        let lifetime = self.store.lifetime();
        let soon = now.saturating_add(millis(lifetime.idle));
        let session = match self.store.inspect(id).await? {
            Found::Gone => return Ok(Visit::default()),
            Found::Erased => {
                if let Some((archive, _)) = &self.archive {
                    archive.remove(id).await?;
                }
                // Until the tombstone is gone, in case that a janitor crashes that is archiving it.
                return Ok(Visit { erased: true, next: Some(soon), ..Visit::default() });
            }
            Found::Live(session) => session,
        };
        let idle = session.active().saturating_add(millis(lifetime.idle));
        let end = session.active().saturating_add(millis(lifetime.ttl));
        if now < idle {
            return Ok(Visit { next: Some(idle), ..Visit::default() });
        }
        if 0 < session.drafts {
            self.finish_drafts(id, now).await?;
            // It is kept while somebody is waiting for the answer.
            self.store.mark_archived(id, None, lifetime.idle + lifetime.grace).await?;
            return Ok(Visit { next: Some(soon), ..Visit::default() });
        }
        let over = end <= now;
        let mut visit = Visit { next: Some(if over { soon } else { end }), ..Visit::default() };
        if let Some((archive, rule)) = &self.archive
            && session.archived != session.last
            && rule(&session)
        {
            let upto = match self.put_away(id, archive).await {
                Ok(Some(upto)) => upto,
                Ok(None) => return Ok(Visit { next: Some(soon), ..visit }),
                Err(error) => {
                    // It must outlive the archive's failure.
                    self.store.mark_archived(id, None, self.lease + lifetime.grace).await?;
                    return Err(error);
                }
            };
            visit.archived = true;
            if over && upto == session.last && self.store.expire(&session).await? {
                return Ok(Visit { deleted: true, next: None, ..visit });
            }
            // It has time left, went on meanwhile, or was erased.
            let keep = Duration::from_millis(end.saturating_sub(now)) + lifetime.grace;
            if !self.store.mark_archived(id, upto, keep).await? {
                // What was erased must not stay in the archive; what has just expired may.
                if matches!(self.store.inspect(id).await?, Found::Erased) {
                    archive.remove(id).await?;
                    visit.archived = false;
                }
                visit.next = Some(soon);
            } else if upto != session.last {
                visit.next = Some(soon);
            }
            return Ok(visit);
        }
        visit.deleted = over && self.store.expire(&session).await?;
        visit.next = visit.next.filter(|_| !visit.deleted);
        Ok(visit)
    }

    /// Archives a session and returns up to which message, if any; `None` if it is gone.
    async fn put_away(
        &self,
        id: &SessionId,
        archive: &Arc<dyn Archive>,
    ) -> Result<Option<Option<EntryId>>> {
        let Some(transcript) = self.store.export(id).await? else { return Ok(None) };
        archive.store(&transcript).await?;
        let newest = transcript.entries.last().map(|entry| entry.id);
        let trimmed = transcript.session.base.as_ref().map(|base| base.upto);
        Ok(Some(newest.max(trimmed)))
    }

    /// Saves what was said in drafts that nobody goes on with.
    async fn finish_drafts(&self, id: &SessionId, now: u64) -> Result<()> {
        let idle = millis(self.store.lifetime().idle);
        for turn in self.store.open_drafts(id).await? {
            let Draft::Open(deltas) = self.store.draft(id, &turn, EntryId::ZERO).await? else {
                continue;
            };
            let last = deltas.last().map_or(0, |(id, _)| id.millis());
            if last.saturating_add(idle) <= now {
                self.store.finish_draft(id, &turn, FinishReason::Interrupted).await?;
            }
        }
        Ok(())
    }
}

/// What was done with one session, and when it is due again.
#[derive(Default)]
struct Visit {
    archived: bool,
    deleted: bool,
    erased: bool,
    next: Option<u64>,
}
