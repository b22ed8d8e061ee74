//! What each operation costs: its round trips, and the commands that the server counts.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_chatsession::{
    Append, ClientId, Config, Delta, Entry, EntryId, FinishReason, Fork, Message, NewSession,
    Range, RedisSessionStore, Result, SessionStore, SessionStoreExt as _, Summarizer, Summary,
    SummaryRule, Turn, UserId,
};
use inferkit_core::{Batch, Cmd, Driver, DriverExt as _, DynDriver, Reply, Result as CoreResult};
use inferkit_localredis::{Flavor, Server};
use support::{create, id, say};

/// Counts round trips.
#[derive(Debug)]
struct Counted {
    inner: DynDriver,
    trips: AtomicU64,
}

#[async_trait]
impl Driver for Counted {
    async fn call(&self, cmd: Cmd) -> CoreResult<Reply> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        self.inner.call(cmd).await
    }

    async fn pipeline(&self, batch: Batch) -> CoreResult<Vec<CoreResult<Reply>>> {
        self.trips.fetch_add(1, Ordering::SeqCst);
        self.inner.pipeline(batch).await
    }
}

struct Meter {
    counted: Arc<Counted>,
}

impl Meter {
    /// The round trips since the last call, and what the server counted, but for the counting itself and the connections'
    /// own commands.
    async fn spent(&self) -> (u64, BTreeMap<String, u64>) {
        let driver = &self.counted.inner;
        let stats: String = driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
        driver.query::<()>(Cmd::new("CONFIG").arg("RESETSTAT")).await.unwrap();
        let commands = stats.lines().filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_ascii_lowercase(), rest.split(',').next()?.parse().ok()?))
        });
        let commands = commands.filter(|(name, _)| {
            !["info", "config|resetstat", "ping", "hello"].contains(&name.as_str())
                && !name.starts_with("client|")
        });
        (self.counted.trips.swap(0, Ordering::SeqCst), commands.collect())
    }

    async fn is(&self, what: &str, trips: u64, commands: &[(&str, u64)]) {
        let commands = commands.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!(self.spent().await, (trips, commands), "{what}");
    }
}

#[derive(Debug)]
struct Short;

#[async_trait]
impl Summarizer for Short {
    async fn summarize(&self, _: Option<&Summary>, _: &[Entry]) -> Result<String> {
        Ok("They met.".to_owned())
    }
}

