//! Who was rejected a moment ago is told so again without a round trip.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_ratelimit::{
    Decision, Demand, Limit, MemoryRateLimiter, Permit, Policy, RateLimiter, RateLimiterExt as _,
    Rejection, RejectionCache, Report, Result, Settled, Unit, Weights,
};
use support::{HOUR, gpu, policy, requests, tier, tokens};

/// Counts who is asked.
#[derive(Clone, Debug, Default)]
struct Counted {
    limiter: Arc<MemoryRateLimiter>,
    asked: Arc<AtomicUsize>,
}

#[async_trait]
impl RateLimiter for Counted {
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.limiter.acquire(policy, demand).await
    }

    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        self.limiter.peek(policy, demand).await
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        self.limiter.settle(permit, used).await
    }

    async fn reset(&self, policy: &Policy) -> Result<()> {
        self.limiter.reset(policy).await
    }
}

fn made() -> (RejectionCache<Counted>, Counted) {
    let limiter = Counted::default();
    (RejectionCache::new(limiter.clone()), limiter)
}

async fn rejected(cache: &RejectionCache<Counted>, policy: &Policy, tokens: u64) -> Rejection {
    let demand = Demand::new().with_tokens(tokens);
    cache.acquire(policy, &demand).await.unwrap().into_permit().unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn a_storm_asks_a_few_times_a_second() {
    let (cache, limiter) = made();
    let policy = policy([requests(1)]);
    assert!(cache.acquire(&policy, &Demand::new()).await.unwrap().is_admitted());
    let first = rejected(&cache, &policy, 0).await.retry_after().unwrap();
    let (mut last, mut asked) = (first, 0);
    for _ in 0..1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let before = limiter.asked.load(Ordering::Relaxed);
        let wait = rejected(&cache, &policy, 0).await.retry_after().unwrap();
        if limiter.asked.load(Ordering::Relaxed) == before {
            assert!(wait < last, "the time to wait runs on");
        }
        last = wait;
        asked = limiter.asked.load(Ordering::Relaxed) - 2;
    }
    // A second holds four times 250 ms and less than six times three quarters of it.
    assert!((3..=6).contains(&asked), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn only_what_would_be_rejected_again_is() {
    let (cache, limiter) = made();
    let of = |amount| policy([tokens(amount)]);
    let held = cache.acquire(&of(100), &Demand::new().with_tokens(60)).await.unwrap();
    let held = held.into_permit().unwrap();
    rejected(&cache, &of(100), 60).await;
    rejected(&cache, &of(100), 70).await;
    assert_eq!(limiter.asked.load(Ordering::Relaxed), 2, "who asks for more is not asked again");
    // Who asks for less may pass.
    let small = cache.acquire(&of(100), &Demand::new().with_tokens(40)).await.unwrap();
    cache.refund(&small.into_permit().unwrap()).await.unwrap();
    rejected(&cache, &of(100), 60).await;
    // A raised limit holds at once.
    let raised = cache.acquire(&of(1000), &Demand::new().with_tokens(60)).await.unwrap();
    cache.refund(&raised.into_permit().unwrap()).await.unwrap();
    // What is given back here is seen at once.
    rejected(&cache, &of(100), 60).await;
    cache.refund(&held).await.unwrap();
    assert!(cache.acquire(&of(100), &Demand::new().with_tokens(60)).await.unwrap().is_admitted());
    // A reset as well.
    rejected(&cache, &of(100), 60).await;
    cache.reset(&of(100)).await.unwrap();
    assert!(cache.acquire(&of(100), &Demand::new().with_tokens(60)).await.unwrap().is_admitted());
}

#[tokio::test(start_paused = true)]
async fn short_waits_slots_and_what_never_fits_are_asked_again() {
    let (cache, limiter) = made();
    let fast =
        policy([tier("fast", Limit::new(100, Duration::from_secs(1), Unit::Tokens).unwrap())]);
    let _all = cache.acquire(&fast, &Demand::new().with_tokens(100)).await.unwrap();
    let wait = rejected(&cache, &fast, 1).await.retry_after().unwrap();
    assert!(wait <= Duration::from_millis(10), "{wait:?}");
    tokio::time::sleep(wait).await;
    rejected(&cache, &fast, 101).await;
    rejected(&cache, &fast, 101).await;
    assert_eq!(limiter.asked.load(Ordering::Relaxed), 4);
    let slots = policy([gpu(1, HOUR)]);
    let _held = cache.acquire(&slots, &Demand::new()).await.unwrap();
    for _ in 0..3 {
        rejected(&cache, &slots, 0).await;
    }
    assert_eq!(limiter.asked.load(Ordering::Relaxed), 8);
    // A dry run of slots rejects nothing, so it does not count.
    let dry = policy([requests(1), gpu(1, HOUR).shadow()]);
    let _one = cache.acquire(&dry, &Demand::new()).await.unwrap();
    for _ in 0..3 {
        rejected(&cache, &dry, 0).await;
    }
    assert_eq!(limiter.asked.load(Ordering::Relaxed), 10);
}
