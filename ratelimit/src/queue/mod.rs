//! Slots that are waited for: who finds none free takes a place in a fair queue.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::{check_name, check_text};
use crate::{Error, Result};

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
    /// Takes a slot, and waits for one up to `wait`.
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

/// Who waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiter {
    tenant: String,
    weight: f64,
    priority: u16,
}

impl Waiter {
    /// Makes a waiter of a tenant, of weight 1 and priority 0.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyName`] and [`Error::NameTooLong`].
    pub fn new(tenant: &str) -> Result<Self> {
        check_text("tenant", tenant)?;
        Ok(Self { tenant: tenant.to_owned(), weight: 1.0, priority: 0 })
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

    /// How long a slot that was handed over waits for its new holder, and how long a waiter is thought alive.
    pub(crate) fn patience(&self) -> Duration {
        self.lease.min(Duration::from_secs(3))
    }
}

/// What came of waiting.
#[derive(Debug)]
#[non_exhaustive]
pub enum Queued {
    /// A slot, which is free again when it is released or dropped.
    Granted(HeldSlot),
    /// No slot in time.
    #[non_exhaustive]
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
#[non_exhaustive]
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

/// What a slot of an implementation can do.
#[async_trait]
pub(crate) trait Slot: Send + Sync {
    /// Gives it back, and waits until that is done.
    async fn release(self: Box<Self>) -> Result<()>;

    /// Has it given back by somebody else.
    fn abandon(self: Box<Self>);

    /// Whether it was lost: its lease ended before it was renewed.
    fn is_lost(&self) -> bool;
}

impl HeldSlot {
    fn new(slot: impl Slot + 'static) -> Self {
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
