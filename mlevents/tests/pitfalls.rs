//! What other libraries on Redis Streams get wrong, each by its name.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, Reply};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_mlevents::{
    Consumer, ConsumerConfig, Event, EventBus, Reader, RedisEventBus, Start, Topic, Trim, handler,
};

struct Fixture {
    driver: DynDriver,
    bus: Arc<RedisEventBus>,
    topic: Topic,
    /// The key of the topic's first partition.
    stream: String,
}

async fn fixture() -> Fixture {
    let pool = support::pool(Server::shared(Flavor::Plain).unwrap().url()).await;
    let connect = Arc::new(pool.clone());
    let driver = pool.into_driver();
    let prefix = unique_prefix();
    let bus = RedisEventBus::new(Arc::clone(&driver), Namespace::new(&prefix).unwrap());
    let bus = Arc::new(bus.with_connect(connect));
    let topic = Topic::new("t").unwrap();
    Fixture { driver, bus, topic, stream: format!("{prefix}:ml:events:{{t:0}}") }
}

impl Fixture {
    async fn publish(&self, numbers: std::ops::Range<u64>) {
        let events: Vec<Event> = numbers.map(|n| Event::new("e", "s", &n).unwrap()).collect();
        self.bus.publish(&self.topic, &events).await.unwrap();
    }

    fn reader<'f>(&'f self, group: &'f str, consumer: &'f str) -> Reader<'f> {
        Reader::new(&self.topic, 0, group, consumer)
    }

    async fn read(&self, group: &str, count: usize) -> Vec<u64> {
        let read = self.bus.read(self.reader(group, "c"), count, Duration::ZERO).await.unwrap();
        let entries: Vec<_> = read.iter().map(|delivery| delivery.entry).collect();
        self.bus.ack(self.reader(group, "c"), &entries).await.unwrap();
        read.iter().map(|delivery| delivery.event.as_ref().unwrap().data().unwrap()).collect()
    }

    fn consumer(&self, group: &str) -> Consumer {
        let config = ConsumerConfig::new(group)
            .look_every(Duration::from_millis(20))
            .claim_after(Duration::from_millis(200))
            .backoff(Duration::from_millis(10), Duration::from_millis(40));
        Consumer::new(Arc::clone(&self.bus) as Arc<dyn EventBus>, self.topic.clone(), config)
    }

    async fn query<T: inferkit_core::FromReply>(&self, name: &str, args: &[&str]) -> T {
        self.driver
            .query(Cmd::new(name).key(&self.stream).args(args.iter().copied()))
            .await
            .unwrap()
    }

    async fn pending(&self, group: &str) -> u64 {
        self.bus
            .status(&self.topic)
            .await
            .unwrap()
            .first()
            .unwrap()
            .groups
            .get(group)
            .unwrap()
            .pending
    }
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// 1: a stream that is trimmed by length drops what nobody has read.
#[tokio::test(flavor = "multi_thread")]
async fn trimming_by_length_drops_no_unread_event() {
    let f = fixture().await;
    f.bus.create_group(&f.topic, "slow", Start::Beginning).await.unwrap();
    f.publish(0..500).await;
    let trimmed = f.bus.trim(&f.topic, Trim::new().longer_than(10)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.held_by), (0, vec!["slow".to_owned()]));
    assert_eq!(f.read("slow", 1_000).await.len(), 500);
    let trimmed = f.bus.trim(&f.topic, Trim::new().longer_than(10)).await.unwrap();
    assert_eq!((trimmed.removed, trimmed.held_by), (490, vec![]));
}

/// 1: tens of thousands are removed at once, and by their bytes.
#[tokio::test(flavor = "multi_thread")]
async fn long_streams_are_trimmed_to_the_end() {
    let f = fixture().await;
    f.publish(0..25_000).await;
    let trimmed = f.bus.trim(&f.topic, Trim::new().longer_than(20_000)).await.unwrap();
    assert_eq!(trimmed.removed, 5_000);
    let used: u64 = f.driver.query(Cmd::new("MEMORY").arg("USAGE").key(&f.stream)).await.unwrap();
    let trimmed = f.bus.trim(&f.topic, Trim::new().larger_than(used / 4)).await.unwrap();
    assert!((14_000..16_000).contains(&trimmed.removed), "{trimmed:?}");
    let trimmed = f.bus.trim(&f.topic, Trim::new().longer_than(100)).await.unwrap();
    assert!(4_000 < trimmed.removed);
    assert_eq!(f.query::<u64>("XLEN", &[]).await, 100);
}

