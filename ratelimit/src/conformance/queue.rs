//! The suite that every [`SlotQueue`] passes; list it with [`slot_queue_conformance!`](crate::slot_queue_conformance).
//!
//! Not covered by semver.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "a case fails by a panic"
)]

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::{
    Demand, HeldSlot, Limit, MemoryRateLimiter, Policy, Position, Queued, RateLimiterExt as _,
    Refusal, SlotPool, SlotQueue, SlotQueueExt as _, Standing, Subject, Tier, Unit, Waited, Waiter,
};

/// Makes a test of each case; `make` is an async function that makes a queue of a [`SlotPool`](crate::SlotPool) that nobody
/// uses, as `Arc<dyn SlotQueue>`.
#[macro_export]
macro_rules! slot_queue_conformance {
    ($make:path) => {
        $crate::slot_queue_conformance! { $make:
            slots_are_exclusive_and_handed_on, a_full_queue_and_a_short_wait_say_how_long_it_takes,
            a_dropped_waiter_leaves, shares_follow_weights_and_priorities,
            who_waits_can_ask_where_it_stands, who_is_over_its_limits_does_not_wait,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::queue::$case($make).await;
        }
    )*};
}

const LONG: Duration = Duration::from_secs(30);

fn waiter(tenant: &str) -> Waiter {
    Waiter::new(tenant).unwrap()
}

fn pool(slots: u32) -> SlotPool {
    SlotPool::new("gpu", slots).unwrap()
}

