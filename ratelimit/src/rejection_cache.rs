use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::limit::to_f64;
use crate::{
    Algorithm, Decision, Demand, Permit, Policy, RateLimiter, Rejection, Report, Result, Settled,
    Unit, Wait, Weights,
};

/// The most policies that are remembered.
const MOST: usize = 16_384;

/// A limiter that remembers for a moment whom it rejected, and says so again without a round trip.
///
/// A caller who asks again and again costs the server a few questions a second then.
/// A rejection is remembered by the whole policy with its numbers, so a raised limit holds at once, for requests that ask
/// for as much or more, at most 250 ms and never longer than the time to wait; a random quarter of it is left out, so that
/// not all processes come back together.
/// What this process gives back is seen at once, what others give back when the time is over.
/// Rejections by slots are not remembered: a slot may be free at any time.
///
/// An admitted request that is repeated under its [id](Demand::once) may be told to wait for that moment.
#[derive(Debug)]
pub struct RejectionCache<L> {
    limiter: L,
    longest: Duration,
    // A `std` mutex: it is held for a look, never across an await.
    rejected: Mutex<HashMap<Policy, Rejected>>,
}

#[derive(Debug)]
struct Rejected {
    weights: Weights,
    rejection: Rejection,
    since: Instant,
    until: Instant,
}

impl<L> RejectionCache<L> {
    /// Wraps a limiter.
    #[must_use]
    pub fn new(limiter: L) -> Self {
        Self { limiter, longest: Duration::from_millis(250), rejected: Mutex::default() }
    }

    /// Sets for how long a rejection is remembered at most.
    #[must_use]
    pub fn with_longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Returns the limiter.
    pub fn get_ref(&self) -> &L {
        &self.limiter
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Policy, Rejected>> {
        self.rejected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, policy: &Policy, demand: &Demand) -> Option<Rejection> {
        let now = Instant::now();
        let all = self.lock();
        let known = all.get(policy).filter(|known| now < known.until)?;
        let covers =
            |unit: &Unit| known.weights.or_default(unit) <= demand.weights.or_default(unit);
        let all_covered = policy.tiers().iter().all(|tier| covers(tier.limit().unit()));
        all_covered.then(|| known.rejection.after(now - known.since))
    }

    fn note(&self, policy: &Policy, demand: &Demand, rejection: &Rejection) {
        let Some((_, state)) = rejection.report().limiting() else { return };
        let Wait::For(wait) = state.wait else { return };
        let by_slots = rejection.report().tiers().any(|(tier, state)| {
            let is_slots = tier.limit().algorithm() == Algorithm::Slots;
            is_slots && !tier.is_shadow() && state.wait != Wait::Nothing
        });
        if by_slots {
            return;
        }
        let since = Instant::now();
        let until = since + wait.min(self.longest).mul_f64(0.75 + 0.25 * random());
        let mut all = self.lock();
        if MOST <= all.len() {
            all.retain(|_, known| since < known.until);
            if MOST <= all.len() {
                return;
            }
        }
        let (weights, rejection) = (demand.weights.clone(), rejection.clone());
        all.insert(policy.clone(), Rejected { weights, rejection, since, until });
    }
}

/// A number from 0 to 1 that differs from call to call.
fn random() -> f64 {
    to_f64(RandomState::new().hash_one(0) >> 11) / to_f64(1 << 53)
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: RateLimiter> RateLimiter for RejectionCache<L> {
    /// As the limiter's; no round trip for a request that was rejected a moment ago.
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        if let Some(rejection) = self.known(policy, demand) {
            let outcome = [("outcome", "rejected_again")];
            inferkit_core::observe::count("inferkit_ratelimit_decisions_total", &outcome, 1);
            return Ok(Decision::Rejected(rejection));
        }
        let decision = self.limiter.acquire(policy, demand).await?;
        if let Decision::Rejected(rejection) = &decision {
            self.note(policy, demand, rejection);
        }
        Ok(decision)
    }

    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        self.limiter.peek(policy, demand).await
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        let settled = self.limiter.settle(permit, used).await;
        self.lock().remove(permit.policy());
        settled
    }

    async fn reset(&self, policy: &Policy) -> Result<()> {
        let done = self.limiter.reset(policy).await;
        self.lock().remove(policy);
        done
    }
}
