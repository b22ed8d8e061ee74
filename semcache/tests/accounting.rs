//! What a cache counts, on memory and on Redis.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{
    Feedback, Finish, MemorySemanticCache, Policy, Prices, SemanticCache, Stats,
};
use support::{answer, request};

fn priced() -> Policy {
    let prices = Prices::default().with_model("gpt-4", 2_000_000, 8_000_000).unwrap();
    policy().with_prices(prices)
}

async fn every_outcome_is_counted(cache: &dyn SemanticCache, stats: impl Fn() -> Stats) {
    assert_eq!(stats(), Stats::default());
    cache.lookup(&request("1@0")).await.unwrap();
    cache.store(&request("1@0"), &answer("yes").with_usage(1_000, 500), None).await.unwrap();
    let cut = answer("cut").with_finish(Finish::Truncated);
    cache.store(&request("2@0"), &cut, None).await.unwrap();
    for prompt in ["1@0", "1@0", "1@5", "1@20", "1@60", "zero"] {
        let _ = cache.lookup(&request(prompt)).await;
    }
    let hit = cache.lookup(&request("1@6")).await.unwrap().into_hit().unwrap();
    cache.report(&request("1@6"), &hit, Feedback::Right).await.unwrap();
    cache.report(&request("1@6"), &hit, Feedback::Wrong).await.unwrap();
    let stats = stats();
    let lookups = [
        stats.exact_hits,
        stats.semantic_hits,
        stats.near_misses,
        stats.misses,
        stats.failed_lookups,
    ];
    assert_eq!(lookups, [2, 2, 1, 2, 1]);
    assert_eq!((stats.stored, stats.skipped, stats.right, stats.wrong), (1, 1, 1, 1));
    assert_eq!((stats.tokens_saved, stats.saved_micros), (4 * 1_500, 4 * 6_000));
    assert_eq!((stats.exact_latency.count(), stats.semantic_latency.count()), (2, 6));
    assert!((stats.hit_rate() - 4.0 / 7.0).abs() < 1e-9);
    assert!((stats.precision().unwrap() - 0.5).abs() < 1e-9);
}

#[tokio::test]
async fn on_memory() {
    let cache = MemorySemanticCache::new(Arc::new(Compass::default()), priced());
    every_outcome_is_counted(&cache, || cache.stats()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_and_clones_count_together() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let cache = support::over(driver, support::config().with_policy(priced())).await;
    let clone = cache.clone();
    every_outcome_is_counted(&cache, || clone.stats()).await;
}
