use std::time::Duration;

use crate::{Limit, Policy, Result, Subject, Tier, Unit};

const MINUTE: Duration = Duration::from_secs(60);

/// What a customer may use in a minute: an example of a table of plans.
///
/// | plan | requests | tokens |
/// |---|---|---|
/// | [`FREE`](Plan::FREE) | 60 | 10 000 |
/// | [`PRO`](Plan::PRO) | 600 | 100 000 |
/// | [`ENTERPRISE`](Plan::ENTERPRISE) | 6000 | 1 000 000 |
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::exhaustive_structs, reason = "a table of numbers that callers write too")]
pub struct Plan {
    /// Requests per minute.
    pub requests_per_minute: u64,
    /// Tokens per minute.
    pub tokens_per_minute: u64,
}

impl Plan {
    /// A trial.
    pub const FREE: Self = Self { requests_per_minute: 60, tokens_per_minute: 10_000 };
    /// A paying customer.
    pub const PRO: Self = Self { requests_per_minute: 600, tokens_per_minute: 100_000 };
    /// A customer with a contract.
    pub const ENTERPRISE: Self = Self { requests_per_minute: 6000, tokens_per_minute: 1_000_000 };

    /// Adds the tiers `requests` and `tokens` of an API key to a policy.
    ///
    /// # Errors
    ///
    /// As [`Limit::new`] for the numbers, [`Subject::new`] for the key and [`Policy::with_tier`].
    pub fn limit(self, policy: Policy, api_key: &str) -> Result<Policy> {
        let key = Subject::api_key(api_key)?;
        let requests = Limit::new(self.requests_per_minute, MINUTE, Unit::Requests)?;
        let tokens = Limit::new(self.tokens_per_minute, MINUTE, Unit::Tokens)?;
        policy
            .with_tier(Tier::new("requests", key.clone(), requests)?)?
            .with_tier(Tier::new("tokens", key, tokens)?)
    }
}
