//! The suite that every implementation of [`EventBus`] passes.
//!
//! What Watermill's tests ask of every Pub/Sub is in here: several subscribers at once (`consumers_share_a_group`), groups
//! (`every_group_gets_every_event`), going on after a close (`stopping_finishes_what_is_under_way`,
//! `stopping_gives_back_what_takes_too_long`), after an error (`failures_are_retried_and_then_buried`) and after a death
//! (`what_a_dead_consumer_left_is_handled`), order (`order_is_kept_by_subject`), and at least once
//! (`what_is_not_acknowledged_comes_again`).
//!
//! It is called by [`event_bus_conformance`](crate::event_bus_conformance); not covered by semver.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "cases of a suite fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use inferkit_core::{MemoryLeases, SystemClock};
use serde::{Deserialize, Serialize};

use crate::{
    Consumer, ConsumerConfig, Delivery, Error, Event, EventBus, Failure, Reader, Start, Topic,
    Trim, handler,
};

/// Names a test per case; `$make` is an `async fn` that returns an empty bus.
#[macro_export]
macro_rules! event_bus_conformance {
    ($make:path) => {
        $crate::event_bus_conformance! { @ $make:
            events_come_back_as_they_were, every_group_gets_every_event, consumers_share_a_group,
            what_is_not_acknowledged_comes_again, signs_of_life_keep_events, retries_come_when_they_are_due,
            dead_letters_wait_and_go_back_to_their_group, an_id_is_published_once, groups_begin_where_they_should,
            subjects_keep_their_order, trimming_spares_what_groups_need, a_group_that_begins_at_a_time_is_spared, a_hard_limit_names_who_lost,
            partitions_tell_how_they_stand, a_consumer_with_deliveries_stays, readers_are_woken,
            a_group_that_is_not_there_is_an_error, bad_names_are_refused, consumers_are_counted,
            a_consumer_handles_everything, failures_are_retried_and_then_buried, slow_work_is_not_taken_over,
            stopping_finishes_what_is_under_way, stopping_gives_back_what_takes_too_long,
            what_a_dead_consumer_left_is_handled, order_is_kept_by_subject, enums_are_events,
            deliveries_are_a_stream,
        }
    };
    (@ $make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(std::sync::Arc::new($make().await)).await;
        }
    )*};
}

type Bus = Arc<dyn EventBus>;

const NO_WAIT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3_600);

fn topic(partitions: u16) -> Topic {
    Topic::new("training").unwrap().with_partitions(partitions).unwrap()
}

fn event(n: u64) -> Event {
    Event::new("epoch_complete", "trainer/1", &n).unwrap()
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn numbers(deliveries: &[Delivery]) -> Vec<u64> {
    deliveries.iter().map(|delivery| delivery.event.as_ref().unwrap().data().unwrap()).collect()
}

async fn publish(bus: &Bus, topic: &Topic, numbers: std::ops::Range<u64>) {
    let events: Vec<Event> = numbers.map(event).collect();
    bus.publish(topic, &events).await.unwrap();
}

/// What is published comes back, whatever it holds.
pub async fn events_come_back_as_they_were(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let texts = ["a", "ünï 🙂", "a:b}", "*", "\"quoted\""];
    for text in texts {
        let data = serde_json::json!({"text": text, "numbers": [1, 2.5, null]});
        let event = Event::new(text, format!("source {text}"), &data).unwrap().about(text).unwrap();
        let event = event.with_id(format!("id {text}")).unwrap().at(SystemTime::now());
        let entries = bus.publish(&topic, std::slice::from_ref(&event)).await.unwrap();
        let read = bus.read(Reader::new(&topic, 0, "g", "c"), 10, NO_WAIT).await.unwrap();
        let [delivery] = &read[..] else { unreachable!("{read:?}") };
        assert_eq!((delivery.entry, delivery.attempt, delivery.partition), (entries[0], 1, 0));
        let read = delivery.event.as_ref().unwrap();
        let apart =
            read.time().duration_since(event.time()).unwrap_or_else(|error| error.duration());
        assert!(apart < Duration::from_micros(2));
        assert_eq!(read, &event.clone().at(read.time()));
        assert_eq!(read.data::<serde_json::Value>().unwrap(), data);
        assert!(matches!(read.data::<u64>(), Err(Error::Data { .. })));
    }
}

/// Groups do not take events from each other.
pub async fn every_group_gets_every_event(bus: Bus) {
    let topic = topic(1);
    for group in ["evaluator", "monitor"] {
        bus.create_group(&topic, group, Start::Beginning).await.unwrap();
    }
    publish(&bus, &topic, 0..5).await;
    for group in ["evaluator", "monitor"] {
        let read = bus.read(Reader::new(&topic, 0, group, "c"), 10, NO_WAIT).await.unwrap();
        assert_eq!(numbers(&read), [0, 1, 2, 3, 4]);
    }
}

/// An event goes to one consumer of a group.
pub async fn consumers_share_a_group(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..5).await;
    let read = async |consumer, count| {
        let reader = Reader::new(&topic, 0, "g", consumer);
        numbers(&bus.read(reader, count, NO_WAIT).await.unwrap())
    };
    assert_eq!(read("a", 2).await, [0, 1]);
    assert_eq!(read("b", 10).await, [2, 3, 4]);
    assert_eq!(read("a", 10).await, [0_u64; 0]);
}

