use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::lease::now;
use crate::{Lease, Leases, Result};

/// A lease is renewed when a third of its length is over, and tried again a third of that later if nobody answered.
const PART: u32 = 3;

/// Takes leases, and with [`run`](LeaseKeeper::run) renews them while they are held and gives them back when dropped.
///
/// Without `run` everything stays correct: a lease ends after its time, for its holder first.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use inferkit_core::{LeaseKeeper, MemoryLeases};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> inferkit_core::Result<()> {
/// let keeper = LeaseKeeper::new(Arc::new(MemoryLeases::default()));
/// let renewals = tokio::spawn(keeper.run());
/// if let Some(lease) = keeper.acquire("nightly export", Duration::from_secs(30)).await? {
///     tokio::select! {
///         () = lease.lost() => println!("somebody else may go on"),
///         () = async { /* the work, with lease.token() */ } => {}
///     }
///     lease.release().await?;
/// }
/// drop(keeper);
/// renewals.await.expect("it ends with the keeper");
/// # Ok(())
/// # }
/// ```
pub struct LeaseKeeper(Arc<Keeping>);

struct Keeping {
    leases: Arc<dyn Leases>,
    // A `std` mutex: it is held to look and to note, never across an await.
    held: Mutex<HashMap<u64, Held>>,
    next_id: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
    /// Held by the `run` that is at work.
    running: tokio::sync::Mutex<()>,
}

/// What is known of a lease that was given out.
struct Held {
    lease: Lease,
    ttl: Duration,
    renewal: Instant,
    /// Its renewal is under way.
    busy: bool,
    dropped: bool,
}

impl LeaseKeeper {
    /// Makes a keeper of `leases`; no I/O.
    #[must_use]
    pub fn new(leases: Arc<dyn Leases>) -> Self {
        Self(Arc::new(Keeping {
            leases,
            held: Mutex::default(),
            next_id: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            changed: Notify::new(),
            running: tokio::sync::Mutex::default(),
        }))
    }

    /// Takes the lease of `name` for `ttl`, or returns `None` if somebody else has it: one round trip.
    ///
    /// The owner is a new random name for each attempt: a process that starts again does not inherit its old leases.
    ///
    /// # Errors
    ///
    /// As [`Leases::acquire`]; the lease may have been taken then, and ends after `ttl`.
    ///
    /// # Cancel safety
    ///
    /// The same holds if the future is dropped.
    pub async fn acquire(&self, name: &str, ttl: Duration) -> Result<Option<HeldLease>> {
        let asked = now();
        let Some(lease) = self.0.leases.acquire(name, &unique_owner(), ttl).await? else {
            return Ok(None);
        };
        let id = self.0.next_id.fetch_add(1, Ordering::Relaxed);
        let held = Held {
            lease: lease.clone(),
            ttl,
            renewal: asked + ttl / PART,
            busy: false,
            dropped: false,
        };
        let mut all = self.0.lock();
        // What was dropped while nobody runs has ended by itself.
        all.retain(|_, held| !(held.dropped && held.lease.is_lost()));
        all.insert(id, held);
        drop(all);
        self.0.changed.notify_one();
        Ok(Some(HeldLease { lease, id, keeping: Arc::clone(&self.0) }))
    }

    /// Renews what is held, at a third of its length, and gives back what was dropped: one round trip each.
    ///
    /// Spawn it. It ends when the keeper and all its leases are dropped and given back.
    /// Only one runs at a time; a second waits to take over.
    ///
    /// # Cancel safety
    ///
    /// It can be aborted and run again at any time.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let keeping = Arc::clone(&self.0);
        async move { keeping.run().await }
    }
}

impl Keeping {
    async fn run(&self) {
        let _running = self.running.lock().await;
        // Renewals of a run that was aborted.
        self.lock().values_mut().for_each(|held| held.busy = false);
        let mut work = FuturesUnordered::new();
        loop {
            let (due, next) = self.due();
            work.extend(due.into_iter().map(|(id, held)| self.tend(id, held)));
            let idle = work.is_empty();
            if idle && self.closed.load(Ordering::Acquire) && self.lock().is_empty() {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                _ = work.next(), if !idle => {}
                () = wait_until(next) => {}
            }
        }
    }

