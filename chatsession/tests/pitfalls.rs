//! What goes wrong in other libraries, one test each, on a real server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_chatsession::{
    Append, Budget, Config, Entry, EntryId, Error, Message, NewSession, Range, RedisSessionStore,
    Result, SessionStore, SessionStoreExt as _, Summarized, Summarizer, Summary, SummaryRule,
    ToolCall, Usage, UserId,
};
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_localredis::{Flavor, Server};
use support::{create, id, say, with_driver};

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.message.content.to_text()).collect()
}

async fn all(store: &RedisSessionStore, session: &inferkit_chatsession::SessionId) -> Vec<String> {
    texts(&store.read(session, Range::All).await.unwrap().unwrap())
}

/// Counts its calls and keeps what it was given; a call waits as long as it is told.
#[derive(Debug, Default)]
struct Model {
    calls: AtomicUsize,
    given: Mutex<Vec<Vec<String>>>,
    time: Duration,
    fails: bool,
}

#[async_trait]
impl Summarizer for Model {
    async fn summarize(&self, earlier: Option<&Summary>, entries: &[Entry]) -> Result<String> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.time).await;
        if self.fails {
            return Err(Error::summarizer("the model is down", true));
        }
        self.given.lock().unwrap().push(texts(entries));
        let earlier = earlier.map(|summary| format!("{} ", summary.text)).unwrap_or_default();
        Ok(format!("{earlier}{}", texts(entries).join(" ")))
    }
}