/// What a consumer took and never acknowledged goes to another, after a while; what it acknowledged never.
pub async fn what_is_not_acknowledged_comes_again(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..6).await;
    let (a, b) = (Reader::new(&topic, 0, "g", "a"), Reader::new(&topic, 0, "g", "b"));
    let read = bus.read(a, 4, NO_WAIT).await.unwrap();
    assert_eq!(bus.ack(a, &[read[1].entry]).await.unwrap(), 1);
    assert_eq!(bus.ack(a, &[read[1].entry]).await.unwrap(), 0);
    assert_eq!(bus.claim(b, LONG, None, 10).await.unwrap().deliveries, []);
    tokio::time::sleep(millis(60)).await;
    let claimed = bus.claim(b, millis(50), None, 2).await.unwrap();
    assert_eq!(numbers(&claimed.deliveries), [0, 2]);
    assert_eq!(claimed.deliveries[0].attempt, 2);
    let claimed = bus.claim(b, millis(50), claimed.next, 10).await.unwrap();
    assert_eq!((numbers(&claimed.deliveries), claimed.next), (vec![3], None));
    // What was never read is no claim's business.
    assert_eq!(numbers(&bus.read(b, 10, NO_WAIT).await.unwrap()), [4, 5]);
}

/// A consumer that says that it works keeps its events.
pub async fn signs_of_life_keep_events(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..2).await;
    let (a, b) = (Reader::new(&topic, 0, "g", "a"), Reader::new(&topic, 0, "g", "b"));
    let read = bus.read(a, 2, NO_WAIT).await.unwrap();
    for _ in 0..9 {
        tokio::time::sleep(millis(100)).await;
        bus.extend(a, &[read[0].entry]).await.unwrap();
    }
    let claimed = bus.claim(b, millis(700), None, 10).await.unwrap();
    assert_eq!(numbers(&claimed.deliveries), [1]);
}

/// A delivery that was put off comes then, and not before, however long nobody was heard of.
pub async fn retries_come_when_they_are_due(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..3).await;
    let reader = Reader::new(&topic, 0, "g", "a");
    let read = bus.read(reader, 3, NO_WAIT).await.unwrap();
    bus.retry(reader, read[0].entry, millis(1_500)).await.unwrap();
    bus.retry(reader, read[1].entry, NO_WAIT).await.unwrap();
    bus.ack(reader, &[read[2].entry]).await.unwrap();
    let start = Instant::now();
    let claimed = bus.claim(reader, LONG, None, 10).await.unwrap();
    assert_eq!(numbers(&claimed.deliveries), [1]);
    bus.ack(reader, &[read[1].entry]).await.unwrap();
    loop {
        let claimed = bus.claim(reader, millis(1), None, 10).await.unwrap();
        if !claimed.deliveries.is_empty() {
            assert_eq!((numbers(&claimed.deliveries), claimed.deliveries[0].attempt), (vec![0], 2));
            assert!(millis(1_400) <= start.elapsed(), "{:?}", start.elapsed());
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(millis(10)).await;
    }
    // One that was acknowledged is not put off.
    bus.ack(reader, &[read[0].entry]).await.unwrap();
    bus.retry(reader, read[0].entry, NO_WAIT).await.unwrap();
    assert_eq!(bus.claim(reader, NO_WAIT, None, 10).await.unwrap().deliveries, []);
}

