use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::layout::cost;
use crate::limit::{duration, ticks, to_f64};
use crate::{Algorithm, Demand, Policy, Tier, Weights};

/// Whether a request may run.
#[derive(Debug)]
#[non_exhaustive]
pub enum Decision {
    /// It may, and is charged in every tier.
    Admitted(Permit),
    /// It may not, and is charged in none.
    Rejected(Rejection),
}

impl Decision {
    /// Returns the permit, or why there is none.
    ///
    /// # Errors
    ///
    /// The [`Rejection`].
    pub fn into_permit(self) -> Result<Permit, Rejection> {
        match self {
            Self::Admitted(permit) => Ok(permit),
            Self::Rejected(rejection) => Err(rejection),
        }
    }

    /// Tells whether the request may run.
    #[must_use]
    pub fn is_admitted(&self) -> bool {
        matches!(self, Self::Admitted(_))
    }

    /// Returns the state of every tier.
    #[must_use]
    pub fn report(&self) -> &Report {
        match self {
            Self::Admitted(permit) => permit.report(),
            Self::Rejected(rejection) => rejection.report(),
        }
    }
}

/// When a tier lets a request pass.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[expect(clippy::exhaustive_enums, reason = "a third way would break every caller's arithmetic")]
pub enum Wait {
    /// At once.
    Nothing,
    /// After this time, if nobody else takes it; for slots a hint.
    For(Duration),
    /// Never: the request is larger than the whole limit.
    Never,
}

/// The state of one tier: after the charge of an admitted request, as it is for others.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TierState {
    /// How much may pass now, in the tier's unit; free slots. None where there is debt.
    pub remaining: u64,
    /// The time until nothing is used any more; of windows the time until the current one ends, of slots zero.
    pub reset: Duration,
    /// Whether the tier lets this request pass; anything but [`Wait::Nothing`] in an admitted one is that of a shadow
    /// tier.
    pub wait: Wait,
}

impl TierState {
    /// Makes a state, for an implementor of [`RateLimiter`](crate::RateLimiter).
    #[must_use]
    pub fn new(remaining: u64, reset: Duration, wait: Wait) -> Self {
        Self { remaining, reset, wait }
    }

    /// The state before the charge.
    pub(crate) fn uncharged(self, tier: &Tier, weights: &Weights) -> Self {
        let limit = &tier.limit;
        if self.wait != Wait::Nothing {
            return self;
        }
        let (weight, reset) = match limit.algorithm {
            Algorithm::Slots => (1, self.reset),
            Algorithm::Gcra => (
                weights.or_default(&limit.unit),
                self.reset.saturating_sub(duration(cost(tier, weights))),
            ),
            _ => (weights.or_default(&limit.unit), self.reset),
        };
        Self { remaining: (self.remaining + weight).min(limit.burst()), reset, wait: self.wait }
    }
}

/// The state of every tier of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    policy: Policy,
    /// Nothing of tiers that were not asked.
    states: Vec<Option<TierState>>,
}

impl Report {
    /// Makes a report of the states of the policy's tiers, in their order, for an implementor of
    /// [`RateLimiter`](crate::RateLimiter).
    #[must_use]
    pub fn new(policy: &Policy, states: Vec<TierState>) -> Self {
        Self::partial(policy, states.into_iter().map(Some).collect())
    }

    pub(crate) fn partial(policy: &Policy, states: Vec<Option<TierState>>) -> Self {
        Self { policy: policy.clone(), states }
    }

    /// Returns the tiers that were asked and their states, in the policy's order; none if the limiter could not be asked.
    ///
    /// Tiers of [another domain](Tier::in_domain) are not asked where the policy's own rejects.
    pub fn tiers(&self) -> impl Iterator<Item = (&Tier, &TierState)> {
        let tiers = self.policy.tiers().iter().zip(&self.states);
        tiers.filter_map(|(tier, state)| Some((tier, state.as_ref()?)))
    }

    /// Returns the state of the tier of this name.
    #[must_use]
    pub fn tier(&self, name: &str) -> Option<&TierState> {
        self.tiers().find(|(tier, _)| tier.name() == name).map(|(_, state)| state)
    }

