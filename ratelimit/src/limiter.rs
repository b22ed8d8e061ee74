use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Decision, Demand, Permit, Policy, Report, Result, Settled, Weights};

/// Decides whether requests may run: the contract with those who implement one.
///
/// Callers use [`RateLimiterExt`] besides.
#[async_trait]
pub trait RateLimiter: Debug + Send + Sync + 'static {
    /// Charges a request in every tier of a policy, or in none if one of them rejects it.
    ///
    /// The tiers of one domain are decided at once; those of [other domains](crate::Tier::in_domain) after them.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPolicy`](crate::Error::EmptyPolicy);
    /// [`Error::Backend`](crate::Error::Backend) if there is no answer.
    /// After a timeout the request may have been charged: asking again under the same
    /// [id](Demand::once) does not charge it twice.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future is like a timeout; slots that were taken are free when their lease ends.
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision>;

    /// Tells what [`acquire`](Self::acquire) would answer, and changes nothing.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report>;

    /// Charges what a request used beyond its reservation or gives back what it did not use, and frees its slots.
    ///
    /// Units that `used` does not name stay as they were reserved.
    /// What was used beyond a limit makes a debt that delays later requests; what comes back to a window that is over is
    /// dropped.
    /// A request with an id or a slot is settled once, however often this is called.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if there is no answer; the permit can be settled again then.
    /// Without an id and a slot, do so only if [`Error::maybe_applied`](crate::Error::maybe_applied) is false.
    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled>;

    /// Forgets everything about the subjects of a policy, their slots included; what several policies share is forgotten
    /// for all.
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire).
    async fn reset(&self, policy: &Policy) -> Result<()>;
}

/// What callers do with a [`RateLimiter`].
pub trait RateLimiterExt: RateLimiter {
    /// Gives back all that was charged for a request that did not run, and frees its slots.
    ///
    /// # Errors
    ///
    /// As [`RateLimiter::settle`].
    fn refund(&self, permit: &Permit) -> impl Future<Output = Result<Settled>> + Send {
        async move { self.settle(permit, &Weights::none_of(permit.policy())).await }
    }

    /// Frees the slots of a request that used what was reserved.
    ///
    /// # Errors
    ///
    /// As [`RateLimiter::settle`].
    fn release(&self, permit: &Permit) -> impl Future<Output = Result<Settled>> + Send {
        async move { self.settle(permit, &Weights::new()).await }
    }

    /// Tells how much of every tier is left.
    ///
    /// # Errors
    ///
    /// As [`RateLimiter::peek`].
    fn usage(&self, policy: &Policy) -> impl Future<Output = Result<Report>> + Send {
        async move { self.peek(policy, &Demand::new().with(crate::Unit::Requests, 0)).await }
    }
}

impl<L: RateLimiter + ?Sized> RateLimiterExt for L {}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<L: RateLimiter + ?Sized> RateLimiter for $pointer<L> {
            async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
                (**self).acquire(policy, demand).await
            }

            async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
                (**self).peek(policy, demand).await
            }

            async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
                (**self).settle(permit, used).await
            }

            async fn reset(&self, policy: &Policy) -> Result<()> {
                (**self).reset(policy).await
            }
        }
    )*};
}
forward!(Arc, Box);
