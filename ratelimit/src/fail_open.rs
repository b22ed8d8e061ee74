use async_trait::async_trait;
use inferkit_core::ErrorKind;

use crate::{
    Decision, Demand, Error, Permit, Policy, RateLimiter, Report, Result, Settled, Weights,
};

/// A limiter that admits everything while the server cannot be asked.
///
/// Without it a limiter fails closed: the error is the caller's, who refuses the request.
/// What is wrong with the call itself, such as an empty policy or a missing permission, stays an error.
#[derive(Clone, Debug)]
pub struct FailOpen<L>(L);

impl<L> FailOpen<L> {
    /// Wraps a limiter.
    pub fn new(limiter: L) -> Self {
        Self(limiter)
    }

    /// Returns the limiter.
    pub fn get_ref(&self) -> &L {
        &self.0
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<L: RateLimiter> RateLimiter for FailOpen<L> {
    /// As the limiter's, but [unchecked](Permit::is_unchecked) permits where it could not be asked.
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        match self.0.acquire(policy, demand).await {
            Err(Error::Backend(error))
                if error.is_transient() || error.kind() == ErrorKind::OutOfMemory =>
            {
                tracing::warn!(kind = ?error.kind(), "a request was admitted without its limits");
                inferkit_core::observe::count("inferkit_ratelimit_unchecked_total", &[], 1);
                Ok(Decision::Admitted(Permit::unchecked(policy, demand)))
            }
            other => other,
        }
    }

    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        self.0.peek(policy, demand).await
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        self.0.settle(permit, used).await
    }

    async fn reset(&self, policy: &Policy) -> Result<()> {
        self.0.reset(policy).await
    }
}