    /// Returns the tier that lets the request wait longest, shadow tiers aside; `None` if all let it pass.
    #[must_use]
    pub fn limiting(&self) -> Option<(&Tier, &TierState)> {
        self.tiers()
            .filter(|(tier, state)| !tier.is_shadow() && state.wait != Wait::Nothing)
            .max_by_key(|(_, state)| state.wait)
    }
}

/// Why a request may not run.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection(Report);

impl Rejection {
    /// Makes a rejection, for an implementor of [`RateLimiter`](crate::RateLimiter).
    #[must_use]
    pub fn new(report: Report) -> Self {
        Self(report)
    }

    /// Returns the state of every tier.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.0
    }

    /// Returns the name of the tier that takes longest to let the request pass.
    #[must_use]
    pub fn tier(&self) -> &str {
        self.0.limiting().map_or("", |(tier, _)| tier.name())
    }

    /// The same rejection, told this much later.
    pub(crate) fn after(&self, elapsed: Duration) -> Self {
        let mut report = self.0.clone();
        for state in report.states.iter_mut().flatten() {
            state.reset = state.reset.saturating_sub(elapsed);
            if let Wait::For(time) = state.wait {
                state.wait = Wait::For(time.saturating_sub(elapsed));
            }
        }
        Self(report)
    }

    /// Returns the time after which every tier would let the request pass, if nobody else comes; for slots a hint.
    ///
    /// `None` means never: the request is larger than one of the limits, so answer it with 413 or 400 and not with 429.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.0.limiting()?.1.wait {
            Wait::Nothing => Some(Duration::ZERO),
            Wait::For(time) => Some(time),
            Wait::Never => None,
        }
    }
}

/// What came of settling a permit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Settled {
    /// The difference is charged or given back, and the slots are free.
    Done,
    /// Nothing is held under its id, and nothing was changed: it was settled before, its lease or its record ran out, or
    /// it was admitted without the limiter.
    Gone,
}

/// The right to run one request, with what was charged for it.
///
/// Settle it with what the request really used.
/// Dropping it unsettled keeps the estimated charge and hands its slots to the limiter's `run`, which frees them; without
/// that they are free when their lease ends.
pub struct Permit {
    grant: Arc<Grant>,
    report: Report,
    replayed: bool,
    unchecked: bool,
    local: bool,
    settled: AtomicBool,
    lost: Arc<AtomicBool>,
    /// The permits of each domain, if there are several.
    parts: Vec<Self>,
    /// What the limiter's `run` knows its slots by.
    handle: Option<u64>,
    on_drop: Option<Box<dyn FnOnce() + Send + Sync>>,
}

/// What is needed to settle.
#[derive(Debug)]
pub(crate) struct Grant {
    pub(crate) id: Arc<str>,
    pub(crate) policy: Policy,
    pub(crate) weights: Weights,
    pub(crate) acquired: f64,
    /// Whether a record of the id was written.
    pub(crate) recorded: bool,
}

impl Permit {
    /// Makes a permit for what was charged at `at` since the Unix epoch, for an implementor of
    /// [`RateLimiter`](crate::RateLimiter).
    #[must_use]
    pub fn new(id: &str, demand: &Demand, report: Report, at: Duration) -> Self {
        let grant = Grant {
            id: id.into(),
            policy: report.policy.clone(),
            weights: demand.weights.clone(),
            acquired: ticks(at),
            recorded: false,
        };
        Self::granted(Arc::new(grant), report)
    }

    pub(crate) fn granted(grant: Arc<Grant>, report: Report) -> Self {
        Self {
            grant,
            report,
            replayed: false,
            unchecked: false,
            local: false,
            settled: AtomicBool::new(false),
            lost: Arc::default(),
            parts: Vec::new(),
            handle: None,
            on_drop: None,
        }
    }

    /// Makes one permit of those of several domains.
    pub(crate) fn joined(demand: &Demand, report: Report, parts: Vec<Self>) -> Self {
        let id = parts.first().map_or("", |part| part.id()).to_owned();
        let mut permit = Self::new(&id, demand, report, Duration::ZERO);
        permit.replayed = parts.iter().all(Self::is_replayed);
        permit.parts = parts;
        permit
    }

    pub(crate) fn parts(&self) -> &[Self] {
        &self.parts
    }