fn rule(above: u64) -> SummaryRule {
    SummaryRule::above(above).keeping(10).with_lease(Duration::from_millis(300))
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_1_a_writer_replaces_what_another_wrote_meanwhile() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    let write = async |writer: usize| {
        for number in 0..200 {
            // Each reads before it writes, as a read-modify-write would.
            store.recent(&s, 100).await.unwrap().unwrap();
            say(&store, &s, &format!("{writer}/{number}")).await;
        }
    };
    tokio::join!(write(0), write(1));
    assert_eq!(all(&store, &s).await.len(), 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_2_the_summarizer_drops_text_without_a_word() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    let long = "ü".repeat(200_000);
    for text in ["a", &long, "b", "c"] {
        say(&store, &s, text).await;
    }
    let model = Model::default();
    let Summarized::Stored(summary) = store.summarize(&s, &model, rule(20)).await.unwrap() else {
        panic!("not stored")
    };
    let given = model.given.lock().unwrap().clone();
    assert_eq!(given, [["a".to_owned(), long, "b".to_owned()]], "all of it, whole");
    assert_eq!(summary.messages, 3);
    let recent = store.recent(&s, u64::MAX).await.unwrap().unwrap();
    assert_eq!(texts(&recent.entries), ["c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_3_tool_calls_are_not_stored() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    let messages = [
        Message::tool_calls([ToolCall::new("1", "weather", "{\"city\":\"Rome\"}")]),
        Message::tool("1", "sunny"),
    ];
    let _ = store.append(&s, &Append::new(messages.clone())).await.unwrap();
    let window = store.window(&s, Budget::new(1000)).await.unwrap().unwrap();
    assert_eq!(window.to_messages(), messages);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_4_the_oldest_messages_expire_first() {
    let server = Server::shared(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    // The session lives 300 ms after the last message, no message lives less.
    let short = Duration::from_millis(150);
    let lifetime = inferkit_chatsession::Lifetime::new(short, short).with_grace(short);
    let config = support::within(Config::new().with_lifetime(lifetime));
    let store = RedisSessionStore::new(driver, config).unwrap();
    let s = create(&store, "s").await;
    let start = Instant::now();
    let mut said = 0;
    while start.elapsed() < Duration::from_millis(1200) {
        say(&store, &s, "x").await;
        said += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(all(&store, &s).await.len(), said);
    while store.session(&s).await.unwrap().is_some() {
        assert!(start.elapsed() < Duration::from_secs(20), "it never expired");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(store.read(&s, Range::All).await.unwrap(), None, "log and hash go together");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_5_taking_back_a_message_reverses_the_rest_and_drops_the_expiry() {
    let (store, driver) = with_driver().await;
    let s = create(&store, "s").await;
    for text in ["m1", "m2", "m3"] {
        say(&store, &s, text).await;
    }
    let entries = store.read(&s, Range::All).await.unwrap().unwrap();
    let _ = store.replace(&s, entries[2].id, Message::user("m4")).await.unwrap();
    let recent = store.recent(&s, u64::MAX).await.unwrap().unwrap();
    assert_eq!(texts(&recent.entries), ["m1", "m2", "m4"]);
    for key in [store.log_key(&s), store.meta_key(&s)] {
        let left: i64 = driver.query(Cmd::new("PTTL").key(key)).await.unwrap();
        assert!(24 * 60 * 60 * 1000 < left, "{left}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_6_a_default_limit_cuts_the_history_and_clear_clears_everybodys() {
    let (store, _) = with_driver().await;
    let (s, other) = (create(&store, "s").await, create(&store, "other").await);
    say(&store, &other, "mine").await;
    for _ in 0..3 {
        let messages = (0..700).map(|_| Message::user("x").with_tokens(1));
        let _ = store.append(&s, &Append::new(messages)).await.unwrap();
    }
    assert_eq!(all(&store, &s).await.len(), 2100);
    assert_eq!(store.recent(&s, u64::MAX).await.unwrap().unwrap().entries.len(), 2100);
    assert!(store.delete(&s).await.unwrap());
    assert_eq!(all(&store, &other).await, ["mine"]);
}

/// What the server counted since the last call.
async fn spent(driver: &DynDriver) -> Vec<(String, u64)> {
    let stats: String = driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
    driver.query::<()>(Cmd::new("CONFIG").arg("RESETSTAT")).await.unwrap();
    let counts = stats.lines().filter_map(|line| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    let own = ["info", "config|resetstat", "ping", "hello", "client|setinfo", "client|setname"];
    counts.filter(|(name, _): &(String, u64)| !own.contains(&name.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_7_an_added_message_rewrites_the_whole_history() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let config = support::within(Config::new());
    let store = RedisSessionStore::new(Arc::clone(&driver), config).unwrap();
    let s = create(&store, "s").await;
    for _ in 0..3 {
        say(&store, &s, "x").await;
    }
    spent(&driver).await;
    say(&store, &s, "x").await;
    let one = |name: &str| (name.to_owned(), 1);
    let mut counts = spent(&driver).await;
    counts.sort();
    assert_eq!(counts, [one("evalsha"), one("hmget"), one("hset"), one("xadd")]);
    store.window(&s, Budget::new(1000)).await.unwrap().unwrap();
    let mut counts = spent(&driver).await;
    counts.sort();
    assert_eq!(counts, [one("hmget"), one("xrevrange")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_8_replacing_deletes_first_and_may_stop_there() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    for text in ["a", "b"] {
        say(&store, &s, text).await;
    }
    let entries = store.read(&s, Range::All).await.unwrap().unwrap();
    // Whoever reads meanwhile sees the old answer or the new one, never none and never both.
    let replace = async {
        for number in 0..100 {
            let message = Message::user(format!("b{number}"));
            let _ = store.replace(&s, entries[1].id, message).await.unwrap();
        }
    };
    let look = async {
        for _ in 0..100 {
            let recent = store.recent(&s, u64::MAX).await.unwrap().unwrap();
            let texts = texts(&recent.entries);
            assert!(texts.len() == 2 && texts[1].starts_with('b'), "{texts:?}");
        }
    };
    tokio::join!(replace, look);
    assert_eq!(all(&store, &s).await.len(), 102, "and nothing is deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_9_a_pair_is_split_or_an_orphan_call_blocks_every_summary() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    let call = |id: &str| Message::tool_calls([ToolCall::new(id, "f", "{}")]).with_tokens(10);
    let messages = [
        call("never answered"),
        Message::user("a").with_tokens(10),
        call("1"),
        Message::tool("1", "x").with_tokens(10),
    ];
    let _ = store.append(&s, &Append::new(messages)).await.unwrap();
    let model = Model::default();
    let Summarized::Stored(summary) = store.summarize(&s, &model, rule(20)).await.unwrap() else {
        panic!("not stored")
    };
    assert_eq!(summary.messages, 2, "up to the pair");
    let window = store.window(&s, Budget::new(100)).await.unwrap().unwrap();
    assert_eq!(window.entries.len(), 2);
    let done = store.summarize(&s, &model, rule(10)).await.unwrap();
    assert_eq!(done, Summarized::NotNeeded, "there is nothing but the pair");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_10_a_sliding_window_defeats_the_prompt_cache() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    let (mut begins, mut before) = (0, None);
    for number in 0..200 {
        say(&store, &s, &number.to_string()).await;
        let window = store.window(&s, Budget::new(400).with_step(100)).await.unwrap().unwrap();
        begins += usize::from(before != Some(window.entries[0].id));
        before = Some(window.entries[0].id);
    }
    // 2000 tokens in steps of 100, once the budget is full.
    assert!(begins <= 18, "{begins}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_11_tokens_are_guessed_though_the_provider_reports_them() {
    let (store, _) = with_driver().await;
    let new =
        NewSession::new(id("s"), UserId::new("ann").unwrap()).with_system("Be brief, please.");
    assert!(store.create(&new).await.unwrap());
    let usage = Usage { prompt_tokens: 48, completion_tokens: 728, cached_tokens: 0 };
    let answer = Message::assistant("short").with_usage(usage);
    let _ = store.say(&id("s"), answer).await.unwrap();
    let session = store.session(&id("s")).await.unwrap().unwrap();
    assert_eq!(session.tokens, 728);
    let window = store.window(&id("s"), Budget::new(1000)).await.unwrap().unwrap();
    assert!(0 < session.system_tokens);
    assert_eq!(window.tokens, 728 + session.system_tokens, "the system prompt counts, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_12_a_key_without_expiry_fills_the_server() {
    // `keyspace.rs` looks at every key; here a late summary must not make one anew.
    let (store, driver) = with_driver().await;
    let s = create(&store, "s").await;
    say(&store, &s, "a").await;
    let session = store.session(&s).await.unwrap().unwrap();
    assert!(store.expire(&session).await.unwrap());
    let late = Summary::new("late", 1, session.last.unwrap(), 1);
    let error = store.commit_summary(&s, 0, &late).await.unwrap_err();
    assert!(matches!(error, Error::NoSession), "{error:?}");
    for key in [store.log_key(&s), store.meta_key(&s)] {
        let exists: i64 = driver.query(Cmd::new("EXISTS").key(key)).await.unwrap();
        assert_eq!(exists, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_13_the_loser_of_a_race_is_not_told() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    for text in ["a", "b", "c"] {
        say(&store, &s, text).await;
    }
    // Another summary is stored while the model is at work, behind the lease's back.
    let model = Model { time: Duration::from_millis(100), ..Model::default() };
    let meddle = async {
        while model.calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let first = store.read(&s, Range::After(EntryId::ZERO, 1)).await.unwrap().unwrap()[0].id;
        assert!(store.commit_summary(&s, 0, &Summary::new("mine", 1, first, 1)).await.unwrap());
    };
    let (summarized, ()) = tokio::join!(store.summarize(&s, &model, rule(20)), meddle);
    assert_eq!(summarized.unwrap(), Summarized::Outdated);
    let recent = store.recent(&s, u64::MAX).await.unwrap().unwrap();
    assert_eq!(recent.summary.unwrap().text, "mine");
    assert_eq!(texts(&recent.entries), ["b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn pitfall_14_a_late_writer_brings_back_what_was_erased() {
    let (store, driver) = with_driver().await;
    let s = create(&store, "s").await;
    for text in ["a", "b", "c"] {
        say(&store, &s, text).await;
    }
    let model = Model { time: Duration::from_millis(100), ..Model::default() };
    let erase = async {
        while model.calls.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        let erased = store.erase_user(&UserId::new("ann").unwrap()).await.unwrap();
        assert_eq!(erased, [id("s")]);
    };
    let (summarized, ()) = tokio::join!(store.summarize(&s, &model, rule(20)), erase);
    assert!(matches!(summarized, Err(Error::Erased)), "{summarized:?}");
    let error = store.say(&s, Message::user("late")).await.unwrap_err();
    assert!(matches!(error, Error::Erased), "{error:?}");
    let fields: Vec<String> =
        driver.query(Cmd::new("HKEYS").key(store.meta_key(&s))).await.unwrap();
    assert_eq!(fields, ["erased"]);
    let log: i64 = driver.query(Cmd::new("EXISTS").key(store.log_key(&s))).await.unwrap();
    assert_eq!(log, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_summarizers_pays() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    for text in ["a", "b", "c"] {
        say(&store, &s, text).await;
    }
    // Longer than the lease, which is kept meanwhile.
    let model = Model { time: Duration::from_millis(900), ..Model::default() };
    let tries = (0..8).map(|_| store.summarize(&s, &model, rule(20)));
    let done = futures_util::future::join_all(tries).await;
    let stored = done.iter().filter(|done| matches!(done, Ok(Summarized::Stored(_)))).count();
    let busy = done.iter().filter(|done| matches!(done, Ok(Summarized::Busy))).count();
    assert_eq!((stored, busy, model.calls.load(Ordering::SeqCst)), (1, 7, 1), "{done:?}");
    assert_eq!(store.summarize(&s, &model, rule(20)).await.unwrap(), Summarized::NotNeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summarizer_that_crashes_or_fails_is_recovered() {
    let (store, _) = with_driver().await;
    let s = create(&store, "s").await;
    for text in ["a", "b", "c"] {
        say(&store, &s, text).await;
    }
    let failing = Model { fails: true, ..Model::default() };
    let error = store.summarize(&s, &failing, rule(20)).await.unwrap_err();
    assert!(matches!(error, Error::Summarizer { .. }) && error.is_transient(), "{error:?}");
    // The next one may try at once. It is dropped in the midst, as a crash would.
    let slow = Model { time: Duration::from_secs(60), ..Model::default() };
    let crash =
        tokio::time::timeout(Duration::from_millis(50), store.summarize(&s, &slow, rule(20)));
    assert!(crash.await.is_err());
    assert_eq!(slow.calls.load(Ordering::SeqCst), 1);
    let model = Model::default();
    let start = Instant::now();
    loop {
        match store.summarize(&s, &model, rule(20)).await.unwrap() {
            Summarized::Stored(summary) => {
                assert_eq!(summary.text, "a b");
                break;
            }
            Summarized::Busy => assert!(start.elapsed() < Duration::from_secs(20), "never free"),
            other => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // The next summary takes the earlier one along.
    for text in ["d", "e"] {
        say(&store, &s, text).await;
    }
    let Summarized::Stored(summary) = store.summarize(&s, &model, rule(20)).await.unwrap() else {
        panic!("not stored")
    };
    assert_eq!((summary.text.as_str(), summary.messages), ("a b c d", 4));
}
