//! Slots that are waited for: who finds none free takes a place in a fair queue.

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{check_name, check_text};
use crate::{
    Decision, Demand, Error, Permit, Policy, RateLimiter, RateLimiterExt as _, Rejection, Result,
};

mod memory;
mod redis;

pub use memory::MemorySlotQueue;
pub use redis::RedisSlotQueue;

/// The most slots of a pool, and the most who may wait.
const MOST: u32 = 100_000;

/// Slots of a pool, such as GPUs, that are handed to those who wait for them.
///
/// Who waits is served by start-time fair queueing (Goyal, Vin and Cheng, 1996): tenants get slots in proportion to their
/// weights, however many of their requests wait, and lower numbers of priority come first; after
/// [`SlotPool::with_turn`] hand-offs in a row a lower priority that waits has one, so that it never starves.
///
/// A slot that is free goes to the first of the queue, never to who comes in between.
#[async_trait]
pub trait SlotQueue: Debug + Send + Sync + 'static {
    /// Takes a slot, and waits for one up to `wait`; the waiter's [`Standing`] tells meanwhile where it stands.
    ///
    /// [`Queued::Refused`] says that there is no place in the queue or that `wait` is over, and about how long a place would
    /// have taken.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue.
    async fn acquire(&self, waiter: &Waiter, wait: Duration) -> Result<Queued>;

    /// Tells how many slots are held, and how many wait.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    async fn look(&self) -> Result<QueueState>;
}

/// What callers do with a [`SlotQueue`].
pub trait SlotQueueExt: SlotQueue {
    /// Charges a policy, and then waits for a slot: who is over its limits is told so at once and never reaches the queue.
    ///
    /// If there is no slot in time, all that was charged is given back.
    /// Round trips: those of both calls, and one more for what is given back.
    ///
    /// # Errors
    ///
    /// Those of [`RateLimiter::acquire`] and [`SlotQueue::acquire`].
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the queue; what the policy charged stays charged, its own slots aside.
    fn acquire_wait<L: RateLimiter + ?Sized>(
        &self,
        limiter: &L,
        policy: &Policy,
        demand: &Demand,
        waiter: &Waiter,
        wait: Duration,
    ) -> impl Future<Output = Result<Waited>> + Send {
        async move {
            let permit = match limiter.acquire(policy, demand).await? {
                Decision::Admitted(permit) => permit,
                Decision::Rejected(rejection) => return Ok(Waited::Rejected(rejection)),
            };
            let refused = match self.acquire(waiter, wait).await {
                Ok(Queued::Granted(slot)) => return Ok(Waited::Admitted { permit, slot }),
                Ok(Queued::Refused { reason, estimate }) => {
                    Ok(Waited::Refused { reason, estimate })
                }
                Err(error) => Err(error),
            };
            if let Err(error) = limiter.refund(&permit).await {
                tracing::warn!(%error, "what a request was charged that found no slot was not given back");
            }
            refused
        }
    }
}

impl<Q: SlotQueue + ?Sized> SlotQueueExt for Q {}

/// What came of [`acquire_wait`](SlotQueueExt::acquire_wait).
#[derive(Debug)]
#[non_exhaustive]
pub enum Waited {
    /// It may run.
    #[non_exhaustive]
    Admitted {
        /// To be settled with what it used.
        permit: Permit,
        /// To be released or dropped.
        slot: HeldSlot,
    },
    /// The policy rejects it; nothing was charged, and it did not wait.
    Rejected(Rejection),
    /// No slot in time; what was charged was given back.
    #[non_exhaustive]
    Refused {
        /// Why.
        reason: Refusal,
        /// About how long whoever comes now would wait.
        estimate: Duration,
    },
}

/// Where a waiter stands, to be asked from elsewhere while it waits.
///
/// Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Standing(Arc<Mutex<Option<Position>>>);

/// A place in the queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "implementors of the queue make it")]
pub struct Position {
    /// How many are before it, as the order stands now; who comes later with a better priority or more weight may pass.
    pub ahead: u64,
    /// About how long it takes, by how long slots were held lately.
    pub estimate: Duration,
}

impl Standing {
    /// Makes one that nobody waits for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the place, as it was told last: at first at once, then once a second at least; nothing before and after.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the place, for an implementor of [`SlotQueue`].
    pub fn tell(&self, position: Option<Position>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = position;
    }
}

/// Who waits.
#[derive(Clone, Debug)]
pub struct Waiter {
    tenant: String,
    weight: f64,
    priority: u16,
    standing: Standing,
}

impl Waiter {
    /// Makes a waiter of a tenant, of weight 1 and priority 0.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyName`] and [`Error::NameTooLong`].
    pub fn new(tenant: &str) -> Result<Self> {
        check_text("tenant", tenant)?;
        Ok(Self {
            tenant: tenant.to_owned(),
            weight: 1.0,
            priority: 0,
            standing: Standing::default(),
        })
    }

    /// Sets the tenant's share beside that of others: twice the weight is twice the slots while both wait.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidWeight`] unless it lies between 0.001 and 1000.
    pub fn with_weight(mut self, weight: f64) -> Result<Self> {
        if !(0.001..=1000.0).contains(&weight) {
            return Err(Error::InvalidWeight { value: weight });
        }
        self.weight = weight;
        Ok(self)
    }