/// A dead letter says why, is taken back by its group alone, and can be purged.
pub async fn dead_letters_wait_and_go_back_to_their_group(bus: Bus) {
    let topic = topic(1);
    for group in ["g", "other"] {
        bus.create_group(&topic, group, Start::Beginning).await.unwrap();
    }
    publish(&bus, &topic, 0..3).await;
    let (g, other) = (Reader::new(&topic, 0, "g", "a"), Reader::new(&topic, 0, "other", "a"));
    let read = bus.read(g, 3, NO_WAIT).await.unwrap();
    assert_eq!(bus.read(other, 3, NO_WAIT).await.unwrap().len(), 3);
    assert!(bus.bury(g, &read[0], "no such model").await.unwrap());
    assert!(!bus.bury(g, &read[0], "no such model").await.unwrap());
    assert!(bus.bury(g, &read[1], "no GPU").await.unwrap());
    let letters = bus.dead_letters(&topic, 0, None, 10).await.unwrap();
    let said: Vec<_> =
        letters.iter().map(|letter| (letter.reason.as_str(), letter.group.as_str())).collect();
    assert_eq!(said, [("no such model", "g"), ("no GPU", "g")]);
    assert_eq!((letters[0].origin, letters[0].attempts), (read[0].entry, 1));
    assert_eq!(letters[0].event, read[0].event);
    let second = bus.dead_letters(&topic, 0, Some(letters[0].entry), 10).await.unwrap();
    assert_eq!(second, letters[1..]);
    assert!(bus.requeue(&topic, &letters[0]).await.unwrap());
    assert!(!bus.requeue(&topic, &letters[0]).await.unwrap());
    assert_eq!(bus.read(other, 10, NO_WAIT).await.unwrap(), []);
    let again = bus.read(g, 10, NO_WAIT).await.unwrap();
    assert_eq!(numbers(&again), [0]);
    assert_eq!(again[0].idempotency_key(), read[0].idempotency_key());
    // Nobody waits for what was left out.
    assert_eq!(bus.status(&topic).await.unwrap()[0].groups["other"].pending, 3);
    assert_eq!(bus.purge(&topic, 0, &[letters[0].entry, letters[1].entry]).await.unwrap(), 1);
    assert_eq!(bus.dead_letters(&topic, 0, None, 10).await.unwrap(), []);
    assert!(matches!(bus.dead_letters(&topic, 7, None, 10).await, Err(Error::NoPartition { .. })));
}

/// An event that is published again with the same id is there once.
pub async fn an_id_is_published_once(bus: Bus) {
    let topic = topic(4);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let events: Vec<Event> =
        (0..20).map(|n| event(n).with_id(format!("run-{n}")).unwrap()).collect();
    let first = bus.publish_once(&topic, &events).await.unwrap();
    assert!(first.iter().all(Option::is_some));
    let second = bus.publish_once(&topic, &events).await.unwrap();
    assert!(second.iter().all(Option::is_none));
    let lengths: u64 =
        bus.status(&topic).await.unwrap().iter().map(|partition| partition.length).sum();
    assert_eq!(lengths, 20);
}

/// A new group begins at the beginning, now, at a time, or behind an entry; one that is there stays.
pub async fn groups_begin_where_they_should(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..2).await;
    tokio::time::sleep(millis(5)).await;
    let entries = bus.publish(&topic, &[event(2), event(3)]).await.unwrap();
    let starts = [
        ("beginning", Start::Beginning, vec![0, 1, 2, 3, 9]),
        ("now", Start::Now, vec![9]),
        ("millis", Start::Millis(entries[0].millis), vec![2, 3, 9]),
        ("after", Start::After(entries[0]), vec![3, 9]),
    ];
    for (group, start, _) in &starts {
        bus.create_group(&topic, group, *start).await.unwrap();
    }
    publish(&bus, &topic, 9..10).await;
    for (group, _, expected) in starts {
        bus.create_group(&topic, group, Start::Now).await.unwrap();
        let read = bus.read(Reader::new(&topic, 0, group, "c"), 10, NO_WAIT).await.unwrap();
        assert_eq!(numbers(&read), expected, "{group}");
    }
}