/// Waits until so many wait.
pub async fn until_waiting(queue: &Arc<dyn SlotQueue>, count: u64) {
    let begun = Instant::now();
    while queue.look().await.unwrap().waiting != count {
        assert!(begun.elapsed() < LONG, "{:?}, {count} expected", queue.look().await.unwrap());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Takes a slot.
pub async fn take(queue: &Arc<dyn SlotQueue>, who: &Waiter) -> HeldSlot {
    queue.acquire(who, LONG).await.unwrap().granted().unwrap()
}

/// Has the waiters wait one after the other for the one slot, and returns in which order they get it.
pub async fn order(queue: &Arc<dyn SlotQueue>, waiters: Vec<(String, Waiter)>) -> Vec<String> {
    let first = take(queue, &waiter("first")).await;
    let served = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = Vec::new();
    for (place, (name, who)) in waiters.into_iter().enumerate() {
        let (queue_, served) = (Arc::clone(queue), Arc::clone(&served));
        tasks.push(tokio::spawn(async move {
            let slot = take(&queue_, &who).await;
            served.lock().unwrap().push(name);
            slot.release().await.unwrap();
        }));
        until_waiting(queue, place as u64 + 1).await;
    }
    first.release().await.unwrap();
    for task in tasks {
        task.await.unwrap();
    }
    Arc::try_unwrap(served).unwrap().into_inner().unwrap()
}

/// A slot is held by one, and goes to the next who waits.
pub async fn slots_are_exclusive_and_handed_on<F: Future<Output = Arc<dyn SlotQueue>>>(
    make: impl Fn(SlotPool) -> F,
) {
    let queue = make(pool(2)).await;
    let (one, two) = (take(&queue, &waiter("a")).await, take(&queue, &waiter("b")).await);
    let third = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { take(&queue, &waiter("c")).await })
    };
    until_waiting(&queue, 1).await;
    let state = queue.look().await.unwrap();
    assert_eq!((state.held, state.waiting), (2, 1));
    assert!(!state.estimate.is_zero());
    one.release().await.unwrap();
    let three = third.await.unwrap();
    assert!(!three.is_lost());
    assert_eq!(queue.look().await.unwrap().held, 2);
    two.release().await.unwrap();
    // Dropped slots are given back too.
    drop(three);
    let begun = Instant::now();
    while queue.look().await.unwrap().held != 0 {
        assert!(begun.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(queue.look().await.unwrap().estimate.is_zero());
}

/// Who finds no place, or waits in vain, learns about how long it takes.
pub async fn a_full_queue_and_a_short_wait_say_how_long_it_takes<
    F: Future<Output = Arc<dyn SlotQueue>>,
>(
    make: impl Fn(SlotPool) -> F,
) {
    let queue = make(pool(1).with_max_waiting(1)).await;
    let slot = take(&queue, &waiter("a")).await;
    let Queued::Refused { reason, estimate, .. } =
        queue.acquire(&waiter("b"), Duration::ZERO).await.unwrap()
    else {
        panic!("it is held")
    };
    assert_eq!(reason, Refusal::TimedOut);
    assert!(!estimate.is_zero());
    let short = queue.acquire(&waiter("b"), Duration::from_millis(40)).await.unwrap();
    assert!(matches!(short, Queued::Refused { reason: Refusal::TimedOut, .. }), "{short:?}");
    assert_eq!(queue.look().await.unwrap().waiting, 0, "who gave up has left");
    let waits = {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move { take(&queue, &waiter("b")).await })
    };
    until_waiting(&queue, 1).await;
    let full = queue.acquire(&waiter("c"), LONG).await.unwrap();
    assert!(matches!(full, Queued::Refused { reason: Refusal::Full, .. }), "{full:?}");
    slot.release().await.unwrap();
    waits.await.unwrap().release().await.unwrap();
}

/// Dropping the future leaves the queue.
pub async fn a_dropped_waiter_leaves<F: Future<Output = Arc<dyn SlotQueue>>>(
    make: impl Fn(SlotPool) -> F,
) {
    let queue = make(pool(1)).await;
    let slot = take(&queue, &waiter("a")).await;
    for _ in 0..3 {
        let who = waiter("b");
        let waiting = queue.acquire(&who, LONG);
        assert!(tokio::time::timeout(Duration::from_millis(30), waiting).await.is_err());
    }
    until_waiting(&queue, 0).await;
    slot.release().await.unwrap();
    take(&queue, &waiter("c")).await.release().await.unwrap();
}

/// Tenants are served by weight, lower priorities have their turn.
pub async fn shares_follow_weights_and_priorities<F: Future<Output = Arc<dyn SlotQueue>>>(
    make: impl Fn(SlotPool) -> F,
) {
    let queue = make(pool(1)).await;
    let heavy = |number: usize| (format!("b{number}"), waiter("b").with_weight(2.0).unwrap());
    let light = |number: usize| (format!("a{number}"), waiter("a"));
    let later = |number: usize| (format!("p{number}"), waiter("p").with_priority(1));
    let mut waiters: Vec<_> = (0..2).map(later).collect();
    waiters.extend((0..12).map(light));
    waiters.extend((0..6).map(heavy));
    let served = order(&queue, waiters).await;
    let kinds: String = served.iter().map(|name| name.chars().next().unwrap()).collect();
    // Twice as many of the heavy as of the light while both wait, though all of the light came first; of each eight
    // hand-offs the ninth goes to the lower priority.
    let before: String = kinds.chars().take(9).filter(|kind| *kind != 'p').collect();
    let count = |kind: char| before.chars().filter(|found| *found == kind).count();
    assert!((5..=6).contains(&count('b')) && (2..=4).contains(&count('a')), "{kinds}");
    assert!(!kinds.starts_with("p"), "{kinds}");
    assert_eq!(kinds.find('p'), Some(8), "{kinds}");
    assert_eq!(kinds.rfind('p'), Some(17), "{kinds}");
    // Of one tenant, who came first is first.
    let of_a: Vec<_> = served.iter().filter(|name| name.starts_with('a')).cloned().collect();
    assert_eq!(of_a, (0..12).map(|number| format!("a{number}")).collect::<Vec<_>>());
}

/// The place is told while it waits, and only then.
pub async fn who_waits_can_ask_where_it_stands<F: Future<Output = Arc<dyn SlotQueue>>>(
    make: impl Fn(SlotPool) -> F,
) {
    let queue = make(pool(1)).await;
    let slot = take(&queue, &waiter("a")).await;
    let standings: Vec<_> = (0..3).map(|_| Standing::new()).collect();
    let mut tasks = Vec::new();
    for (place, standing) in standings.iter().enumerate() {
        assert_eq!(standing.position(), None);
        let (queue_, who) = (Arc::clone(&queue), waiter("b").with_standing(standing));
        tasks.push(tokio::spawn(async move { take(&queue_, &who).await }));
        until_waiting(&queue, place as u64 + 1).await;
        let begun = Instant::now();
        while standing.position().is_none_or(|position| position.ahead != place as u64) {
            assert!(begun.elapsed() < LONG, "{:?}", standing.position());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let last = standings[2].position().unwrap();
    assert!(!last.estimate.is_zero(), "{last:?}");
    slot.release().await.unwrap();
    let first = tasks.remove(0).await.unwrap();
    assert_eq!(standings[0].position(), None, "it waits no more");
    let begun = Instant::now();
    while !matches!(standings[2].position(), Some(Position { ahead: 1, .. })) {
        assert!(begun.elapsed() < LONG, "{:?}", standings[2].position());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    first.release().await.unwrap();
    tasks.remove(0).await.unwrap().release().await.unwrap();
    tasks.remove(0).await.unwrap().release().await.unwrap();
}

/// A policy and a queue together: limits are told at once, and what waited in vain is charged nothing.
pub async fn who_is_over_its_limits_does_not_wait<F: Future<Output = Arc<dyn SlotQueue>>>(
    make: impl Fn(SlotPool) -> F,
) {
    let queue = make(pool(1)).await;
    let limiter = MemoryRateLimiter::new();
    let limit = Limit::new(100, Duration::from_secs(365 * 24 * 3600), Unit::Tokens).unwrap();
    let tier = Tier::new("tokens", Subject::user("ann").unwrap(), limit).unwrap();
    let policy = Policy::new("d").unwrap().with_tier(tier).unwrap();
    let left = async || limiter.usage(&policy).await.unwrap().tier("tokens").unwrap().remaining;
    let who = waiter("ann");
    let ask = |tokens, wait| {
        let demand = Demand::new().with_tokens(tokens);
        let (queue, limiter, policy, who) = (&queue, &limiter, &policy, &who);
        async move { queue.acquire_wait(limiter, policy, &demand, who, wait).await.unwrap() }
    };
    let Waited::Admitted { permit, slot, .. } = ask(60, LONG).await else { panic!("it is free") };
    assert_eq!(left().await, 40);
    let begun = Instant::now();
    let Waited::Rejected(rejection) = ask(60, LONG).await else { panic!("40 are left") };
    assert_eq!(rejection.tier(), "tokens");
    assert!(begun.elapsed() < LONG / 2, "it does not wait");
    let Waited::Refused { reason, .. } = ask(40, Duration::from_millis(50)).await else {
        panic!("the slot is held")
    };
    assert_eq!((reason, left().await), (Refusal::TimedOut, 40));
    limiter.refund(&permit).await.unwrap();
    slot.release().await.unwrap();
    assert_eq!(left().await, 100);
    assert_eq!(queue.look().await.unwrap().held, 0);
}