    /// Sets the priority: 0 comes first, at most 1000.
    #[must_use]
    pub fn with_priority(mut self, priority: u16) -> Self {
        self.priority = priority.min(1000);
        self
    }

    /// Has `standing` tell where it stands while it waits.
    #[must_use]
    pub fn with_standing(mut self, standing: &Standing) -> Self {
        self.standing = standing.clone();
        self
    }

    /// Returns what tells where it stands.
    #[must_use]
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Returns the tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Returns the weight.
    #[must_use]
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Returns the priority.
    #[must_use]
    pub fn priority(&self) -> u16 {
        self.priority
    }
}

/// The slots of a pool and how they are waited for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SlotPool {
    pub(crate) name: String,
    pub(crate) slots: u32,
    pub(crate) max_waiting: u32,
    pub(crate) lease: Duration,
    pub(crate) turn: u32,
}

impl SlotPool {
    /// Makes a pool of `slots`, for which up to 1000 wait.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] for the name, [`Error::AmountOutOfRange`] for 0 or more than 100 000 slots.
    pub fn new(name: &str, slots: u32) -> Result<Self> {
        check_name("pool", name)?;
        if slots == 0 || MOST < slots {
            return Err(Error::AmountOutOfRange { amount: u64::from(slots) });
        }
        let lease = Duration::from_secs(30);
        Ok(Self { name: name.to_owned(), slots, max_waiting: 1000, lease, turn: 8 })
    }

    /// Sets how many may wait, at most 100 000; 0 has nobody wait.
    #[must_use]
    pub fn with_max_waiting(mut self, waiting: u32) -> Self {
        self.max_waiting = waiting.min(MOST);
        self
    }

    /// Sets when a slot is free whose holder died; 30 seconds by default.
    ///
    /// Leases are renewed at a third of it.
    ///
    /// # Errors
    ///
    /// [`Error::TimeOutOfRange`] unless it lies between 100 ms and an hour.
    pub fn with_lease(mut self, lease: Duration) -> Result<Self> {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(3600));
        if !(min..=max).contains(&lease) {
            return Err(Error::TimeOutOfRange { what: "a lease", min, max, got: lease });
        }
        self.lease = lease;
        Ok(self)
    }

    /// Sets after how many hand-offs in a row a lower priority that waits has its turn; 8 by default.
    #[must_use]
    pub fn with_turn(mut self, hand_offs: u32) -> Self {
        self.turn = hand_offs.max(1);
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns how many slots there are.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots
    }

    /// Returns how many may wait.
    #[must_use]
    pub fn max_waiting(&self) -> u32 {
        self.max_waiting
    }

    /// How long a slot that was handed over waits for its new holder, and how long a waiter is thought alive.
    pub(crate) fn patience(&self) -> Duration {
        self.lease.min(Duration::from_secs(3))
    }
}

/// What came of waiting.
#[derive(Debug)]
#[expect(clippy::exhaustive_enums, reason = "implementors of the queue make it")]
pub enum Queued {
    /// A slot, which is free again when it is released or dropped.
    Granted(HeldSlot),
    /// No slot in time.
    Refused {
        /// Why.
        reason: Refusal,
        /// About how long whoever comes now would wait.
        estimate: Duration,
    },
}

impl Queued {
    /// Returns the slot, if there is one.
    #[must_use]
    pub fn granted(self) -> Option<HeldSlot> {
        match self {
            Self::Granted(slot) => Some(slot),
            Self::Refused { .. } => None,
        }
    }
}

/// Why there is no slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refusal {
    /// As many wait as may.
    Full,
    /// The time to wait is over.
    TimedOut,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "implementors of the queue make it")]
pub struct QueueState {
    /// Slots that are held.
    pub held: u64,
    /// How many wait.
    pub waiting: u64,
    /// About how long whoever comes now waits.
    pub estimate: Duration,
}

/// A slot; dropping it gives it back through `run`, [`release`](Self::release) at once.
#[must_use = "it is given back when it is dropped"]
pub struct HeldSlot {
    inner: Option<Box<dyn Slot>>,
}

/// What a slot of a [`SlotQueue`] can do; callers use [`HeldSlot`].
#[async_trait]
pub trait Slot: Send + Sync {
    /// Gives it back, and waits until that is done.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    async fn release(self: Box<Self>) -> Result<()>;

    /// Has it given back by somebody else.
    fn abandon(self: Box<Self>);

    /// Whether it was lost: its lease ended before it was renewed.
    fn is_lost(&self) -> bool;
}

impl HeldSlot {
    /// Makes a held slot, for an implementor of [`SlotQueue`].
    pub fn new(slot: impl Slot + 'static) -> Self {
        Self { inner: Some(Box::new(slot)) }
    }

    /// Gives the slot to the next who waits: one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; the slot is free when its lease ends then.
    pub async fn release(mut self) -> Result<()> {
        match self.inner.take() {
            Some(slot) => slot.release().await,
            None => Ok(()),
        }
    }

    /// Tells whether the slot was lost, because its lease could not be renewed in time: others may hold it.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.inner.as_ref().is_none_or(|slot| slot.is_lost())
    }
}

impl Drop for HeldSlot {
    fn drop(&mut self) {
        if let Some(slot) = self.inner.take() {
            slot.abandon();
        }
    }
}

impl Debug for HeldSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HeldSlot").field("is_lost", &self.is_lost()).finish_non_exhaustive()
    }
}