/// Events of a subject are in one partition, in order; and subjects are spread.
pub async fn subjects_keep_their_order(bus: Bus) {
    let topic = topic(4);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let events: Vec<Event> =
        (0..200).map(|n| event(n).about(format!("model {}", n % 20)).unwrap()).collect();
    bus.publish(&topic, &events).await.unwrap();
    let mut partitions: BTreeMap<String, BTreeSet<u16>> = BTreeMap::new();
    let mut last: BTreeMap<String, u64> = BTreeMap::new();
    let mut used = BTreeSet::new();
    for partition in 0..4 {
        let reader = Reader::new(&topic, partition, "g", "c");
        for delivery in bus.read(reader, 1_000, NO_WAIT).await.unwrap() {
            let event = delivery.event.unwrap();
            let (subject, n) = (event.subject().unwrap().to_owned(), event.data::<u64>().unwrap());
            assert!(last.insert(subject.clone(), n).is_none_or(|before| before < n));
            partitions.entry(subject).or_default().insert(partition);
            used.insert(partition);
        }
    }
    assert_eq!((partitions.len(), used.len()), (20, 4));
    assert!(partitions.values().all(|partitions| partitions.len() == 1));
}

/// Old events go, but none that a group has not acknowledged.
pub async fn trimming_spares_what_groups_need(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..10).await;
    for group in ["slow", "fast"] {
        bus.create_group(&topic, group, Start::Beginning).await.unwrap();
    }
    let (slow, fast) = (Reader::new(&topic, 0, "slow", "c"), Reader::new(&topic, 0, "fast", "c"));
    let all: Vec<_> =
        bus.read(fast, 10, NO_WAIT).await.unwrap().iter().map(|one| one.entry).collect();
    bus.ack(fast, &all).await.unwrap();
    let read = bus.read(slow, 5, NO_WAIT).await.unwrap();
    // The third one is not done, and five were not read.
    bus.ack(slow, &[read[0].entry, read[1].entry, read[3].entry, read[4].entry]).await.unwrap();
    let trimmed = bus.trim(&topic, Trim::new().longer_than(1)).await.unwrap();
    assert_eq!(
        (trimmed.removed, trimmed.held_by, trimmed.overrun),
        (2, vec!["slow".to_owned()], vec![])
    );
    bus.ack(slow, &[read[2].entry]).await.unwrap();
    tokio::time::sleep(millis(5)).await;
    let trimmed = bus.trim(&topic, Trim::new().older_than(Duration::ZERO)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.held_by), (3, vec!["slow".to_owned()]));
    assert_eq!(numbers(&bus.read(slow, 10, NO_WAIT).await.unwrap()), [5, 6, 7, 8, 9]);
    bus.ack(slow, &all).await.unwrap();
    let trimmed = bus.trim(&topic, Trim::new().longer_than(2)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.held_by), (3, vec![]));
    assert_eq!(bus.trim(&topic, Trim::new().older_than(LONG)).await.unwrap().removed, 0);
    assert_eq!(bus.trim(&topic, Trim::new()).await.unwrap().removed, 0);
    assert_eq!(bus.status(&topic).await.unwrap()[0].length, 2);
    let trimmed = bus.trim(&topic, Trim::new().longer_than(0)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.held_by), (2, vec![]));
    // What comes afterwards is read, though everything was removed.
    publish(&bus, &topic, 20..21).await;
    assert_eq!(numbers(&bus.read(slow, 10, NO_WAIT).await.unwrap()), [20]);
}

/// A group that begins at a time holds what came from then on, and lets go of what came before.
pub async fn a_group_that_begins_at_a_time_is_spared(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..3).await;
    tokio::time::sleep(millis(5)).await;
    let entries = bus.publish(&topic, &[event(3), event(4)]).await.unwrap();
    bus.create_group(&topic, "g", Start::Millis(entries[0].millis)).await.unwrap();
    let trimmed = bus.trim(&topic, Trim::new().longer_than(1)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.held_by), (3, vec!["g".to_owned()]));
    tokio::time::sleep(millis(5)).await;
    let trimmed = bus.trim(&topic, Trim::new().older_than(Duration::ZERO)).await.unwrap();
    assert_eq!(trimmed.removed, 0);
    let read = bus.read(Reader::new(&topic, 0, "g", "c"), 10, NO_WAIT).await.unwrap();
    assert_eq!(numbers(&read), [3, 4]);
}