/// A server of its own, whose commands nobody else adds to, and a store that has sent each script before.
async fn warm() -> (Server, Meter, RedisSessionStore) {
    let server = Server::start(Flavor::Redis).unwrap();
    let counted =
        Arc::new(Counted { inner: support::pool(server.url()).await, trips: AtomicU64::new(0) });
    let driver = Arc::<Counted>::clone(&counted);
    let store = RedisSessionStore::new(driver, support::within(Config::new())).unwrap();
    let s = create(&store, "warm").await;
    for text in ["a", "b"] {
        say(&store, &s, text).await;
    }
    store.summarize(&s, &Short, SummaryRule::above(0)).await.unwrap();
    store.trim(&s).await.unwrap();
    let last = store.read(&s, Range::Last(1)).await.unwrap().unwrap().remove(0).id;
    store.fork(&s, Fork::After(last)).await.unwrap();
    let turn = Turn::new("t").unwrap();
    store.push_draft(&s, &turn, &[Delta::text("x")]).await.unwrap();
    store.finish_draft(&s, &turn, FinishReason::Stop).await.unwrap();
    store.mark_archived(&s, None, Duration::from_secs(1)).await.unwrap();
    let due = store.claim(1, Duration::from_secs(1)).await.unwrap();
    store.settle(&due.into_iter().map(|due| (due, None)).collect::<Vec<_>>()).await.unwrap();
    let session = store.session(&s).await.unwrap().unwrap();
    assert!(store.expire(&session).await.unwrap());
    let gone = create(&store, "gone").await;
    assert!(store.delete(&gone).await.unwrap());
    let meter = Meter { counted };
    meter.spent().await;
    (server, meter, store)
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_costs_what_it_says() {
    let (_server, meter, store) = warm().await;
    let s = create(&store, "s").await;
    meter
        .is(
            "create",
            2,
            &[
                ("del", 1),
                ("evalsha", 3),
                ("hmget", 1),
                ("hset", 1),
                ("pexpire", 2),
                ("time", 3),
                ("zadd", 2),
                ("zremrangebyscore", 1),
            ],
        )
        .await;
    say(&store, &s, "a").await;
    meter
        .is(
            "the first append",
            1,
            &[("evalsha", 1), ("hmget", 1), ("hset", 2), ("pexpire", 2), ("xadd", 1)],
        )
        .await;
    say(&store, &s, "b").await;
    meter.is("append", 1, &[("evalsha", 1), ("hmget", 1), ("hset", 1), ("xadd", 1)]).await;
    let three = Append::new(["c", "d", "e"].map(|text| Message::user(text).with_tokens(10)));
    let _ = store.append(&s, &three).await.unwrap();
    meter
        .is("an append of three", 1, &[("evalsha", 1), ("hmget", 1), ("hset", 1), ("xadd", 3)])
        .await;
    let named = Message::user("f").with_client_id(ClientId::new("f").unwrap());
    let _ = store.say(&s, named.clone()).await.unwrap();
    meter
        .is(
            "an append with a client id",
            1,
            &[("evalsha", 1), ("hget", 2), ("hincrby", 1), ("hmget", 1), ("hset", 2), ("xadd", 1)],
        )
        .await;
    let _ = store.say(&s, named).await.unwrap();
    meter.is("an append that is repeated", 1, &[("evalsha", 1), ("hget", 1), ("hmget", 1)]).await;
    let last = store.read(&s, Range::Last(1)).await.unwrap().unwrap().remove(0).id;
    meter.spent().await;
    let _ = store.replace(&s, last, Message::user("g")).await.unwrap();
    meter
        .is(
            "an edit",
            1,
            &[
                ("evalsha", 1),
                ("hincrby", 1),
                ("hmget", 1),
                ("hset", 2),
                ("xadd", 1),
                ("xrange", 1),
                ("xrevrange", 1),
            ],
        )
        .await;
    store.fork(&s, Fork::After(last)).await.unwrap();
    meter
        .is("fork", 1, &[("evalsha", 1), ("hincrby", 1), ("hmget", 1), ("hset", 1), ("xrange", 1)])
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_costs_what_it_says() {
    let (_server, meter, store) = warm().await;
    let s = create(&store, "s").await;
    let many = Append::new((0..600).map(|_| Message::user("x").with_tokens(10)));
    let _ = store.append(&s, &many).await.unwrap();
    meter.spent().await;
    store.session(&s).await.unwrap().unwrap();
    meter.is("session", 1, &[("hmget", 1)]).await;
    assert_eq!(store.recent(&s, 500).await.unwrap().unwrap().entries.len(), 50);
    meter.is("recent, 50 messages", 1, &[("hmget", 1), ("xrevrange", 1)]).await;
    assert_eq!(store.recent(&s, 2500).await.unwrap().unwrap().entries.len(), 250);
    meter.is("recent, 250 messages", 2, &[("hmget", 2), ("xrevrange", 2)]).await;
    assert_eq!(store.read(&s, Range::Last(500)).await.unwrap().unwrap().len(), 500);
    meter.is("read, 500 messages", 1, &[("hget", 1), ("xrevrange", 1)]).await;
    assert_eq!(store.read(&s, Range::All).await.unwrap().unwrap().len(), 600);
    meter.is("read, 600 messages", 2, &[("hget", 2), ("xrange", 2)]).await;
    assert_eq!(store.sessions(&UserId::new("ann").unwrap(), 10).await.unwrap().len(), 1);
    meter.is("sessions", 2, &[("hmget", 1), ("zrevrange", 1)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drafts_summaries_and_deletions_cost_what_they_say() {
    let (_server, meter, store) = warm().await;
    let s = create(&store, "s").await;
    say(&store, &s, "a").await;
    meter.spent().await;
    let turn = Turn::new("t").unwrap();
    store.push_draft(&s, &turn, &[Delta::text("x")]).await.unwrap();
    meter
        .is(
            "the first push_draft",
            1,
            &[
                ("evalsha", 1),
                ("exists", 1),
                ("hincrby", 1),
                ("hmget", 1),
                ("hset", 1),
                ("pexpire", 1),
                ("xadd", 1),
            ],
        )
        .await;
    store.push_draft(&s, &turn, &[Delta::text("x"), Delta::text("y")]).await.unwrap();
    meter.is("push_draft", 1, &[("evalsha", 1), ("hmget", 1), ("pexpire", 1), ("xadd", 2)]).await;
    store.draft(&s, &turn, EntryId::ZERO).await.unwrap();
    meter.is("draft", 1, &[("hget", 1), ("xrange", 1)]).await;
    store.finish_draft(&s, &turn, FinishReason::Stop).await.unwrap();
    meter
        .is(
            "finish_draft",
            3,
            &[
                ("evalsha", 1),
                ("hdel", 1),
                ("hexists", 1),
                ("hget", 2),
                ("hincrby", 1),
                ("hmget", 1),
                ("hset", 1),
                ("pexpire", 1),
                ("xadd", 2),
                ("xrange", 2),
                ("xrevrange", 1),
            ],
        )
        .await;

    store.summarize(&s, &Short, SummaryRule::above(1000)).await.unwrap();
    meter.is("a summarize that is not needed", 1, &[("hmget", 1), ("xrevrange", 1)]).await;
    store.summarize(&s, &Short, SummaryRule::above(0)).await.unwrap();
    meter
        .is(
            "summarize",
            5,
            &[
                ("del", 1),
                ("evalsha", 3),
                ("hget", 1),
                ("hmget", 4),
                ("hset", 2),
                ("pexpire", 1),
                ("time", 1),
                ("xrevrange", 2),
            ],
        )
        .await;
    say(&store, &s, "b").await;
    meter.spent().await;
    store.summarize(&s, &Short, SummaryRule::above(0).trimming()).await.unwrap();
    assert_eq!(meter.spent().await.0, 6, "a summarize that trims");
    say(&store, &s, "c").await;
    let last = store.read(&s, Range::Last(1)).await.unwrap().unwrap().remove(0).id;
    meter.spent().await;
    assert!(store.commit_summary(&s, 2, &Summary::new("x", 1, last, 4)).await.unwrap());
    meter.is("commit_summary", 1, &[("evalsha", 1), ("hmget", 1), ("hset", 1)]).await;
    assert_eq!(store.trim(&s).await.unwrap(), 2);
    meter.is("trim", 1, &[("evalsha", 1), ("hmget", 1), ("hset", 1), ("xtrim", 1)]).await;

    store.mark_archived(&s, Some(last), Duration::from_secs(1)).await.unwrap();
    meter.is("mark_archived", 1, &[("evalsha", 1), ("hmget", 1), ("hset", 1), ("pttl", 1)]).await;
    let session = store.session(&s).await.unwrap().unwrap();
    meter.spent().await;
    assert!(store.expire(&session).await.unwrap());
    meter.is("expire", 2, &[("evalsha", 1), ("hmget", 1), ("unlink", 1), ("zrem", 1)]).await;
    let gone = create(&store, "gone too").await;
    meter.spent().await;
    assert!(store.delete(&gone).await.unwrap());
    meter
        .is(
            "delete",
            3,
            &[
                ("evalsha", 2),
                ("hget", 1),
                ("hkeys", 1),
                ("hset", 1),
                ("pexpire", 1),
                ("time", 1),
                ("unlink", 1),
                ("zadd", 1),
                ("zrem", 1),
            ],
        )
        .await;
    assert!(store.create(&NewSession::new(id("bobs"), UserId::new("bob").unwrap())).await.unwrap());
    meter.spent().await;
    assert_eq!(store.erase_user(&UserId::new("bob").unwrap()).await.unwrap().len(), 1);
    meter
        .is(
            "erase_user with one session",
            5,
            &[
                ("evalsha", 2),
                ("hget", 1),
                ("hkeys", 1),
                ("hset", 1),
                ("pexpire", 1),
                ("time", 1),
                ("unlink", 1),
                ("zadd", 1),
                ("zrem", 1),
                ("zrevrange", 2),
            ],
        )
        .await;
}
