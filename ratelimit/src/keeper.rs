use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use inferkit_core::keys::Key;
use inferkit_core::{Batch, DriverExt as _};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::Weights;
use crate::decision::Grant;
use crate::redis::Shared;

/// A lease is renewed when a third of it is over, and tried again a third of that later if nobody answered.
const PART: u32 = 3;
/// What falls due within this part of a lease is renewed with what is due now.
const TOGETHER: u32 = 12;
/// The most releases of one round trip.
const RELEASES: usize = 256;

/// The keys of slots and the length of their leases.
type Slots = Vec<(Key, Duration)>;

/// What this process holds slots for.
#[derive(Default)]
pub(crate) struct Keeper {
    // A `std` mutex: it is held to look and to note, never across an await.
    held: Mutex<HashMap<u64, Held>>,
    next: AtomicU64,
    closed: AtomicBool,
    changed: Notify,
    /// Held by the `run` that is at work.
    running: tokio::sync::Mutex<()>,
}

struct Held {
    grant: Arc<Grant>,
    slots: Slots,
    renewal: Instant,
    dropped: bool,
    lost: Arc<AtomicBool>,
}

impl Held {
    fn lease(&self) -> Duration {
        self.slots.iter().map(|(_, lease)| *lease).min().unwrap_or_default()
    }
}

impl Keeper {
    /// Notes slots that were taken just now.
    pub(crate) fn hold(&self, grant: &Arc<Grant>, slots: Slots) -> (u64, Arc<AtomicBool>) {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        let lost = Arc::<AtomicBool>::default();
        let grant = Arc::clone(grant);
        let now = Instant::now();
        let mut held = Held { grant, slots, renewal: now, dropped: false, lost: Arc::clone(&lost) };
        held.renewal = now + held.lease() / PART;
        let mut all = self.lock();
        // What was dropped while nobody runs ends by itself.
        if 1024 <= all.len() && all.len().is_power_of_two() {
            all.retain(|_, held| !held.dropped || now < held.renewal + held.lease());
        }
        all.insert(handle, held);
        drop(all);
        self.changed.notify_one();
        (handle, lost)
    }

    /// Has slots freed by `run`.
    pub(crate) fn drop_held(&self, handle: u64) {
        if let Some(held) = self.lock().get_mut(&handle) {
            held.dropped = true;
        }
        self.changed.notify_one();
    }

    /// Forgets slots that were freed.
    pub(crate) fn forget(&self, handle: u64) {
        self.lock().remove(&handle);
        if self.closed.load(Ordering::Acquire) {
            self.changed.notify_one();
        }
    }

    /// Lets `run` end when nothing is held any more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    pub(crate) async fn run(&self, shared: &Shared) {
        let _running = self.running.lock().await;
        loop {
            self.release(shared).await;
            let next = self.renew(shared).await;
            if self.closed.load(Ordering::Acquire) && self.lock().is_empty() {
                return;
            }
            tokio::select! {
                () = self.changed.notified() => {}
                () = wait_until(next) => {}
            }
        }
    }

    /// Frees what was dropped.
    async fn release(&self, shared: &Shared) {
        loop {
            let dropped = self.take_dropped();
            if dropped.is_empty() {
                return;
            }
            let mut batch = Batch::new();
            for grant in dropped {
                if let Ok(cmd) = shared.settle_cmd(&grant, &Weights::new()) {
                    let _answer = batch.push::<bool>(cmd);
                }
            }
            // Slots that cannot be freed are free when their lease ends.
            if let Err(error) = shared.driver().run(batch).await {
                tracing::debug!(kind = ?error.kind(), "slots of dropped permits were not freed");
            }
        }
    }

    fn take_dropped(&self) -> Vec<Arc<Grant>> {
        let mut all = self.lock();
        let dropped = all.extract_if(|_, held| held.dropped).take(RELEASES);
        dropped.map(|(_, held)| held.grant).collect()
    }

    /// Renews what is due, and returns when the next is.
    async fn renew(&self, shared: &Shared) -> Option<Instant> {
        let now = Instant::now();
        let due: Vec<(u64, Arc<Grant>, Slots)> = {
            let mut all = self.lock();
            // Without a permit nobody uses the slots any more.
            all.retain(|_, held| held.dropped || 1 < Arc::strong_count(&held.grant));
            if !all.values().any(|held| held.renewal <= now) {
                return all.values().map(|held| held.renewal).min();
            }
            all.iter()
                .filter(|(_, held)| held.renewal <= now + held.lease() / TOGETHER)
                .map(|(handle, held)| (*handle, Arc::clone(&held.grant), held.slots.clone()))
                .collect()
        };
        let mut keys: HashMap<(&Key, Duration), Vec<(u64, &str)>> = HashMap::new();
        for (handle, grant, slots) in &due {
            for (key, lease) in slots {
                keys.entry((key, *lease)).or_default().push((*handle, &grant.id));
            }
        }
        let mut batch = Batch::new();
        let mut asked = Vec::with_capacity(keys.len());
        for ((key, lease), members) in &keys {
            let ids: Vec<&str> = members.iter().map(|(_, id)| *id).collect();
            let slot = batch.push::<Vec<i64>>(shared.renew_cmd(key, *lease, &ids));
            asked.push((members, slot));
        }
        let answers = shared.driver().run(batch).await;
        let mut all = self.lock();
        let mut answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "slots were not renewed: trying again");
                for (handle, ..) in &due {
                    if let Some(held) = all.get_mut(handle) {
                        held.renewal = Instant::now() + held.lease() / (PART * PART);
                    }
                }
                return all.values().map(|held| held.renewal).min();
            }
        };
        for (members, slot) in asked {
            let renewed = answers.take(slot).ok();
            for (place, (handle, _)) in members.iter().enumerate() {
                let Some(held) = all.get_mut(handle) else { continue };
                let part = match renewed.as_ref().map(|renewed| renewed.get(place)) {
                    Some(Some(1)) => PART,
                    Some(_) => {
                        held.lost.store(true, Ordering::Release);
                        PART
                    }
                    None => PART * PART,
                };
                held.renewal = now + held.lease() / part;
            }
        }
        all.retain(|_, held| !held.lost.load(Ordering::Acquire));
        all.values().map(|held| held.renewal).min()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keeper").field("held", &self.lock().len()).finish_non_exhaustive()
    }
}

async fn wait_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