/// A hard limit is kept, and who lost events is named.
pub async fn a_hard_limit_names_who_lost(bus: Bus) {
    let topic = topic(1);
    for group in ["dead", "alive"] {
        bus.create_group(&topic, group, Start::Beginning).await.unwrap();
    }
    publish(&bus, &topic, 0..20).await;
    let alive = Reader::new(&topic, 0, "alive", "c");
    let all: Vec<_> =
        bus.read(alive, 20, NO_WAIT).await.unwrap().iter().map(|one| one.entry).collect();
    bus.ack(alive, &all).await.unwrap();
    let trimmed = bus.trim(&topic, Trim::new().longer_than(5).hard_limit(8)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.overrun), (12, vec!["dead".to_owned()]));
    assert_eq!(trimmed.held_by, ["dead"]);
    let dead = Reader::new(&topic, 0, "dead", "c");
    assert_eq!(numbers(&bus.read(dead, 100, NO_WAIT).await.unwrap()), (12..20).collect::<Vec<_>>());
}

/// Lag, deliveries under way, consumers and dead letters are told.
pub async fn partitions_tell_how_they_stand(bus: Bus) {
    let topic = topic(2);
    assert_eq!(bus.status(&topic).await.unwrap()[0].length, 0);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let events: Vec<Event> = (0..6).map(|n| event(n).about("one").unwrap()).collect();
    bus.publish(&topic, &events).await.unwrap();
    let partition = topic.partition_of(&events[0]);
    let (a, b) =
        (Reader::new(&topic, partition, "g", "a"), Reader::new(&topic, partition, "g", "b"));
    let read = bus.read(a, 2, NO_WAIT).await.unwrap();
    let other = bus.read(b, 1, NO_WAIT).await.unwrap();
    bus.bury(b, &other[0], "bad").await.unwrap();
    bus.ack(a, &[read[0].entry]).await.unwrap();
    let status = bus.status(&topic).await.unwrap();
    let own = &status[usize::from(partition)];
    assert_eq!((own.length, own.dead), (6, 1));
    let group = &own.groups["g"];
    assert_eq!((group.lag, group.pending, group.oldest_pending), (3, 1, Some(read[1].entry)));
    assert_eq!(group.consumers.get("a"), Some(&1));
    assert_eq!(status[usize::from(1 - partition)].length, 0);
}

/// A consumer that has deliveries is not removed, since they would be lost.
pub async fn a_consumer_with_deliveries_stays(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..1).await;
    let a = Reader::new(&topic, 0, "g", "a");
    let read = bus.read(a, 1, NO_WAIT).await.unwrap();
    assert!(!bus.leave(a).await.unwrap());
    let claimed = bus.claim(Reader::new(&topic, 0, "g", "b"), NO_WAIT, None, 1).await.unwrap();
    assert_eq!(claimed.deliveries[0].entry, read[0].entry);
    assert!(bus.leave(a).await.unwrap());
    assert!(bus.leave(a).await.unwrap());
}

/// A reader that waits gets what is published meanwhile, soon.
pub async fn readers_are_woken(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let start = Instant::now();
    let reader = Reader::new(&topic, 0, "g", "c");
    assert_eq!(bus.read(reader, 1, millis(100)).await.unwrap(), []);
    assert!(millis(90) <= start.elapsed());
    let (read, ()) = tokio::join!(bus.read(reader, 1, Duration::from_secs(20)), async {
        tokio::time::sleep(millis(50)).await;
        publish(&bus, &topic, 0..1).await;
    });
    assert_eq!(numbers(&read.unwrap()), [0]);
    assert!(start.elapsed() < Duration::from_secs(5));
}

/// A group that nobody created is told.
pub async fn a_group_that_is_not_there_is_an_error(bus: Bus) {
    let topic = topic(1);
    let reader = Reader::new(&topic, 0, "nobody", "c");
    assert!(matches!(bus.read(reader, 1, NO_WAIT).await, Err(Error::NoGroup { .. })));
    publish(&bus, &topic, 0..1).await;
    assert!(matches!(bus.read(reader, 1, millis(50)).await, Err(Error::NoGroup { .. })));
    assert!(matches!(bus.claim(reader, NO_WAIT, None, 1).await, Err(Error::NoGroup { .. })));
}

/// Names that say nothing are refused.
pub async fn bad_names_are_refused(bus: Bus) {
    assert!(Topic::new("").is_err() && Topic::new("a\nb").is_err());
    assert!(Topic::new("t").unwrap().with_partitions(0).is_err());
    assert!(Event::new(" ", "s", &0).is_err() && Event::new("t", "", &0).is_err());
    assert!(event(0).about("").is_err() && event(0).with_id("x".repeat(300)).is_err());
    assert!(bus.create_group(&topic(1), "", Start::Now).await.is_err());
    let topic = topic(2);
    let reader = Reader::new(&topic, 2, "g", "c");
    assert!(matches!(bus.read(reader, 1, NO_WAIT).await, Err(Error::NoPartition { .. })));
}