    /// The leases to renew or to give back now, and when the next one is due.
    fn due(&self) -> (Vec<(u64, Held)>, Option<Instant>) {
        let now = now();
        let mut all = self.lock();
        let mut due: Vec<_> = all.extract_if(|_, held| held.dropped && !held.busy).collect();
        let mut next = None::<Instant>;
        for (id, held) in all.iter_mut().filter(|(_, held)| !held.busy) {
            if held.renewal <= now {
                held.busy = true;
                due.push((*id, Held { lease: held.lease.clone(), ..*held }));
            } else {
                next = Some(next.map_or(held.renewal, |next| next.min(held.renewal)));
            }
        }
        (due, next)
    }

    async fn tend(&self, id: u64, held: Held) {
        if held.dropped {
            // A lease that cannot be given back ends by itself.
            if let Err(error) = self.leases.release(&held.lease).await {
                tracing::debug!(kind = ?error.kind(), "a dropped lease was not given back");
            }
            return;
        }
        let asked = now();
        let renewed = self.leases.renew(&held.lease, held.ttl).await;
        let mut all = self.lock();
        let Some(held) = all.get_mut(&id) else { return };
        held.busy = false;
        held.renewal = match renewed {
            Ok(true) => asked + held.ttl / PART,
            Err(error) if !held.lease.is_lost() => {
                tracing::warn!(kind = ?error.kind(), "a lease was not renewed: trying again");
                now() + held.ttl / (PART * PART)
            }
            Ok(false) | Err(_) => {
                held.lease.set_end(asked);
                all.remove(&id);
                return;
            }
        };
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LeaseKeeper {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_one();
    }
}

impl fmt::Debug for LeaseKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = self.0.lock().len();
        f.debug_struct("LeaseKeeper").field("leases", &self.0.leases).field("held", &held).finish()
    }
}

/// A lease that its [`LeaseKeeper`] renews until it is released, dropped or lost.
///
/// Dropping it has [`LeaseKeeper::run`] give it back; without that it ends after its time.
pub struct HeldLease {
    lease: Lease,
    id: u64,
    keeping: Arc<Keeping>,
}

impl HeldLease {
    /// Gives the lease back now: one round trip; `false` if it was lost before.
    ///
    /// # Errors
    ///
    /// If the server could not be asked; [`LeaseKeeper::run`] tries once more, else the lease ends by itself.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is dropping the lease.
    pub async fn release(self) -> Result<bool> {
        let released = self.keeping.leases.release(&self.lease).await?;
        self.keeping.lock().remove(&self.id);
        Ok(released)
    }
}

impl Deref for HeldLease {
    type Target = Lease;

    fn deref(&self) -> &Lease {
        &self.lease
    }
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let Some(held) = self.keeping.lock().get_mut(&self.id) {
            held.dropped = true;
        }
        // It may be the last thing that `run` waits for.
        self.keeping.changed.notify_one();
    }
}

impl fmt::Debug for HeldLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HeldLease").field(&self.lease).finish()
    }
}

async fn wait_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

/// 128 random bits: no two attempts have the same owner.
fn unique_owner() -> String {
    let random = || RandomState::new().hash_one(now());
    format!("{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ManualClock, MemoryLeases};

    #[tokio::test]
    async fn a_lease_that_ended_by_the_server_s_clock_is_lost_at_the_next_renewal() {
        let clock = Arc::new(ManualClock::default());
        let leases: Arc<dyn Leases> = Arc::new(MemoryLeases::new(Arc::clone(&clock) as _));
        let keeper = LeaseKeeper::new(Arc::clone(&leases));
        let run = tokio::spawn(keeper.run());
        let ttl = Duration::from_secs(2);
        let held = keeper.acquire("n", ttl).await.unwrap().unwrap();
        let begun = Instant::now();
        clock.advance(ttl);
        let next = leases.acquire("n", "other", ttl).await.unwrap().unwrap();
        assert!(held.token() < next.token());
        held.lost().await;
        assert!(begun.elapsed() < ttl, "it did not wait for its own end");
        assert!(!held.release().await.unwrap());
        assert!(leases.renew(&next, ttl).await.unwrap());
        run.abort();
    }

    #[tokio::test]
    async fn what_nobody_gives_back_is_forgotten_in_the_end() {
        let keeper = LeaseKeeper::new(Arc::new(MemoryLeases::default()));
        for name in 0..10 {
            let ttl = Duration::from_millis(1);
            let held = keeper.acquire(&name.to_string(), ttl).await.unwrap().unwrap();
            held.lost().await;
        }
        assert_eq!(keeper.0.lock().len(), 1);
    }

    #[test]
    fn owners_differ() {
        let owners: std::collections::HashSet<String> = (0..1000).map(|_| unique_owner()).collect();
        assert_eq!(owners.len(), 1000);
    }
}
