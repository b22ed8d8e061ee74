//! Many writers, summarizers and a janitor at one session, while connections are killed: nothing is lost or doubled.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![expect(clippy::print_stdout, reason = "what happened is worth a look")]

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_chatsession::{
    Archive, ClientId, Config, Entry, Janitor, Lifetime, MemoryArchive, Message, Range,
    RedisSessionStore, Result, SessionStore, SessionStoreExt as _, Summarized, Summarizer, Summary,
    SummaryRule,
};
use inferkit_localredis::{Flavor, Server};
use support::create;

const WRITERS: usize = 4;
const MESSAGES: usize = 1000;

/// Writes down what it is given, so that a summary says which messages it stands for.
#[derive(Debug)]
struct Lister;

#[async_trait]
impl Summarizer for Lister {
    async fn summarize(&self, earlier: Option<&Summary>, entries: &[Entry]) -> Result<String> {
        tokio::time::sleep(Duration::from_millis(15)).await;
        let earlier = earlier.map(|summary| summary.text.clone());
        let texts = entries.iter().map(|entry| entry.message.content.to_text());
        Ok(earlier.into_iter().chain(texts).collect::<Vec<_>>().join(" "))
    }
}

async fn stress(flavor: Flavor) {
    let server = Server::start(flavor).unwrap();
    let lifetime = Lifetime::new(Duration::from_millis(20), Duration::from_secs(3600));
    let config = support::within(Config::new().with_lifetime(lifetime));
    // Each has connections of its own, as processes would.
    let store = async || {
        let driver = support::pool(server.url()).await;
        Arc::new(RedisSessionStore::new(driver, config.clone()).unwrap())
    };
    let s = create(&*store().await, "s").await;
    let done = AtomicBool::new(false);
    let killed = AtomicUsize::new(0);
    let (stored, dropped, repeated) =
        (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));

    let write = async |writer: usize| {
        let store = store().await;
        for number in 0..MESSAGES {
            let name = format!("{writer}/{number}");
            let message = Message::user(&*name).with_tokens(3);
            let message = message.with_client_id(ClientId::new(name).unwrap());
            loop {
                match store.say(&s, message.clone()).await {
                    Ok(appended) => {
                        repeated.fetch_add(appended.duplicates, Ordering::SeqCst);
                        break;
                    }
                    Err(error) => {
                        assert!(error.is_transient() || error.maybe_applied(), "{error:?}");
                    }
                }
            }
        }
    };
    let summarize = async || {
        let store = store().await;
        let rule = SummaryRule::above(300).with_lease(Duration::from_millis(200)).trimming();
        while !done.load(Ordering::SeqCst) {
            match store.summarize(&s, &Lister, rule).await {
                Ok(Summarized::Stored(_)) => stored.fetch_add(1, Ordering::SeqCst),
                Ok(Summarized::Outdated) => dropped.fetch_add(1, Ordering::SeqCst),
                _ => 0,
            };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    // And one that takes no lease.
    let rude = async || {
        let store = store().await;
        while !done.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(40)).await;
            let Ok(Some(recent)) = store.recent(&s, u64::MAX).await else { continue };
            let Some(last) = recent.entries.last() else { continue };
            let earlier = recent.summary.as_ref();
            let text = Lister.summarize(earlier, &recent.entries).await.unwrap();
            let count = earlier.map_or(0, |summary| summary.messages) + recent.entries.len() as u64;
            let summary = Summary::new(text, 1, last.id, count);
            match store.commit_summary(&s, recent.session.summary_version, &summary).await {
                Ok(true) => stored.fetch_add(1, Ordering::SeqCst),
                Ok(false) => dropped.fetch_add(1, Ordering::SeqCst),
                Err(_) => 0,
            };
        }
    };
    let archive = Arc::new(MemoryArchive::new());
    let janitor = Janitor::new(store().await)
        .archiving(Arc::<MemoryArchive>::clone(&archive), |_| true)
        .with_every(Duration::from_millis(5))
        .with_lease(Duration::from_millis(100));
    let janitor = tokio::spawn(janitor.run());
    let kill = async {
        let mut pause = 7;
        while !done.load(Ordering::SeqCst) {
            pause = pause * 31 % 97;
            tokio::time::sleep(Duration::from_millis(20 + pause)).await;
            let count = tokio::task::block_in_place(|| server.kill_clients()).unwrap();
            killed.fetch_add(count, Ordering::SeqCst);
        }
    };
    let writers = async {
        futures_util::future::join_all((0..WRITERS).map(write)).await;
        done.store(true, Ordering::SeqCst);
    };
    tokio::join!(writers, summarize(), summarize(), rude(), kill);
    janitor.abort();

    let store = store().await;
    let recent = store.recent(&s, u64::MAX).await.unwrap().unwrap();
    let summary = recent.summary.unwrap();
    let summarized = summary.text.split(' ').map(str::to_owned);
    let after = recent.entries.iter().map(|entry| entry.message.content.to_text());
    let all: Vec<String> = summarized.chain(after).collect();
    assert_eq!(all.len(), WRITERS * MESSAGES, "lost or doubled");
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len(), "doubled");
    for writer in 0..WRITERS {
        let of_writer = all.iter().filter_map(|text| text.strip_prefix(&format!("{writer}/")));
        assert!(of_writer.eq((0..MESSAGES).map(|number| number.to_string())), "the order is kept");
    }
    let session = recent.session;
    assert_eq!(session.messages, 4000);
    assert_eq!(session.tokens, 3 * 4000);
    assert_eq!(summary.messages, 4000 - recent.entries.len() as u64);
    // What is trimmed is in a summary, and nothing else.
    let log = store.read(&s, Range::All).await.unwrap().unwrap();
    match &session.base {
        Some(base) => {
            assert!(log.iter().all(|entry| base.upto < entry.id));
            assert_eq!(log.len() as u64, 4000 - base.messages);
        }
        // Only the one without a lease was quick enough, and it does not trim.
        None => assert_eq!(log.len(), 4000),
    }
    let archived = archive.load(&s).await.unwrap().map_or(0, |transcript| transcript.entries.len());
    println!(
        "{flavor:?}: {} connections killed, {} summaries stored, {} dropped, {} repeated messages, {archived} archived",
        killed.into_inner(),
        stored.into_inner(),
        dropped.into_inner(),
        repeated.into_inner(),
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_on_redis() {
    stress(Flavor::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_doubled_on_valkey() {
    stress(Flavor::Valkey).await;
}