/// Consumers that live are counted, and those that left or fell silent are not.
pub async fn consumers_are_counted(bus: Bus) {
    let topic = topic(1);
    let say = async |consumer, ttl| bus.announce(&topic, "g", consumer, ttl).await.unwrap();
    assert_eq!(say("a", LONG).await, 1);
    assert_eq!(say("b", millis(50)).await, 2);
    tokio::time::sleep(millis(80)).await;
    assert_eq!(say("c", LONG).await, 2);
    assert_eq!(say("a", NO_WAIT).await, 1);
    assert_eq!(bus.announce(&topic, "other", "a", LONG).await.unwrap(), 1);
}

fn config(group: &str) -> ConsumerConfig {
    ConsumerConfig::new(group)
        .look_every(millis(20))
        .claim_after(millis(400))
        .backoff(millis(30), millis(120))
}

/// Waits until a condition holds.
async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(millis(10)).await;
    }
}

async fn is_drained(bus: &Bus, topic: &Topic, group: &str) -> bool {
    let status = bus.status(topic).await.unwrap();
    status.iter().all(|partition| {
        partition.groups.get(group).is_some_and(|group| group.lag == 0 && group.pending == 0)
    })
}

/// All events of all partitions are handled, and acknowledged.
pub async fn a_consumer_handles_everything(bus: Bus) {
    let topic = topic(3);
    publish(&bus, &topic, 0..100).await;
    let seen = Mutex::new(BTreeSet::new());
    let consumer = Consumer::new(Arc::clone(&bus), topic.clone(), config("g"));
    let handle = handler(|delivery| {
        let n: u64 = delivery.event.unwrap().data().unwrap();
        seen.lock().unwrap().insert(n);
        async { Ok(()) }
    });
    let stop = async {
        publish(&bus, &topic, 100..200).await;
        until("everything is acknowledged", async || {
            seen.lock().unwrap().len() == 200 && is_drained(&bus, &topic, "g").await
        })
        .await;
    };
    let ran = consumer.run(&handle, stop).await.unwrap();
    assert_eq!((ran.handled, ran.retried, ran.buried), (200, 0, 0));
    assert_eq!(bus.status(&topic).await.unwrap()[0].groups["g"].consumers.len(), 0);
}

/// What fails comes again, later each time, and is given up after exactly so many deliveries; others are not held up.
pub async fn failures_are_retried_and_then_buried(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..6).await;
    let tries = Mutex::new(BTreeMap::<u64, Vec<Instant>>::new());
    let consumer = Consumer::new(Arc::clone(&bus), topic.clone(), config("g").max_attempts(3));
    let handle = handler(|delivery| {
        let n: u64 = delivery.event.unwrap().data().unwrap();
        let mut tries = tries.lock().unwrap();
        let times = tries.entry(n).or_default();
        times.push(Instant::now());
        assert_eq!(times.len(), delivery.attempt as usize);
        let outcome = match (n, times.len()) {
            (1, _) => Err(Failure::from("it never works")),
            (2, 1 | 2) => Err(Failure::from("not yet")),
            (3, _) => Err(Failure::reject("no such model")),
            _ => Ok(()),
        };
        async { outcome }
    });
    let stop = until("everything is decided", async || is_drained(&bus, &topic, "g").await);
    let ran = consumer.run(&handle, stop).await.unwrap();
    assert_eq!((ran.handled, ran.retried, ran.buried), (4, 4, 2));
    let tries = tries.lock().unwrap().clone();
    let counts: Vec<usize> = tries.values().map(Vec::len).collect();
    assert_eq!(counts, [1, 3, 3, 1, 1, 1]);
    // A server counts whole milliseconds.
    assert!(millis(28) <= tries[&1][1] - tries[&1][0] && millis(58) <= tries[&1][2] - tries[&1][1]);
    let letters = bus.dead_letters(&topic, 0, None, 10).await.unwrap();
    let mut said: Vec<_> =
        letters.iter().map(|letter| (letter.reason.clone(), letter.attempts)).collect();
    said.sort();
    let expected = [("attempt 3 failed: it never works", 3), ("no such model", 1)];
    assert_eq!(said, expected.map(|(reason, attempts)| (reason.to_owned(), attempts)));
}

