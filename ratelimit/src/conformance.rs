//! The suite that every [`RateLimiter`] passes; list it with [`rate_limiter_conformance!`](crate::rate_limiter_conformance).
//!
//! Not covered by semver.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]

pub mod queue;

use std::time::{Duration, Instant};

use crate::{
    Calendar, Decision, Demand, Error, Limit, Permit, Policy, RateLimiter, RateLimiterExt as _,
    Rejection, Settled, Subject, Tier, Unit, Wait, Weights,
};

/// Makes a test of each case; `make` is an async function that returns a limiter without state.
#[macro_export]
macro_rules! rate_limiter_conformance {
    ($make:path) => {
        $crate::rate_limiter_conformance! { $make:
            a_burst_passes_and_no_more, a_rejection_charges_nothing_anywhere,
            all_algorithms_count, tokens_are_settled, a_debt_delays, a_refund_is_as_if_nothing_was,
            an_id_is_charged_once, an_id_is_settled_once, slots_are_exclusive,
            a_slot_is_free_after_its_lease, what_never_fits_says_so, a_weight_of_zero_is_free,
            a_shadow_tier_rejects_nothing, a_peek_changes_nothing, a_reset_forgets,
            a_changed_number_holds_at_once, subjects_and_domains_are_kept_apart,
            hostile_names_are_names, a_policy_without_tiers_is_refused, waiting_helps,
            a_thousand_tiers_are_decided_together, other_domains_are_asked_after_the_own,
            what_another_domain_rejects_is_given_back, many_tasks_never_pass_more_than_the_limit,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

const HOUR: Duration = Duration::from_secs(3600);
/// So long that nothing comes back while a case runs.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fn tier(name: &'static str, limit: Result<Limit, Error>) -> Tier {
    Tier::new(name, Subject::user("ann").unwrap(), limit.unwrap()).unwrap()
}

fn requests(amount: u64) -> Tier {
    tier("requests", Limit::new(amount, YEAR, Unit::Requests))
}

fn tokens(amount: u64) -> Tier {
    tier("tokens", Limit::new(amount, YEAR, Unit::Tokens))
}

fn slots(amount: u64) -> Tier {
    let limit = Limit::slots(amount).unwrap();
    Tier::new("gpu", Subject::global(), limit).unwrap()
}

fn policy(tiers: impl IntoIterator<Item = Tier>) -> Policy {
    tiers.into_iter().fold(Policy::new("d").unwrap(), |all, tier| all.with_tier(tier).unwrap())
}

async fn pass(limiter: &dyn RateLimiter, policy: &Policy, demand: &Demand) -> Permit {
    limiter.acquire(policy, demand).await.unwrap().into_permit().unwrap()
}

async fn fail(limiter: &dyn RateLimiter, policy: &Policy, demand: &Demand) -> Rejection {
    limiter.acquire(policy, demand).await.unwrap().into_permit().unwrap_err()
}

async fn left(limiter: &dyn RateLimiter, policy: &Policy, tier: &str) -> u64 {
    limiter.usage(policy).await.unwrap().tier(tier).unwrap().remaining
}

/// As many as the burst pass, the next one waits for one emission.
pub async fn a_burst_passes_and_no_more(limiter: &dyn RateLimiter) {
    let policy = policy([requests(7)]);
    for number in 1..=7 {
        let permit = pass(limiter, &policy, &Demand::new()).await;
        let state = *permit.report().tier("requests").unwrap();
        assert_eq!((state.remaining, state.wait), (7 - number, Wait::Nothing));
    }
    let rejection = fail(limiter, &policy, &Demand::new()).await;
    assert_eq!(rejection.tier(), "requests");
    let wait = rejection.retry_after().unwrap();
    assert!(wait <= YEAR / 7 && YEAR / 8 < wait, "{wait:?}");
}

/// Where one tier rejects, the others are not charged, in whatever order they stand.
pub async fn a_rejection_charges_nothing_anywhere(limiter: &dyn RateLimiter) {
    let day = tier("day", Limit::calendar(100, Calendar::Day, Unit::Requests));
    let log = tier("log", Limit::sliding_log(100, HOUR));
    let policy = policy([requests(100), day, tokens(1000), slots(100), log]);
    let kept = pass(limiter, &policy, &Demand::new().with_tokens(900)).await;
    for _ in 0..5 {
        let rejection = fail(limiter, &policy, &Demand::new().with_tokens(101)).await;
        assert_eq!(rejection.tier(), "tokens");
    }
    for name in ["requests", "day", "log", "gpu"] {
        assert_eq!(left(limiter, &policy, name).await, 99, "{name}");
    }
    assert_eq!(left(limiter, &policy, "tokens").await, 100);
    limiter.release(&kept).await.unwrap();
}

/// Every algorithm lets its limit pass and no more.
pub async fn all_algorithms_count(limiter: &dyn RateLimiter) {
    let month = Duration::from_secs(28 * 24 * 3600);
    for limit in [
        Limit::new(3, HOUR, Unit::Requests),
        Limit::fixed_window(3, month, Unit::Requests),
        Limit::sliding_window(3, month, Unit::Requests),
        Limit::sliding_log(3, HOUR),
        Limit::calendar(3, Calendar::Month, Unit::Requests),
    ] {
        let policy = policy([tier("one", limit)]);
        for remaining in [2, 1, 0] {
            let permit = pass(limiter, &policy, &Demand::new()).await;
            assert_eq!(permit.report().tier("one").unwrap().remaining, remaining);
        }
        assert_eq!(fail(limiter, &policy, &Demand::new()).await.tier(), "one", "{policy:?}");
        limiter.reset(&policy).await.unwrap();
    }
}

/// What was not used comes back, and the slot is free.
pub async fn tokens_are_settled(limiter: &dyn RateLimiter) {
    let window = tier("window", Limit::sliding_window(10_000, HOUR * 24, Unit::Tokens));
    let policy = policy([requests(100), tokens(10_000), window, slots(1)]);
    let permit = pass(limiter, &policy, &Demand::new().with_tokens(4000)).await;
    assert_eq!(left(limiter, &policy, "gpu").await, 0);
    let settled = limiter.settle(&permit, &Weights::new().with_tokens(350)).await.unwrap();
    assert_eq!(settled, Settled::Done);
    assert!(permit.is_settled());
    for name in ["tokens", "window"] {
        assert_eq!(left(limiter, &policy, name).await, 9650, "{name}");
    }
    assert_eq!(left(limiter, &policy, "requests").await, 99);
    assert_eq!(left(limiter, &policy, "gpu").await, 1);
    assert_eq!(limiter.release(&permit).await.unwrap(), Settled::Gone);
}

/// What was used beyond the limit is paid back before anything passes.
pub async fn a_debt_delays(limiter: &dyn RateLimiter) {
    let policy = policy([tier("tokens", Limit::new(3600, HOUR, Unit::Tokens))]);
    let permit = pass(limiter, &policy, &Demand::new().with_tokens(600)).await;
    limiter.settle(&permit, &Weights::new().with_tokens(3600 + 60)).await.unwrap();
    assert_eq!(left(limiter, &policy, "tokens").await, 0);
    // 60 tokens of debt and 10 that are asked for, at one a second.
    let wait = fail(limiter, &policy, &Demand::new().with_tokens(10)).await.retry_after().unwrap();
    assert!((Duration::from_secs(60)..=Duration::from_secs(70)).contains(&wait), "{wait:?}");
}

/// All of it comes back.
pub async fn a_refund_is_as_if_nothing_was(limiter: &dyn RateLimiter) {
    let dollars =
        tier("dollars", Limit::calendar(5_000_000_000, Calendar::Month, Unit::NanoDollars));
    let log = tier("log", Limit::sliding_log(50, HOUR));
    let policy = policy([requests(100), dollars, log, slots(2)]);
    let before = limiter.usage(&policy).await.unwrap();
    let demand = Demand::new().with(Unit::NanoDollars, 2_000_000).with(Unit::Requests, 3);
    let permit = pass(limiter, &policy, &demand).await;
    let remaining = |name| permit.report().tier(name).unwrap().remaining;
    assert_eq!(["requests", "dollars", "log", "gpu"].map(remaining), [97, 4_998_000_000, 47, 1]);
    assert_eq!(limiter.refund(&permit).await.unwrap(), Settled::Done);
    let after = limiter.usage(&policy).await.unwrap();
    for (tier, state) in before.tiers() {
        let now = after.tier(tier.name()).unwrap();
        assert_eq!(now.remaining, state.remaining, "{}", tier.name());
    }
}

/// Asking again under the same id charges nothing, also when nothing is left.
pub async fn an_id_is_charged_once(limiter: &dyn RateLimiter) {
    for tiers in [vec![requests(2)], vec![requests(2), slots(1)]] {
        let policy = policy(tiers);
        let demand = Demand::once("req 1").unwrap();
        let first = pass(limiter, &policy, &demand).await;
        let again = pass(limiter, &policy, &demand).await;
        assert!(!first.is_replayed() && again.is_replayed());
        assert_eq!(again.id(), "req 1");
        assert_eq!(left(limiter, &policy, "requests").await, 1);
        if policy.tiers().len() == 1 {
            pass(limiter, &policy, &Demand::new()).await;
            assert!(pass(limiter, &policy, &demand).await.is_replayed(), "it holds its place");
        }
        fail(limiter, &policy, &Demand::once("req 2").unwrap()).await;
        assert_eq!(limiter.release(&again).await.unwrap(), Settled::Done);
        first.set_settled();
        limiter.reset(&policy).await.unwrap();
    }
}

/// Of two settlements of one id the second changes nothing.
pub async fn an_id_is_settled_once(limiter: &dyn RateLimiter) {
    for tiers in [vec![tokens(1000)], vec![tokens(1000), slots(4)]] {
        let policy = policy(tiers);
        let demand = Demand::once("req 1").unwrap().with_tokens(500);
        let (first, second) =
            (pass(limiter, &policy, &demand).await, pass(limiter, &policy, &demand).await);
        let used = Weights::new().with_tokens(100);
        assert_eq!(limiter.settle(&first, &used).await.unwrap(), Settled::Done);
        assert_eq!(limiter.settle(&second, &used).await.unwrap(), Settled::Gone);
        assert_eq!(left(limiter, &policy, "tokens").await, 900);
        limiter.reset(&policy).await.unwrap();
    }
}

/// There are never more holders than slots.
pub async fn slots_are_exclusive(limiter: &dyn RateLimiter) {
    let policy = policy([slots(3)]);
    let mut held = Vec::new();
    for remaining in [2, 1, 0] {
        let permit = pass(limiter, &policy, &Demand::new()).await;
        assert_eq!(permit.report().tier("gpu").unwrap().remaining, remaining);
        held.push(permit);
    }
    let rejection = fail(limiter, &policy, &Demand::new()).await;
    assert_eq!(rejection.retry_after(), Some(Duration::from_secs(1)), "the hint");
    limiter.release(&held.pop().unwrap()).await.unwrap();
    let permit = pass(limiter, &policy, &Demand::new()).await;
    fail(limiter, &policy, &Demand::new()).await;
    for permit in held.iter().chain([&permit]) {
        assert_eq!(limiter.release(permit).await.unwrap(), Settled::Done);
    }
    assert_eq!(left(limiter, &policy, "gpu").await, 3);
}

/// A holder that gives no sign of life loses its slot, and not before its lease is over.
pub async fn a_slot_is_free_after_its_lease(limiter: &dyn RateLimiter) {
    let lease = Duration::from_millis(300);
    let limit = Limit::slots(1).unwrap().with_lease(lease).unwrap();
    let policy = policy([Tier::new("gpu", Subject::global(), limit).unwrap()]);
    let begun = Instant::now();
    let dead = pass(limiter, &policy, &Demand::new()).await;
    loop {
        match limiter.acquire(&policy, &Demand::new()).await.unwrap() {
            Decision::Admitted(permit) => {
                assert!(lease <= begun.elapsed() + Duration::from_millis(2));
                assert_eq!(limiter.release(&dead).await.unwrap(), Settled::Gone);
                fail(limiter, &policy, &Demand::new()).await;
                assert_eq!(limiter.release(&permit).await.unwrap(), Settled::Done);
                return;
            }
            Decision::Rejected(_) => assert!(begun.elapsed() < Duration::from_secs(10)),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// More than a whole limit is told apart from what has to wait.
pub async fn what_never_fits_says_so(limiter: &dyn RateLimiter) {
    for limit in [
        Limit::new(100, HOUR, Unit::Tokens).unwrap().with_burst(50),
        Limit::fixed_window(50, HOUR, Unit::Tokens),
        Limit::sliding_window(50, HOUR, Unit::Tokens),
        Limit::calendar(50, Calendar::Hour, Unit::Tokens),
    ] {
        let policy = policy([requests(100), tier("tokens", limit)]);
        for tokens in [51, 1 << 53, u64::MAX] {
            let rejection = fail(limiter, &policy, &Demand::new().with_tokens(tokens)).await;
            assert_eq!((rejection.tier(), rejection.retry_after()), ("tokens", None));
        }
        let permit = pass(limiter, &policy, &Demand::new().with_tokens(50)).await;
        assert_eq!(permit.report().tier("tokens").unwrap().remaining, 0);
        limiter.reset(&policy).await.unwrap();
    }
}

/// Nothing is charged for nothing, and it passes a limit that is used up.
pub async fn a_weight_of_zero_is_free(limiter: &dyn RateLimiter) {
    let log = tier("log", Limit::sliding_log(1, HOUR));
    let window = tier("window", Limit::fixed_window(1, HOUR * 24, Unit::Requests));
    let policy = policy([requests(1), tokens(10), window, log]);
    let nothing = Demand::new().with(Unit::Requests, 0);
    pass(limiter, &policy, &nothing).await;
    pass(limiter, &policy, &Demand::new()).await;
    pass(limiter, &policy, &nothing).await;
    assert_eq!(left(limiter, &policy, "tokens").await, 10);
}

/// A dry run tells what it would reject.
pub async fn a_shadow_tier_rejects_nothing(limiter: &dyn RateLimiter) {
    let policy = policy([requests(10), tokens(5).shadow()]);
    let demand = Demand::new().with_tokens(3);
    assert_eq!(pass(limiter, &policy, &demand).await.report().tier("tokens").unwrap().remaining, 2);
    let permit = pass(limiter, &policy, &demand).await;
    let state = *permit.report().tier("tokens").unwrap();
    assert!(matches!(state.wait, Wait::For(_)), "{state:?}");
    assert_eq!(state.remaining, 2, "what it would reject is not charged to it");
    assert!(permit.report().limiting().is_none());
    assert_eq!(left(limiter, &policy, "requests").await, 8);
}

/// It answers as an acquisition would.
pub async fn a_peek_changes_nothing(limiter: &dyn RateLimiter) {
    let policy = policy([requests(2), slots(1)]);
    for _ in 0..5 {
        let report = limiter.peek(&policy, &Demand::new()).await.unwrap();
        assert!(report.limiting().is_none());
        assert_eq!(report.tier("requests").unwrap().remaining, 2);
    }
    let permit = pass(limiter, &policy, &Demand::new()).await;
    let report = limiter.peek(&policy, &Demand::new()).await.unwrap();
    assert_eq!(report.limiting().map(|(tier, _)| tier.name()), Some("gpu"));
    limiter.release(&permit).await.unwrap();
}

/// After a reset the limit is full and the slots are free.
pub async fn a_reset_forgets(limiter: &dyn RateLimiter) {
    let log = tier("log", Limit::sliding_log(1, HOUR));
    let policy = policy([requests(1), slots(1), log]);
    let permit = pass(limiter, &policy, &Demand::new()).await;
    fail(limiter, &policy, &Demand::new()).await;
    limiter.reset(&policy).await.unwrap();
    assert_eq!(limiter.release(&permit).await.unwrap(), Settled::Gone);
    let permit = pass(limiter, &policy, &Demand::new()).await;
    limiter.release(&permit).await.unwrap();
}

/// Another number takes over the state.
pub async fn a_changed_number_holds_at_once(limiter: &dyn RateLimiter) {
    let at = |amount| policy([requests(amount), slots(1)]);
    for _ in 0..4 {
        let permit = pass(limiter, &at(4), &Demand::new()).await;
        limiter.release(&permit).await.unwrap();
    }
    fail(limiter, &at(4), &Demand::new()).await;
    // All of the 4 is used up: of 8 by the same part, and half of 8 are left with twice the burst.
    let limit = Limit::new(4, YEAR, Unit::Requests).unwrap().with_burst(8);
    let larger = policy([tier("requests", limit), slots(1)]);
    assert_eq!(left(limiter, &larger, "requests").await, 4);
    let permit = pass(limiter, &larger, &Demand::new()).await;
    limiter.release(&permit).await.unwrap();
}

/// What one has used is not the other's.
pub async fn subjects_and_domains_are_kept_apart(limiter: &dyn RateLimiter) {
    let of = |domain: &str, subject: Subject| {
        let limit = Limit::new(1, HOUR, Unit::Requests).unwrap();
        Policy::new(domain).unwrap().with_tier(Tier::new("one", subject, limit).unwrap()).unwrap()
    };
    for domain in ["a", "b", "a:b"] {
        for subject in [
            Subject::user("x").unwrap(),
            Subject::user("y").unwrap(),
            Subject::team("x").unwrap(),
            Subject::global(),
        ] {
            pass(limiter, &of(domain, subject.clone()), &Demand::new()).await;
            fail(limiter, &of(domain, subject), &Demand::new()).await;
        }
    }
}

/// Any text is somebody's name, and nobody else's.
pub async fn hostile_names_are_names(limiter: &dyn RateLimiter) {
    let long = "n".repeat(512);
    let names = [
        "a:b",
        "a",
        "a}",
        "{a}",
        "a%3Ab",
        "*",
        "a b",
        "\n\r\n",
        "\0",
        "日本",
        "'; redis.call('FLUSHALL')",
        "request",
        "user=a",
        "../..",
        &long,
    ];
    for name in names {
        let subject = Subject::user(name).unwrap();
        let limit = Limit::new(1, HOUR, Unit::Requests).unwrap();
        let gpu = Tier::new("gpu", subject.clone(), Limit::slots(9).unwrap()).unwrap();
        let tiers = [Tier::new("one", subject, limit).unwrap(), gpu];
        let policy = tiers
            .into_iter()
            .fold(Policy::new(name).unwrap(), |all, tier| all.with_tier(tier).unwrap());
        let permit = pass(limiter, &policy, &Demand::once(name).unwrap()).await;
        fail(limiter, &policy, &Demand::new()).await;
        assert_eq!(limiter.release(&permit).await.unwrap(), Settled::Done, "{name:?}");
    }
}

/// There is nothing to decide.
pub async fn a_policy_without_tiers_is_refused(limiter: &dyn RateLimiter) {
    let policy = Policy::new("d").unwrap();
    let error = limiter.acquire(&policy, &Demand::new()).await.unwrap_err();
    assert!(matches!(error, Error::EmptyPolicy), "{error:?}");
    assert!(matches!(limiter.usage(&policy).await, Err(Error::EmptyPolicy)));
    assert!(matches!(limiter.reset(&policy).await, Err(Error::EmptyPolicy)));
}

/// After the time that a rejection names, the request passes.
pub async fn waiting_helps(limiter: &dyn RateLimiter) {
    let period = Duration::from_millis(200);
    for limit in [
        Limit::new(2, period, Unit::Requests),
        Limit::fixed_window(2, period, Unit::Requests),
        Limit::sliding_window(2, period, Unit::Requests),
        Limit::sliding_log(2, period),
    ] {
        let policy = policy([tier("one", limit)]);
        let mut waits = 0;
        while waits < 3 {
            let Err(rejection) =
                limiter.acquire(&policy, &Demand::new()).await.unwrap().into_permit()
            else {
                continue;
            };
            waits += 1;
            let wait = rejection.retry_after().unwrap();
            assert!(wait <= 2 * period, "{wait:?}");
            // The wait is counted from the decision, which lies before this.
            std::thread::sleep(wait);
            pass(limiter, &policy, &Demand::new()).await;
        }
    }
}

/// The largest policy works, and one more tier is refused.
pub async fn a_thousand_tiers_are_decided_together(limiter: &dyn RateLimiter) {
    for many_subjects in [false, true] {
        let mut policy = Policy::new("d").unwrap();
        for number in 0..1000 {
            let subject = if many_subjects { number } else { 0 };
            let limit = match number % 3 {
                0 => Limit::new(2, HOUR, Unit::Requests),
                1 => Limit::sliding_window(2, HOUR * 24 * 300, Unit::Requests),
                _ => Limit::calendar(2, Calendar::Month, Unit::Requests),
            };
            let subject = Subject::user(&format!("many {subject}")).unwrap();
            let tier = Tier::new(format!("t{number}"), subject, limit.unwrap()).unwrap();
            policy = policy.with_tier(tier).unwrap();
        }
        for _ in 0..2 {
            let permit = pass(limiter, &policy, &Demand::new()).await;
            assert_eq!(permit.report().tiers().count(), 1000);
        }
        fail(limiter, &policy, &Demand::new()).await;
        let error = policy.with_tier(requests(1)).unwrap_err();
        assert!(matches!(error, Error::TooManyTiers { max: 1000 }), "{error:?}");
    }
}

/// Concurrent callers share the limit exactly.
pub async fn many_tasks_never_pass_more_than_the_limit(limiter: &dyn RateLimiter) {
    let policy = policy([requests(50), tokens(10_000), slots(1000)]);
    let tasks = (0..16).map(|_| async {
        let mut passed = Vec::new();
        for _ in 0..10 {
            let demand = Demand::new().with_tokens(10);
            passed.extend(limiter.acquire(&policy, &demand).await.unwrap().into_permit());
        }
        passed
    });
    let passed: Vec<Permit> =
        futures_util::future::join_all(tasks).await.into_iter().flatten().collect();
    assert_eq!(passed.len(), 50);
    assert_eq!(left(limiter, &policy, "tokens").await, 9_500);
    assert_eq!(left(limiter, &policy, "gpu").await, 950);
    for permit in &passed {
        assert_eq!(limiter.release(permit).await.unwrap(), Settled::Done);
    }
    assert_eq!(left(limiter, &policy, "gpu").await, 1000);
}

/// A tenant's requests and tokens, and in another domain what all share.
fn spanning(own: u64, model: u64) -> Policy {
    let shared = Tier::new(
        "model",
        Subject::model("m").unwrap(),
        Limit::new(model, YEAR, Unit::Tokens).unwrap(),
    );
    let gpu = slots(2).in_domain("pool").unwrap();
    // What is the domain's own need not come first.
    policy([gpu, shared.unwrap().in_domain("pool").unwrap(), requests(own), tokens(1000)])
}

/// The own domain decides first, and the other is not charged where it rejects; settling reaches both.
pub async fn other_domains_are_asked_after_the_own(limiter: &dyn RateLimiter) {
    let policy = spanning(2, 1000);
    let first = pass(limiter, &policy, &Demand::new().with_tokens(100)).await;
    let tiers: Vec<_> = first.report().tiers().map(|(tier, _)| tier.name().to_owned()).collect();
    assert_eq!(tiers, ["gpu", "model", "requests", "tokens"]);
    assert_eq!(first.report().tier("model").unwrap().remaining, 900);
    assert_eq!(left(limiter, &policy, "gpu").await, 1);
    let settled = limiter.settle(&first, &Weights::new().with_tokens(30)).await.unwrap();
    assert_eq!((settled, first.is_settled()), (Settled::Done, true));
    assert_eq!(limiter.release(&first).await.unwrap(), Settled::Gone);
    for (tier, remaining) in [("model", 970), ("tokens", 970), ("gpu", 2), ("requests", 1)] {
        assert_eq!(left(limiter, &policy, tier).await, remaining, "{tier}");
    }
    let second = pass(limiter, &policy, &Demand::new().with_tokens(10)).await;
    let rejection = fail(limiter, &policy, &Demand::new().with_tokens(10)).await;
    assert_eq!(rejection.tier(), "requests");
    assert!(rejection.retry_after().is_some());
    assert_eq!(rejection.report().tier("model"), None, "it was not asked");
    assert_eq!(left(limiter, &policy, "model").await, 960);
    // Others who share the pool are counted in it, whatever their own domain.
    let mut other = Policy::new("other").unwrap();
    for tier in policy.tiers().iter().take(2) {
        other = other.with_tier(tier.clone()).unwrap();
    }
    assert_eq!(left(limiter, &other, "model").await, 960);
    assert_eq!(left(limiter, &other, "gpu").await, 1);
    limiter.refund(&second).await.unwrap();
    assert_eq!(left(limiter, &policy, "model").await, 970);
    assert_eq!(left(limiter, &policy, "requests").await, 1);
    limiter.reset(&policy).await.unwrap();
    assert_eq!(left(limiter, &policy, "model").await, 1000);
}

/// What the own domain charged is given back to the last unit, with and without an id.
pub async fn what_another_domain_rejects_is_given_back(limiter: &dyn RateLimiter) {
    let policy = spanning(5, 100);
    for demand in [Demand::new(), Demand::once("r").unwrap()] {
        let rejection = fail(limiter, &policy, &demand.with_tokens(101)).await;
        assert_eq!((rejection.tier(), rejection.retry_after()), ("model", None));
        assert_eq!(rejection.report().tier("requests").unwrap().remaining, 5);
        assert_eq!(rejection.report().tier("tokens").unwrap().remaining, 1000);
        for (tier, remaining) in [("model", 100), ("tokens", 1000), ("gpu", 2), ("requests", 5)] {
            assert_eq!(left(limiter, &policy, tier).await, remaining, "{tier}");
        }
    }
    // An id is charged once in both.
    let demand = Demand::once("r").unwrap().with_tokens(60);
    let first = pass(limiter, &policy, &demand).await;
    let again = pass(limiter, &policy, &demand).await;
    assert!(!first.is_replayed() && again.is_replayed());
    assert_eq!(left(limiter, &policy, "model").await, 40);
    assert_eq!(left(limiter, &policy, "requests").await, 4);
    limiter.refund(&again).await.unwrap();
    first.set_settled();
    assert_eq!(left(limiter, &policy, "gpu").await, 2);
    assert_eq!(left(limiter, &policy, "requests").await, 5);
}
