//! Redis decides as memory does: redis-cell's cases, and random policies, weights and times.
//!
//! The time is injected: `RedisRateLimiter::with_clock` runs the same scripts with another first part, which takes the
//! time from the last argument instead of `TIME`.
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inferkit_core::Clock;
use inferkit_localredis::{Flavor, Server};
use inferkit_ratelimit::{
    Calendar, Decision, Demand, Limit, MemoryRateLimiter, Permit, Policy, RateLimiter,
    RateLimiterExt as _, Report, Subject, Tier, Unit, Wait, Weights,
};
use proptest::prelude::*;
use serde_json::Value;

/// A clock that can step back.
#[derive(Debug, Default)]
struct Hand(AtomicU64);

impl Hand {
    fn set(&self, micros: u64) {
        self.0.store(micros, Ordering::SeqCst);
    }
}

impl Clock for Hand {
    fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst))
    }
}

const START: u64 = 1_795_392_000_000_000;

async fn cases(limiter: &dyn RateLimiter, clock: &Hand) {
    let Ok(folder) = std::env::var("INFERKIT_SHARED_DATA") else {
        println!("INFERKIT_SHARED_DATA is not set: redis-cell's cases were not run");
        return;
    };
    let text = std::fs::read_to_string(format!("{folder}/ratelimit/gcra_cases.json")).unwrap();
    let text: Value = serde_json::from_str(&text).unwrap();
    let second = Duration::from_secs(1);
    let limit = Limit::new(1, second, Unit::Tokens).unwrap().with_burst(5).unwrap();
    let policy = support::policy([support::tier("one", limit)]);
    let cases = text["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    let near = |got: Duration, seconds: f64| (got.as_secs_f64() - seconds).abs() < 2e-6;
    for case in cases {
        let number = |name: &str| case[name].as_f64();
        clock.set(START + (number("at_s").unwrap() * 1e6).round() as u64);
        let demand = Demand::new().with_tokens(case["cost"].as_u64().unwrap());
        let decision = limiter.acquire(&policy, &demand).await.unwrap();
        assert_eq!(decision.is_admitted(), !case["limited"].as_bool().unwrap(), "{case}");
        let state = decision.report().tier("one").unwrap();
        assert_eq!(Some(state.remaining), case["remaining"].as_u64(), "{case}");
        assert!(near(state.reset, number("reset_after_s").unwrap()), "{case} {state:?}");
        match (case["never"].as_bool().unwrap(), number("retry_after_s"), state.wait) {
            (true, None, Wait::Never) | (false, None, Wait::Nothing) => {}
            (false, Some(seconds), Wait::For(wait)) => assert!(near(wait, seconds), "{case}"),
            other => panic!("{other:?}: {case}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cases_of_redis_cell() {
    let clock = Arc::new(Hand::default());
    cases(&MemoryRateLimiter::with_clock(Arc::clone(&clock) as _), &clock).await;
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let driver = support::pool(Server::shared(flavor).unwrap().url()).await;
        cases(&support::at(driver, Arc::clone(&clock) as _), &clock).await;
    }
}

#[derive(Clone, Debug)]
enum Step {
    Acquire {
        requests: u64,
        tokens: u64,
        id: Option<u8>,
    },
    Settle {
        which: usize,
        tokens: u64,
    },
    Refund {
        which: usize,
    },
    Release {
        which: usize,
    },
    Peek {
        tokens: u64,
    },
    Reset,
    Forward(u64),
    Back(u64),
    /// By as much as the last rejection said.
    Wait,
}

fn step() -> impl Strategy<Value = Step> {
    let time = prop_oneof![0_u64..50, 0_u64..5_000_000, 0_u64..100_000_000];
    prop_oneof![
        10 => (prop_oneof![9 => Just(1_u64), 1 => 0_u64..5], 0_u64..60, prop::option::of(0_u8..6))
            .prop_map(|(requests, tokens, id)| Step::Acquire { requests, tokens, id }),
        3 => (any::<prop::sample::Index>(), 0_u64..150)
            .prop_map(|(which, tokens)| Step::Settle { which: which.index(8), tokens }),
        1 => (0_usize..8).prop_map(|which| Step::Refund { which }),
        1 => (0_usize..8).prop_map(|which| Step::Release { which }),
        1 => (0_u64..60).prop_map(|tokens| Step::Peek { tokens }),
        1 => prop_oneof![9 => Just(Step::Wait), 1 => Just(Step::Reset)],
        3 => time.prop_map(Step::Forward),
        1 => (0_u64..3_000_000).prop_map(Step::Back),
        2 => Just(Step::Wait),
    ]
}

fn limit() -> impl Strategy<Value = Limit> {
    let period = prop_oneof![
        (1_u64..2_000).prop_map(Duration::from_millis),
        (1_u64..5_000).prop_map(Duration::from_secs)
    ];
    let unit = prop_oneof![Just(Unit::Requests), Just(Unit::Tokens)];
    let amount = prop_oneof![1_u64..10, 1_u64..100, 1_u64..3_000_000];
    (0_u8..7, amount, period, unit, 1_u64..100).prop_map(|(kind, amount, period, unit, small)| {
        match kind {
            0 => Limit::new(amount, period, unit).unwrap(),
            1 => Limit::new(amount, period, unit).unwrap().with_burst(small).unwrap(),
            2 => Limit::fixed_window(amount, period, unit).unwrap(),
            3 => Limit::sliding_window(amount, period, unit).unwrap(),
            4 => Limit::sliding_log(small, period).unwrap(),
            5 => Limit::calendar(amount, Calendar::Month, unit).unwrap(),
            _ => {
                Limit::slots(1 + small / 20).unwrap().with_lease(period.min(support::HOUR)).unwrap()
            }
        }
    })
}

fn policy() -> impl Strategy<Value = Policy> {
    let tier = (limit(), 0_u8..3, prop::bool::weighted(0.15));
    prop::collection::vec(tier, 1..6).prop_map(|tiers| {
        tiers.into_iter().enumerate().fold(
            Policy::new("d").unwrap(),
            |all, (number, (limit, subject, shadow))| {
                let subject = Subject::user(&subject.to_string()).unwrap();
                let tier = Tier::new(format!("t{number}"), subject, limit).unwrap();
                all.with_tier(if shadow { tier.shadow() } else { tier }).unwrap()
            },
        )
    })
}

fn same(step: &Step, ours: &Report, oracle: &Report) {
    for ((tier, ours), (_, oracle)) in ours.tiers().zip(oracle.tiers()) {
        assert_eq!(ours, oracle, "{step:?}: {tier:?}");
    }
}

async fn compare(limiters: [&dyn RateLimiter; 2], clock: &Hand, policy: &Policy, steps: &[Step]) {
    let mut now = START;
    clock.set(now);
    let mut held: Vec<([Permit; 2], u64)> = Vec::new();
    // Records run out by the server's own clock on Redis, so here none gets old enough.
    let young = |now: u64, since: u64| now < since + 500_000_000;
    let mut ids = std::collections::HashMap::<u8, (u64, u64)>::new();
    let mut wait = None;
    for step in steps {
        match *step {
            Step::Forward(micros) => now += micros,
            Step::Back(micros) => now -= micros,
            Step::Wait => {
                if let Some(time) = wait.take() {
                    let time: Duration = time;
                    now += u64::try_from(time.as_micros()).unwrap().min(100_000_000_000);
                }
            }
            Step::Reset => {
                for limiter in limiters {
                    limiter.reset(policy).await.unwrap();
                }
            }
            Step::Peek { tokens } => {
                let demand = Demand::new().with_tokens(tokens);
                let ours = limiters[0].peek(policy, &demand).await.unwrap();
                let oracle = limiters[1].peek(policy, &demand).await.unwrap();
                same(step, &ours, &oracle);
            }
            Step::Acquire { requests, tokens, id } => {
                let mut since = now;
                let demand = match id {
                    Some(id) => {
                        let (number, first) = ids.entry(id).or_insert((0, now));
                        if !young(now, *first) {
                            (*number, *first) = (*number + 1, now);
                        }
                        // A repetition does not renew the record.
                        since = *first;
                        Demand::once(&format!("r{id}.{number}")).unwrap()
                    }
                    None => Demand::new(),
                };
                let demand = demand.with(Unit::Requests, requests).with_tokens(tokens);
                let ours = limiters[0].acquire(policy, &demand).await.unwrap();
                let oracle = limiters[1].acquire(policy, &demand).await.unwrap();
                same(step, ours.report(), oracle.report());
                match (ours, oracle) {
                    (Decision::Admitted(ours), Decision::Admitted(oracle)) => {
                        assert_eq!(ours.is_replayed(), oracle.is_replayed(), "{step:?}");
                        held.push(([ours, oracle], since));
                    }
                    (Decision::Rejected(ours), Decision::Rejected(oracle)) => {
                        assert_eq!(ours.retry_after(), oracle.retry_after());
                        wait = ours.retry_after();
                    }
                    other => panic!("{step:?}: {other:?}"),
                }
            }
            Step::Settle { which, .. } | Step::Refund { which } | Step::Release { which } => {
                if held.is_empty() {
                    continue;
                }
                let which = which % held.len();
                let ([ours, oracle], since) = &held[which];
                if !young(now, *since) {
                    continue;
                }
                let (mut settled, pairs) =
                    (Vec::new(), [(limiters[0], ours), (limiters[1], oracle)]);
                for (limiter, permit) in pairs {
                    settled.push(
                        match *step {
                            Step::Settle { tokens, .. } => {
                                limiter.settle(permit, &Weights::new().with_tokens(tokens)).await
                            }
                            Step::Refund { .. } => limiter.refund(permit).await,
                            _ => limiter.release(permit).await,
                        }
                        .unwrap(),
                    );
                }
                assert_eq!(settled[0], settled[1], "{step:?}");
            }
        }
        clock.set(now);
    }
    let [ours, oracle] = limiters;
    same(&Step::Wait, &ours.usage(policy).await.unwrap(), &oracle.usage(policy).await.unwrap());
    // A dropped one would be freed here, and nobody runs there.
    held.iter().flat_map(|(pair, _)| pair).for_each(Permit::set_settled);
}

#[test]
fn redis_decides_as_memory_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let driver = runtime.block_on(support::pool(Server::shared(Flavor::Redis).unwrap().url()));
    let config =
        ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(policy in policy(), steps in prop::collection::vec(step(), 1..60))| {
        let clock = Arc::new(Hand::default());
        let ours = support::at(Arc::clone(&driver), Arc::clone(&clock) as _);
        let oracle = MemoryRateLimiter::with_clock(Arc::clone(&clock) as _);
        runtime.block_on(compare([&ours, &oracle], &clock, &policy, &steps));
    });
}

/// The months of the script are those of the calendar, from 2024 to 2042.
#[tokio::test(flavor = "multi_thread")]
async fn months_begin_when_the_calendar_says() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let clock = Arc::new(Hand::default());
    let limit = Limit::calendar(1, Calendar::Month, Unit::Requests).unwrap();
    let policy = support::policy([support::tier("month", limit)]);
    let ours = support::at(driver, Arc::clone(&clock) as _);
    let oracle = MemoryRateLimiter::with_clock(Arc::clone(&clock) as _);
    let day = 86_400_000_000_u64;
    // 2024-01-01T00:00:00Z, and then month by month.
    let mut begins = 19_723 * day;
    for year in 2024..2042 {
        let leap = year % 4 == 0;
        let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for length in lengths {
            let next = begins + length * day;
            for (now, left) in [(begins, next - begins), (next - 1, 1)] {
                clock.set(now);
                for limiter in [&ours as &dyn RateLimiter, &oracle] {
                    let report = limiter.usage(&policy).await.unwrap();
                    let reset = report.tier("month").unwrap().reset;
                    assert_eq!(reset, Duration::from_micros(left), "{year}, {now}");
                }
            }
            begins = next;
        }
    }
}

/// No refill for time that did not pass, and refilling goes on by the new clock.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_steps_back_neither_gives_nor_takes() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let clock = Arc::new(Hand::default());
    let limit = Limit::new(60, Duration::from_secs(60), Unit::Requests).unwrap();
    let policy = support::policy([support::tier("one", limit)]);
    let ours = support::at(driver, Arc::clone(&clock) as _);
    let oracle = MemoryRateLimiter::with_clock(Arc::clone(&clock) as _);
    for limiter in [&ours as &dyn RateLimiter, &oracle] {
        clock.set(START);
        limiter.acquire(&policy, &Demand::new().with(Unit::Requests, 50)).await.unwrap();
        for (now, left) in [(START - 3_600_000_000, 9), (START - 3_595_000_000, 13)] {
            clock.set(now);
            let permit = limiter.acquire(&policy, &Demand::new()).await.unwrap().into_permit();
            assert_eq!(permit.unwrap().report().tier("one").unwrap().remaining, left);
        }
    }
}