    /// Makes a permit for which no limiter was asked; it settles to [`Settled::Gone`].
    #[must_use]
    pub fn unchecked(policy: &Policy, demand: &Demand) -> Self {
        let report = Report::new(policy, Vec::new());
        let id = demand.id().unwrap_or_default().to_owned();
        let mut permit = Self::new(&id, demand, report, Duration::ZERO);
        permit.unchecked = true;
        permit
    }

    /// Sets what happens when it is dropped unsettled; it must not wait.
    #[must_use]
    pub fn on_drop(mut self, release: impl FnOnce() + Send + Sync + 'static) -> Self {
        self.on_drop = Some(Box::new(release));
        self
    }

    pub(crate) fn replay(mut self, replayed: bool) -> Self {
        self.replayed = replayed;
        self
    }

    pub(crate) fn local(mut self) -> Self {
        self.local = true;
        self
    }

    pub(crate) fn held(mut self, handle: u64, lost: Arc<AtomicBool>) -> Self {
        self.handle = Some(handle);
        self.lost = lost;
        self
    }

    pub(crate) fn handle(&self) -> Option<u64> {
        self.handle
    }

    pub(crate) fn grant(&self) -> &Arc<Grant> {
        &self.grant
    }

    /// Returns the request id: the caller's, or one that the limiter made.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.grant.id
    }

    /// Returns the policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.grant.policy
    }

    /// Returns what was charged, as the demand said it.
    #[must_use]
    pub fn reserved(&self) -> &Weights {
        &self.grant.weights
    }

    /// Returns the state of every tier.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// Tells whether an earlier call with the same id was admitted, so that this one charged nothing.
    #[must_use]
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    /// Tells whether it was admitted because the limiter could not be asked.
    #[must_use]
    pub fn is_unchecked(&self) -> bool {
        self.unchecked
    }

    /// Tells whether this process admitted it alone, because the limiter could not be asked.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.local
    }

    /// Tells whether the limiter's `run` found that a slot was lost, after a pause longer than its lease.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire) || self.parts.iter().any(Self::is_lost)
    }

    /// Tells whether it was settled, in all its domains.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire)
    }

    /// Notes that it was settled, for an implementor of [`RateLimiter`](crate::RateLimiter): dropping it does nothing
    /// more.
    pub fn set_settled(&self) {
        self.parts.iter().for_each(Self::set_settled);
        self.settled.store(true, Ordering::Release);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(release) = self.on_drop.take()
            && !*self.settled.get_mut()
        {
            release();
        }
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit")
            .field("report", &self.report)
            .field("replayed", &self.replayed)
            .field("unchecked", &self.unchecked)
            .field("settled", &self.settled)
            .finish_non_exhaustive()
    }
}

/// What a tier had in use before the call, as the script tells it: under GCRA in ticks, else in units.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Usage {
    pub(crate) used: f64,
    pub(crate) reset: f64,
    /// 0 passed, -1 never, else ticks.
    pub(crate) wait: f64,
}

impl Usage {
    /// The state of the tier, after a charge of `cost` if it is charged.
    pub(crate) fn state(self, tier: &Tier, cost: f64, charged: bool) -> TierState {
        let limit = &tier.limit;
        let cost = if charged && self.wait == 0.0 { cost } else { 0.0 };
        let used = self.used + cost;
        let (remaining, reset) = match limit.algorithm {
            Algorithm::Gcra => {
                let emission = limit.emission();
                // Where the emission is not whole, the burst's end was rounded down.
                let slack = if emission < 1024.0 { 1.0 } else { 0.0 };
                (((burst_ticks(limit) - used + slack) / emission).floor(), used)
            }
            Algorithm::SlidingLog if 0.0 < cost => {
                (to_f64(limit.amount) - used, ticks(limit.period))
            }
            _ => (to_f64(limit.amount) - used, self.reset),
        };
        let wait = match self.wait {
            0.0 => Wait::Nothing,
            wait if wait < 0.0 => Wait::Never,
            wait => Wait::For(duration(wait)),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and at most 2^53"
        )]
        TierState::new(remaining.max(0.0) as u64, duration(reset), wait)
    }
}

/// A whole burst, in ticks.
pub(crate) fn burst_ticks(limit: &crate::Limit) -> f64 {
    (to_f64(limit.burst) * limit.emission()).floor()
}