/// 2: an event that kills whoever handles it is given up after so many deliveries.
#[tokio::test(flavor = "multi_thread")]
async fn a_poison_event_does_not_come_for_ever() {
    let f = fixture().await;
    f.publish(0..1).await;
    f.bus.create_group(&f.topic, "g", Start::Beginning).await.unwrap();
    let deaths = AtomicU32::new(0);
    for _ in 0..5 {
        let died = AtomicBool::new(false);
        let kills = handler(|_| {
            deaths.fetch_add(1, Ordering::SeqCst);
            died.store(true, Ordering::SeqCst);
            std::future::pending()
        });
        let consumer = f.consumer("g");
        // The process ends in the middle of its work.
        tokio::select! {
            _ = consumer.run(&kills, std::future::pending()) => unreachable!(),
            () = until("it died", async || died.load(Ordering::SeqCst)) => {}
        }
    }
    let harmless = handler(|_| async { Ok(()) });
    let consumer = f.consumer("g");
    let buried = until("it is given up", async || f.pending("g").await == 0);
    let ran = consumer.run(&harmless, buried).await.unwrap();
    assert_eq!((ran.handled, ran.buried, deaths.load(Ordering::SeqCst)), (0, 1, 5));
    let letters = f.bus.dead_letters(&f.topic, 0, None, 1).await.unwrap();
    assert!(letters.first().unwrap().reason.contains("5 times"), "{letters:?}");
}

/// 3: an entry without the fields of an event is given up with the reason, and holds up nobody.
#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_no_event_is_given_up() {
    let f = fixture().await;
    f.publish(0..1).await;
    f.query::<String>("XADD", &["*", "body", "not one of ours"]).await;
    f.publish(1..2).await;
    let handle = handler(|_| async { Ok(()) });
    f.bus.create_group(&f.topic, "g", Start::Beginning).await.unwrap();
    let consumer = f.consumer("g");
    let all = until("everything is decided", async || {
        let status = f.bus.status(&f.topic).await.unwrap();
        let group = status.first().unwrap().groups.get("g").unwrap().clone();
        group.lag == 0 && group.pending == 0
    });
    let ran = consumer.run(&handle, all).await.unwrap();
    assert_eq!((ran.handled, ran.buried), (2, 1));
    let letter = f.bus.dead_letters(&f.topic, 0, None, 1).await.unwrap().remove(0);
    assert!(letter.reason.contains("no field ce_"), "{}", letter.reason);
    assert!(letter.event.is_err());
}

/// 4: a stream that was deleted under a running consumer: it goes on behind what it had acknowledged, and misses nothing
/// that comes afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_is_healed_without_skipping() {
    let f = fixture().await;
    let handled = AtomicU32::new(0);
    let handle = handler(|_| {
        handled.fetch_add(1, Ordering::SeqCst);
        async { Ok(()) }
    });
    let consumer = f.consumer("g");
    let story = async {
        f.publish(0..10).await;
        until("the first are handled", async || handled.load(Ordering::SeqCst) == 10).await;
        f.driver.query::<u64>(Cmd::new("DEL").key(&f.stream)).await.unwrap();
        // Published before the group is there again.
        f.publish(10..20).await;
        until("those after are handled", async || 20 <= handled.load(Ordering::SeqCst)).await;
    };
    consumer.run(&handle, story).await.unwrap();
    assert_eq!(handled.load(Ordering::SeqCst), 20);
}

/// 4: a group that was lost is made anew where it had acknowledged everything, and not at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_group_goes_on_where_it_was() {
    let f = fixture().await;
    f.bus.create_group(&f.topic, "g", Start::Beginning).await.unwrap();
    f.publish(0..10).await;
    assert_eq!(f.read("g", 4).await, [0, 1, 2, 3]);
    // Taken, and neither acknowledged nor given up: it was not done.
    f.bus.read(f.reader("g", "c"), 2, Duration::ZERO).await.unwrap();
    let read = f.bus.read(f.reader("g", "c"), 1, Duration::ZERO).await.unwrap();
    let entries: Vec<_> = read.iter().map(|one| one.entry).collect();
    f.bus.ack(f.reader("g", "c"), &entries).await.unwrap();
    let destroy = Cmd::new("XGROUP").arg("DESTROY").key(&f.stream).arg("g");
    f.driver.query::<u64>(destroy).await.unwrap();
    f.bus.create_group(&f.topic, "g", Start::Now).await.unwrap();
    assert_eq!(f.read("g", 100).await, [4, 5, 6, 7, 8, 9]);
}

/// 4: a group that began now and has acknowledged nothing yet does not begin anew at the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_group_that_began_now_skips_nothing_that_came_since() {
    let f = fixture().await;
    f.publish(0..3).await;
    f.bus.create_group(&f.topic, "g", Start::Now).await.unwrap();
    f.publish(3..5).await;
    let destroy = Cmd::new("XGROUP").arg("DESTROY").key(&f.stream).arg("g");
    f.driver.query::<u64>(destroy).await.unwrap();
    f.bus.create_group(&f.topic, "g", Start::Now).await.unwrap();
    assert_eq!(f.read("g", 10).await, [3, 4]);
}

