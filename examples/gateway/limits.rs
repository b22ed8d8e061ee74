//! Who may ask, and what happens while the server of the limits cannot be reached.

use std::time::Duration;

use axum::http::StatusCode;
use inferkit::ratelimit::{
    Decision, Demand, Error, Limit, MemoryRateLimiter, Permit, Policy, RateLimiter,
    RedisRateLimiter, Report, Subject, Tier, Unit, Weights,
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
    shared: RedisRateLimiter,
    /// What limits while the shared one cannot be asked.
    local: MemoryRateLimiter,
    when_redis_fails: WhenRedisFails,
    slots: u64,
}

/// A permit, and who gave it.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) permit: Permit,
    is_local: bool,
}

impl Limits {
    pub(crate) fn new(shared: RedisRateLimiter, config: &Config) -> Self {
        Self {
            shared,
            local: MemoryRateLimiter::new(),
            when_redis_fails: config.limits.when_redis_fails,
            slots: config.limits.gpu_slots,
        }
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

    pub(crate) async fn admit(
        &self,
        policy: &Policy,
        demand: &Demand,
    ) -> Result<Admitted, Problem> {
        let (decision, is_local) = match self.shared.acquire(policy, demand).await {
            Err(error @ Error::Backend(_)) => match self.when_redis_fails {
                WhenRedisFails::Open => {
                    let permit = Permit::unchecked(policy, demand);
                    return Ok(Admitted { permit, is_local: true });
                }
                WhenRedisFails::Closed => {
                    let detail = format!("limits cannot be checked: {}", chain(&error));
                    return Err(Problem::unavailable("limits_unavailable", detail));
                }
                WhenRedisFails::Local => (self.local.acquire(policy, demand).await, true),
            },
            decision => (decision, false),
        };
        match decision {
            Ok(Decision::Admitted(permit)) => Ok(Admitted { permit, is_local }),
            Ok(Decision::Rejected(rejection)) => Err(Problem::limited(&rejection)),
            Ok(_) => Err(Problem::unavailable("limits_unavailable", "an unknown decision")),
            Err(error) => {
                let status = StatusCode::INTERNAL_SERVER_ERROR;
                Err(Problem::new(status, "limits_failed", chain(&error)))
            }
        }
    }

    /// Charges what was used instead of what was expected; a slot is free at once.
    ///
    /// If it fails, what was expected stays charged, and the slot is free after its lease.
    pub(crate) async fn settle(&self, admitted: &Admitted, tokens: u64) {
        let used = Weights::new().with_tokens(tokens);
        let settled = match admitted.is_local {
            true => self.local.settle(&admitted.permit, &used).await,
            false => self.shared.settle(&admitted.permit, &used).await,
        };
        if let Err(error) = settled {
            tracing::warn!(error = %chain(&error), "what was used could not be charged");
        }
    }

    /// Returns the state of a policy, and changes nothing.
    pub(crate) async fn look(&self, policy: &Policy) -> Option<Report> {
        self.shared.peek(policy, &Demand::new()).await.ok()
    }
}
