use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::ErrorKind;
use tokio::time::Instant;

use crate::instances::Instances;
use crate::{
    Decision, Demand, Error, MemoryRateLimiter, Permit, Policy, RateLimiter, Report, Result,
    Settled, Weights,
};

/// What is decided while the server cannot be asked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WhenAway {
    /// Admit everything, [unchecked](Permit::is_unchecked).
    Admit,
    /// Refuse everything: the error is the caller's.
    Refuse,
    /// Limit within this process, to each instance's part of every limit, rounded down but at least 1.
    ///
    /// The limits are full again when the server goes away, and what was admitted meanwhile is not charged at the server
    /// afterwards.
    LocalShare(Instances),
}

/// A limiter that stops asking a server that does not answer: a circuit breaker.
///
/// After five failures in a row nobody waits for the server any more; after each pause of a second one call tries it
/// again, and the first answer ends it.
/// Meanwhile, and for the calls that failed, [`WhenAway`] decides.
/// What is wrong with the call itself, such as an empty policy or a missing permission, stays an error, and says nothing
/// about the server.
#[derive(Debug)]
pub struct Breaker<L> {
    limiter: L,
    away: WhenAway,
    failures: u32,
    pause: Duration,
    local: MemoryRateLimiter,
    // A `std` mutex: it is held to look and to note, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Failures since the last answer.
    failures: u32,
    /// When the server is tried next; set while nobody asks it.
    next: Option<Instant>,
}

impl<L> Breaker<L> {
    /// Wraps a limiter.
    #[must_use]
    pub fn new(limiter: L, away: WhenAway) -> Self {
        let local = MemoryRateLimiter::new();
        let pause = Duration::from_secs(1);
        Self { limiter, away, failures: 5, pause, local, state: Mutex::default() }
    }

    /// Sets after how many failures in a row the server is left alone; at least 1.
    #[must_use]
    pub fn with_failures(mut self, failures: u32) -> Self {
        self.failures = failures.max(1);
        self
    }

    /// Sets for how long it is left alone between two tries.
    #[must_use]
    pub fn with_pause(mut self, pause: Duration) -> Self {
        self.pause = pause;
        self
    }

    /// Returns the limiter.
    pub fn get_ref(&self) -> &L {
        &self.limiter
    }

    /// Tells whether the server is left alone.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.lock().next.is_some()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this call asks the server; else for how long nobody will.
    fn may_ask(&self) -> Result<()> {
        let now = Instant::now();
        let mut state = self.lock();
        match state.next {
            Some(next) if now < next => Err(Error::Away { retry_after: next - now }),
            Some(_) => {
                // This call is the one that tries; if it is dropped, another does after the pause.
                state.next = Some(now + self.pause);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Notes what the server said, if anything.
    fn note<T>(&self, answer: &Result<T>) {
        let mut state = self.lock();
        if !answer.as_ref().is_err_and(is_away) {
            if state.next.is_some() {
                tracing::info!("the server of the limits answers again");
            }
            *state = State::default();
            return;
        }
        state.failures = state.failures.saturating_add(1);
        if self.failures <= state.failures {
            if state.next.is_none() {
                tracing::warn!("the server of the limits does not answer, and is left alone");
            }
            state.next = Some(Instant::now() + self.pause);
        }
    }
}

/// Whether a failure is the server's: it cannot be reached, is not ready, or is full.
fn is_away(error: &Error) -> bool {
    match error {
        Error::Backend(error) => error.is_transient() || error.kind() == ErrorKind::OutOfMemory,
        Error::Away { .. } => true,
        _ => false,
    }
}

impl<L: RateLimiter> Breaker<L> {
    async fn fall_back(&self, policy: &Policy, demand: &Demand, error: Error) -> Result<Decision> {
        match &self.away {
            WhenAway::Refuse => return Err(error),
            WhenAway::Admit => {}
            WhenAway::LocalShare(instances) => {
                let policy = policy.divided(instances.count());
                return match self.local.acquire(&policy, demand).await? {
                    Decision::Admitted(permit) => Ok(Decision::Admitted(permit.local())),
                    rejected => Ok(rejected),
                };
            }
        }
        inferkit_core::observe::count("inferkit_ratelimit_unchecked_total", &[], 1);
        Ok(Decision::Admitted(Permit::unchecked(policy, demand)))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: RateLimiter> RateLimiter for Breaker<L> {
    /// As the limiter's; no round trip while the server is left alone.
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let decision = match self.may_ask() {
            Ok(()) => {
                let decision = self.limiter.acquire(policy, demand).await;
                self.note(&decision);
                decision
            }
            Err(away) => Err(away),
        };
        match decision {
            Err(error) if is_away(&error) => self.fall_back(policy, demand, error).await,
            decision => decision,
        }
    }

    /// As the limiter's; [`Error::Away`] while the server is left alone.
    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        self.may_ask()?;
        let report = self.limiter.peek(policy, demand).await;
        self.note(&report);
        report
    }

    /// As the limiter's, or within this process what was admitted there; [`Error::Away`] while the server is left alone.
    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        if permit.is_local() {
            return self.local.settle(permit, used).await;
        }
        if permit.is_unchecked() || permit.is_settled() {
            return Ok(Settled::Gone);
        }
        self.may_ask()?;
        let settled = self.limiter.settle(permit, used).await;
        self.note(&settled);
        settled
    }

    async fn reset(&self, policy: &Policy) -> Result<()> {
        self.limiter.reset(policy).await
    }
}