/// 4: without its group, a reader that waits does not ask again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_group_makes_no_busy_loop() {
    let f = fixture().await;
    f.publish(0..1).await;
    let asked = async || -> u64 {
        let info: String = f.driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
        let calls = info.lines().find_map(|line| line.strip_prefix("cmdstat_xreadgroup:calls="));
        calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    let handle = handler(|_| async { Ok(()) });
    let consumer = f.consumer("g");
    let before = asked().await;
    let quiet = async { tokio::time::sleep(Duration::from_millis(500)).await };
    consumer.run(&handle, quiet).await.unwrap();
    let after = asked().await;
    // Other tests share the server; a busy loop asks thousands of times.
    assert!(after - before < 2_000, "{before} {after}");
}

/// 5 and 6: a consumer that ended leaves nothing behind.
#[tokio::test(flavor = "multi_thread")]
async fn consumers_that_end_are_removed_and_lose_nothing() {
    let f = fixture().await;
    f.publish(0..3).await;
    let handle = handler(|_| async { Ok(()) });
    for _ in 0..5 {
        let consumer = f.consumer("g");
        consumer.run(&handle, tokio::time::sleep(Duration::from_millis(50))).await.unwrap();
    }
    let info = Cmd::new("XINFO").arg("CONSUMERS").key(&f.stream).arg("g");
    let consumers: Vec<Reply> = f.driver.query(info).await.unwrap();
    assert_eq!(consumers.len(), 0);
}

/// 6: what is acknowledged by everybody does not stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_events_can_be_removed() {
    let f = fixture().await;
    f.bus.create_group(&f.topic, "g", Start::Beginning).await.unwrap();
    f.publish(0..100).await;
    f.read("g", 100).await;
    let trimmed = f.bus.trim(&f.topic, Trim::new().longer_than(0)).await.unwrap();
    assert_eq!((trimmed.removed, f.query::<u64>("XLEN", &[]).await), (100, 0));
}

/// 7: a backoff is kept: a failing event is not tried hundreds of times.
#[tokio::test(flavor = "multi_thread")]
async fn a_backoff_is_a_time_and_not_a_place_in_a_queue() {
    let f = fixture().await;
    f.publish(0..1).await;
    let tries = AtomicU32::new(0);
    let handle = handler(|_| {
        tries.fetch_add(1, Ordering::SeqCst);
        async { Err("never".into()) }
    });
    let config = ConsumerConfig::new("g")
        .look_every(Duration::from_millis(5))
        .claim_after(Duration::from_millis(30))
        .backoff(Duration::from_millis(400), Duration::from_secs(60));
    let consumer = Consumer::new(Arc::clone(&f.bus) as Arc<dyn EventBus>, f.topic.clone(), config);
    // After 0, 0.4 and 1.2 seconds.
    consumer.run(&handle, tokio::time::sleep(Duration::from_millis(2_400))).await.unwrap();
    assert_eq!(tries.load(Ordering::SeqCst), 3);
}

/// Lag is told also where the server has lost count, because an entry was deleted.
#[tokio::test(flavor = "multi_thread")]
async fn lag_is_known_where_the_server_does_not_know_it() {
    let f = fixture().await;
    f.bus.create_group(&f.topic, "g", Start::Beginning).await.unwrap();
    let events: Vec<Event> = (0..10).map(|n| Event::new("e", "s", &n).unwrap()).collect();
    let entries = f.bus.publish(&f.topic, &events).await.unwrap();
    f.read("g", 2).await;
    let deleted = entries.get(5).unwrap().to_string();
    f.query::<u64>("XDEL", &[&deleted]).await;
    let status = f.bus.status(&f.topic).await.unwrap();
    assert_eq!(status.first().unwrap().groups.get("g").unwrap().lag, 7);
}

/// An entry that was deleted while it was pending is no delivery, and is not waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_entry_is_not_waited_for() {
    let f = fixture().await;
    f.bus.create_group(&f.topic, "g", Start::Beginning).await.unwrap();
    f.publish(0..3).await;
    let read = f.bus.read(f.reader("g", "a"), 3, Duration::ZERO).await.unwrap();
    f.bus.retry(f.reader("g", "a"), read.first().unwrap().entry, Duration::ZERO).await.unwrap();
    for delivery in read.get(..2).unwrap() {
        f.query::<u64>("XDEL", &[&delivery.entry.to_string()]).await;
    }
    let claimed = f.bus.claim(f.reader("g", "b"), Duration::ZERO, None, 10).await.unwrap();
    assert_eq!((claimed.deliveries.len(), f.pending("g").await), (1, 1));
}