/// A handler that takes longer than the time to claim is left alone.
pub async fn slow_work_is_not_taken_over(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..2).await;
    let calls = AtomicU32::new(0);
    let handle = handler(|_| {
        calls.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(millis(2_500)).await;
            Ok(())
        }
    });
    let consumer = |name: &str| {
        Consumer::new(
            Arc::clone(&bus),
            topic.clone(),
            config("g").claim_after(millis(1_000)).named(name),
        )
    };
    let drained = || until("everything is done", async || is_drained(&bus, &topic, "g").await);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let (a, b) = (consumer("a"), consumer("b"));
    let (a, b) = tokio::join!(a.run(&handle, drained()), b.run(&handle, drained()));
    assert_eq!(a.unwrap().handled + b.unwrap().handled, 2);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

/// What is under way when the consumer is stopped is finished and acknowledged.
pub async fn stopping_finishes_what_is_under_way(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..50).await;
    let begun = AtomicU32::new(0);
    let consumer = Consumer::new(Arc::clone(&bus), topic.clone(), config("g").concurrency(4));
    let handle = handler(|_| {
        begun.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(millis(100)).await;
            Ok(())
        }
    });
    let stop = until("some are under way", async || 4 <= begun.load(Ordering::SeqCst));
    let ran = consumer.run(&handle, stop).await.unwrap();
    let begun = u64::from(begun.load(Ordering::SeqCst));
    assert!(begun < 50 && ran.handled == begun, "{ran:?} of {begun}");
    let group = &bus.status(&topic).await.unwrap()[0].groups["g"];
    assert_eq!(group.pending, ran.released);
}

/// What takes longer than the grace is given back, and others get it at once.
pub async fn stopping_gives_back_what_takes_too_long(bus: Bus) {
    let topic = topic(1);
    publish(&bus, &topic, 0..1).await;
    let begun = AtomicU32::new(0);
    let slow = config("g").grace(millis(50)).claim_after(LONG).named("slow");
    let consumer = Consumer::new(Arc::clone(&bus), topic.clone(), slow);
    let handle = handler(|_| {
        begun.fetch_add(1, Ordering::SeqCst);
        async {
            tokio::time::sleep(LONG).await;
            Ok(())
        }
    });
    let stop = until("it is under way", async || 1 <= begun.load(Ordering::SeqCst));
    let ran = consumer.run(&handle, stop).await.unwrap();
    assert_eq!((ran.handled, ran.released), (0, 1));
    let claimed = bus.claim(Reader::new(&topic, 0, "g", "next"), LONG, None, 10).await.unwrap();
    assert_eq!(numbers(&claimed.deliveries), [0]);
}

/// What a consumer took that was never heard of again is handled by another, with one more delivery on its count.
pub async fn what_a_dead_consumer_left_is_handled(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..10).await;
    let dead = Reader::new(&topic, 0, "g", "dead");
    bus.read(dead, 4, NO_WAIT).await.unwrap();
    let attempts = Mutex::new(BTreeMap::new());
    let consumer = Consumer::new(Arc::clone(&bus), topic.clone(), config("g"));
    let handle = handler(|delivery| {
        let n: u64 = delivery.event.unwrap().data().unwrap();
        attempts.lock().unwrap().insert(n, delivery.attempt);
        async { Ok(()) }
    });
    let stop = until("everything is done", async || is_drained(&bus, &topic, "g").await);
    assert_eq!(consumer.run(&handle, stop).await.unwrap().handled, 10);
    let attempts: Vec<u32> = attempts.lock().unwrap().values().copied().collect();
    assert_eq!(attempts, [2, 2, 2, 2, 1, 1, 1, 1, 1, 1]);
    assert!(bus.leave(dead).await.unwrap());
}

