//! A limiter and a queue of somebody else's, made with the public API only: they pass the cases that fit what they can do.
#![expect(clippy::unwrap_used, reason = "a test's own implementation")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use inferkit_ratelimit::{
    Algorithm, Decision, Demand, Error, HeldSlot, Permit, Policy, Position, QueueState, Queued,
    RateLimiter, Refusal, Rejection, Report, Result, Settled, Slot, SlotPool, SlotQueue, Tier,
    TierState, Unit, Wait, Waiter, Weights, rate_limiter_conformance, slot_queue_conformance,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Counts what is in use, and never lets time pass.
#[derive(Clone, Debug, Default)]
struct Tally(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    used: HashMap<String, u64>,
    held: HashMap<String, Weights>,
    next: u64,
}

fn key(policy: &Policy, tier: &Tier) -> String {
    format!("{:?} {:?} {}", policy.domain(), tier.subject(), tier.name())
}

fn cost(tier: &Tier, weights: &Weights) -> u64 {
    match (tier.limit().algorithm(), tier.limit().unit()) {
        (Algorithm::Slots, _) => 1,
        (_, unit) => weights.get(unit).unwrap_or_else(|| u64::from(*unit == Unit::Requests)),
    }
}

impl Counts {
    fn report(&self, policy: &Policy, weights: &Weights, charged: bool) -> Report {
        let states = policy.tiers().iter().map(|tier| {
            let (limit, cost) = (tier.limit().burst(), cost(tier, weights));
            let used = self.used.get(&key(policy, tier)).copied().unwrap_or(0);
            let fits = charged || used + cost <= limit;
            let wait = match fits {
                true => Wait::Nothing,
                false if limit < cost => Wait::Never,
                false => Wait::For(Duration::from_secs(1)),
            };
            TierState::new(limit.saturating_sub(used), Duration::ZERO, wait)
        });
        Report::new(policy, states.collect())
    }
}

#[async_trait]
impl RateLimiter for Tally {
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let report = self.peek(policy, demand).await?;
        if report.limiting().is_some() {
            return Ok(Decision::Rejected(Rejection::new(report)));
        }
        let mut counts = self.0.lock().unwrap();
        for tier in policy.tiers() {
            *counts.used.entry(key(policy, tier)).or_default() += cost(tier, demand.weights());
        }
        counts.next += 1;
        let id = demand.id().map_or_else(|| counts.next.to_string(), ToOwned::to_owned);
        counts.held.insert(id.clone(), demand.weights().clone());
        let report = counts.report(policy, demand.weights(), true);
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Ok(Decision::Admitted(Permit::new(&id, demand, report, at)))
    }

    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        if policy.tiers().is_empty() {
            return Err(Error::EmptyPolicy);
        }
        Ok(self.0.lock().unwrap().report(policy, demand.weights(), false))
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        let mut counts = self.0.lock().unwrap();
        let Some(reserved) = counts.held.remove(permit.id()) else { return Ok(Settled::Gone) };
        for tier in permit.policy().tiers() {
            let before = cost(tier, &reserved);
            let now = match (tier.limit().algorithm(), used.get(tier.limit().unit())) {
                (Algorithm::Slots, _) => 0,
                (_, Some(used)) => used,
                (_, None) => before,
            };
            let count = counts.used.entry(key(permit.policy(), tier)).or_default();
            *count = (*count + now).saturating_sub(before);
        }
        permit.set_settled();
        Ok(Settled::Done)
    }

    async fn reset(&self, policy: &Policy) -> Result<()> {
        if policy.tiers().is_empty() {
            return Err(Error::EmptyPolicy);
        }
        let mut counts = self.0.lock().unwrap();
        for tier in policy.tiers() {
            counts.used.remove(&key(policy, tier));
        }
        Ok(())
    }
}

async fn make() -> Arc<dyn RateLimiter> {
    Arc::new(Tally::default())
}
rate_limiter_conformance! { make:
    a_rejection_charges_nothing_anywhere, all_algorithms_count, tokens_are_settled,
    a_refund_is_as_if_nothing_was, slots_are_exclusive, what_never_fits_says_so,
    a_weight_of_zero_is_free, a_peek_changes_nothing, subjects_and_domains_are_kept_apart,
    hostile_names_are_names, a_policy_without_tiers_is_refused,
}

/// Slots in the order of coming, and no weights: a semaphore.
#[derive(Debug)]
struct Turnstile {
    pool: SlotPool,
    free: Arc<Semaphore>,
    waiting: Arc<AtomicU64>,
}

struct Turn(Option<OwnedSemaphorePermit>);

#[async_trait]
impl Slot for Turn {
    async fn release(mut self: Box<Self>) -> Result<()> {
        drop(self.0.take());
        Ok(())
    }

    fn abandon(self: Box<Self>) {}

    fn is_lost(&self) -> bool {
        self.0.is_none()
    }
}

/// One who waits, until it is dropped.
struct Counted(Arc<AtomicU64>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl SlotQueue for Turnstile {
    async fn acquire(&self, waiter: &Waiter, wait: Duration) -> Result<Queued> {
        let free = Arc::clone(&self.free);
        if let Ok(permit) = Arc::clone(&free).try_acquire_owned() {
            return Ok(Queued::Granted(HeldSlot::new(Turn(Some(permit)))));
        }
        let estimate = Duration::from_secs(1);
        if u64::from(self.pool.max_waiting()) <= self.waiting.load(Ordering::Acquire) {
            return Ok(Queued::Refused { reason: Refusal::Full, estimate });
        }
        let ahead = self.waiting.fetch_add(1, Ordering::AcqRel);
        let _counted = Counted(Arc::clone(&self.waiting));
        waiter.standing().tell(Some(Position { ahead, estimate }));
        let permit = tokio::time::timeout(wait, free.acquire_owned()).await;
        waiter.standing().tell(None);
        Ok(match permit {
            Ok(permit) => Queued::Granted(HeldSlot::new(Turn(permit.ok()))),
            Err(_) => Queued::Refused { reason: Refusal::TimedOut, estimate },
        })
    }

    async fn look(&self) -> Result<QueueState> {
        let held = self.pool.slots() as usize - self.free.available_permits();
        let waiting = self.waiting.load(Ordering::Acquire);
        let busy = 0 < waiting || self.free.available_permits() == 0;
        let estimate = if busy { Duration::from_secs(1) } else { Duration::ZERO };
        Ok(QueueState { held: held as u64, waiting, estimate })
    }
}

mod turnstile {
    use super::*;
    async fn make(pool: SlotPool) -> Arc<dyn SlotQueue> {
        let free = Arc::new(Semaphore::new(pool.slots() as usize));
        Arc::new(Turnstile { pool, free, waiting: Arc::default() })
    }
    slot_queue_conformance! { make:
        slots_are_exclusive_and_handed_on, a_full_queue_and_a_short_wait_say_how_long_it_takes,
        a_dropped_waiter_leaves, who_is_over_its_limits_does_not_wait,
    }
}
