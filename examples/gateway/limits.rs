//! Who may ask, and what happens while the server of the limits cannot be reached.

use std::time::Duration;

use axum::http::StatusCode;
use inferkit::ratelimit::{
    Breaker, Decision, Demand, Error, Instances, Limit, Permit, Policy, RateLimiter as _,
    RedisRateLimiter, RejectionCache, Report, Subject, Tier, Unit, Weights, WhenAway,
};
use inferkit_examples::{Result, chain};

use crate::config::{Config, Key, WhenRedisFails};
use crate::problem::Problem;

const MINUTE: Duration = Duration::from_secs(60);
/// A slot whose gateway died is free after this.
const SLOT_LEASE: Duration = Duration::from_secs(15);

/// The limits of all callers.
#[derive(Debug)]
pub(crate) struct Limits {
    limiter: Breaker<RejectionCache<RedisRateLimiter>>,
    slots: u64,
}

impl Limits {
    /// Makes the limits; while Redis is away, `instances` share them.
    pub(crate) fn new(shared: RedisRateLimiter, instances: Instances, config: &Config) -> Self {
        let away = match config.limits.when_redis_fails {
            WhenRedisFails::Open => WhenAway::Admit,
            WhenRedisFails::Closed => WhenAway::Refuse,
            WhenRedisFails::Local => WhenAway::LocalShare(instances),
        };
        let limiter = Breaker::new(RejectionCache::new(shared), away);
        Self { limiter, slots: config.limits.gpu_slots }
    }

    /// What every request takes, before the cache is asked.
    pub(crate) fn of_requests(key: &Key) -> Result<Policy> {
        let limit = Limit::new(key.plan()?.requests_per_minute, MINUTE, Unit::Requests)?;
        let tier = Tier::new("requests", Subject::api_key(&key.name)?, limit)?;
        Ok(Policy::new("gateway")?.with_tier(tier)?)
    }

    /// What is taken only for what the cache does not know: tokens, the model's share, a slot of the GPUs.
    pub(crate) fn of_work(&self, key: &Key, model: &str, rate: Option<u64>) -> Result<Policy> {
        let limit = Limit::new(key.plan()?.tokens_per_minute, MINUTE, Unit::Tokens)?;
        let tokens = Tier::new("tokens", Subject::api_key(&key.name)?, limit)?;
        let mut policy = Policy::new("gateway")?.with_tier(tokens)?;
        if let Some(rate) = rate {
            let limit = Limit::new(rate, MINUTE, Unit::Requests)?;
            policy = policy.with_tier(Tier::new("model", Subject::model(model)?, limit)?)?;
        }
        Ok(policy.with_tier(self.gpu()?)?)
    }

    fn gpu(&self) -> Result<Tier> {
        let slots = Limit::slots(self.slots)?.with_lease(SLOT_LEASE)?;
        Ok(Tier::new("gpu", Subject::global(), slots)?)
    }

    /// The slots of the GPUs, for looking at them.
    pub(crate) fn of_gpu(&self) -> Result<Policy> {
        Ok(Policy::new("gateway")?.with_tier(self.gpu()?)?)
    }

    pub(crate) async fn admit(&self, policy: &Policy, demand: &Demand) -> Result<Permit, Problem> {
        match self.limiter.acquire(policy, demand).await {
            Ok(Decision::Admitted(permit)) => Ok(permit),
            Ok(Decision::Rejected(rejection)) => Err(Problem::limited(&rejection)),
            Ok(_) => Err(Problem::unavailable("limits_unavailable", "an unknown decision")),
            Err(error @ (Error::Backend(_) | Error::Away { .. })) => {
                let detail = format!("limits cannot be checked: {}", chain(&error));
                Err(Problem::unavailable("limits_unavailable", detail))
            }
            Err(error) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Err(Problem::new(status, "limits_failed", chain(&error)))
            }
        }
    }

    /// Charges what was used instead of what was expected; a slot is free at once.
    ///
    /// If it fails, what was expected stays charged, and the slot is free after its lease.
    pub(crate) async fn settle(&self, permit: &Permit, tokens: u64) {
        let used = Weights::new().with_tokens(tokens);
        if let Err(error) = self.limiter.settle(permit, &used).await {
            tracing::warn!(error = %chain(&error), "what was used could not be charged");
        }
    }

    /// Returns the state of a policy, and changes nothing.
    pub(crate) async fn look(&self, policy: &Policy) -> Option<Report> {
        self.limiter.peek(policy, &Demand::new()).await.ok()
    }
}