/// Consumers come and go, and the events of a subject are still handled in their order, one at a time.
pub async fn order_is_kept_by_subject(bus: Bus) {
    const SUBJECTS: u64 = 8;
    let topic = topic(4);
    let leases = Arc::new(MemoryLeases::new(Arc::new(SystemClock::default())));
    let handled = Arc::new(Mutex::new(BTreeMap::<String, Vec<u64>>::new()));
    let failed = AtomicU32::new(0);
    let handle = handler(|delivery| {
        let event = delivery.event.unwrap();
        let (n, subject) = (event.data::<u64>().unwrap(), event.subject().unwrap().to_owned());
        let handled = Arc::clone(&handled);
        assert!(delivery.fence.is_some());
        // Every now and then one fails the first time, and those behind it wait.
        let fails = n.is_multiple_of(37) && delivery.attempt == 1;
        failed.fetch_add(fails.into(), Ordering::SeqCst);
        async move {
            tokio::time::sleep(millis(1)).await;
            if fails {
                return Err(Failure::from("not yet"));
            }
            handled.lock().unwrap().entry(subject).or_default().push(n);
            Ok(())
        }
    });
    let events: Vec<Event> =
        (0..400).map(|n| event(n).about(format!("model {}", n % SUBJECTS)).unwrap()).collect();
    let consumer = |name: &str| {
        let config = config("g").ordered(millis(3_000)).concurrency(10).named(name);
        Consumer::new(Arc::clone(&bus), topic.clone(), config)
            .with_leases(Arc::<MemoryLeases>::clone(&leases))
    };
    let count = || handled.lock().unwrap().values().map(Vec::len).sum::<usize>();
    let (a, b, c) = (consumer("a"), consumer("b"), consumer("c"));
    let all =
        || until("all are handled", async || count() == 400 && is_drained(&bus, &topic, "g").await);
    let first = a.run(&handle, until("some are handled", async || 100 <= count()));
    let (a, b, c, ()) = tokio::join!(first, b.run(&handle, all()), c.run(&handle, all()), async {
        for events in events.chunks(50) {
            bus.publish(&topic, events).await.unwrap();
            tokio::time::sleep(millis(20)).await;
        }
    });
    let ran = [a.unwrap(), b.unwrap(), c.unwrap()];
    assert_eq!(ran.iter().map(|ran| ran.handled).sum::<u64>(), 400);
    assert!(0 < failed.load(Ordering::SeqCst));
    for (subject, handled) in handled.lock().unwrap().iter() {
        let in_order = handled.windows(2).all(|pair| pair[0] < pair[1]);
        assert!(in_order, "{subject}: {handled:?}");
    }
}

#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Training {
    DatasetReady,
    EpochComplete { epoch: u32, loss: f64 },
}

/// The variants of an enum are types, and a type that the enum does not know is an error.
pub async fn enums_are_events(bus: Bus) {
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    let values = [Training::DatasetReady, Training::EpochComplete { epoch: 3, loss: 0.25 }];
    let events =
        [Event::of("t", &values[0]).unwrap(), Event::of("t", &values[1]).unwrap(), event(0)];
    assert_eq!((events[0].kind(), events[1].kind()), ("dataset_ready", "epoch_complete"));
    bus.publish(&topic, &events).await.unwrap();
    let read = bus.read(Reader::new(&topic, 0, "g", "c"), 10, NO_WAIT).await.unwrap();
    for (delivery, value) in read.iter().zip(&values) {
        assert_eq!(&delivery.event.as_ref().unwrap().to_enum::<Training>().unwrap(), value);
    }
    assert!(read[2].event.as_ref().unwrap().to_enum::<Training>().is_err());
    assert!(Event::of("t", &7).is_err());
}

/// Who wants no handler takes a stream, and acknowledges by hand.
pub async fn deliveries_are_a_stream(bus: Bus) {
    use futures_util::StreamExt as _;
    let topic = topic(1);
    bus.create_group(&topic, "g", Start::Beginning).await.unwrap();
    publish(&bus, &topic, 0..5).await;
    let consumer = Consumer::new(Arc::clone(&bus), topic.clone(), config("g"));
    let deliveries = consumer.deliveries(0);
    futures_util::pin_mut!(deliveries);
    let mut handled = Vec::new();
    while handled.len() < 5 {
        let delivery = deliveries.next().await.unwrap().unwrap();
        let n: u64 = delivery.event.as_ref().unwrap().data().unwrap();
        if n == 2 && delivery.attempt == 1 {
            consumer.retry(&delivery, millis(30)).await.unwrap();
        } else {
            consumer.ack(0, &[delivery.entry]).await.unwrap();
            handled.push(n);
        }
    }
    assert_eq!(handled, [0, 1, 3, 4, 2]);
    assert!(is_drained(&bus, &topic, "g").await);
}
