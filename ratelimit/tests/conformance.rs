//! The suite on memory, on Redis through redis-rs and fred, on Valkey, and on a cluster.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use inferkit_localredis::{Flavor, Server};
use inferkit_ratelimit::{
    Breaker, MemoryRateLimiter, RedisRateLimiter, RejectionCache, WhenAway,
    rate_limiter_conformance,
};

mod memory {
    use super::*;
    async fn make() -> MemoryRateLimiter {
        MemoryRateLimiter::new()
    }
    rate_limiter_conformance!(make);
}

mod redis_rs {
    use super::*;
    async fn make() -> RedisRateLimiter {
        support::on_pool(Flavor::Redis).await
    }
    rate_limiter_conformance!(make);
}

mod fred {
    use super::*;
    async fn make() -> RedisRateLimiter {
        support::over(support::fred(Server::shared(Flavor::Redis).unwrap().url()).await)
    }
    rate_limiter_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisRateLimiter {
        support::on_pool(Flavor::Valkey).await
    }
    rate_limiter_conformance!(make);
}

mod cluster {
    use super::*;
    async fn make() -> Breaker<RejectionCache<RedisRateLimiter>> {
        let limiter = support::over(support::cluster().await);
        Breaker::new(RejectionCache::new(limiter), WhenAway::Refuse)
    }
    rate_limiter_conformance!(make);
}
