//! Readers that wait at the server for an answer that is being streamed.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use inferkit_chatsession::{
    Config, Delta, Draft, DraftReader, EntryId, FinishReason, Finished, Message, Pushed,
    RedisSessionStore, SessionId, SessionStore, SessionStoreExt as _, Turn,
};
use inferkit_core::{Connect, Pool, PoolConfig};
use inferkit_localredis::{Cluster, Flavor, Server};
use support::{create, id};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(30);

/// A store, and what makes connections.
async fn over(config: PoolConfig) -> (RedisSessionStore, Arc<dyn Connect>) {
    let pool = Pool::connect_with(config.with_timeout(Duration::from_secs(10))).await.unwrap();
    let store = RedisSessionStore::new(pool.clone().into_driver(), support::within(Config::new()));
    (store.unwrap(), Arc::new(pool))
}

async fn on(server: &Server) -> (RedisSessionStore, Arc<dyn Connect>) {
    over(PoolConfig::single(server.url()).unwrap()).await
}

fn turn() -> Turn {
    Turn::new("t").unwrap()
}

async fn push(store: &RedisSessionStore, session: &SessionId, text: &str) {
    let pushed = store.push_draft(session, &turn(), &[Delta::text(text)]).await.unwrap();
    assert!(matches!(pushed, Pushed::Open(_)));
}

fn text(draft: &Draft) -> String {
    let Draft::Open(deltas) = draft else { panic!("{draft:?}") };
    let texts = deltas.iter().map(|(_, delta)| match delta {
        Delta::Text { text } => text.as_str(),
        _ => "",
    });
    texts.collect()
}

/// Reads into `whole` until the draft is finished.
async fn all(mut reader: DraftReader, whole: Arc<Mutex<String>>) -> Option<EntryId> {
    loop {
        match reader.next(LONG).await.unwrap() {
            Draft::Finished(id) => return id,
            more => whole.lock().unwrap().push_str(&text(&more)),
        }
    }
}

async fn a_reader_hears_every_delta_as_it_comes(
    store: RedisSessionStore,
    connect: Arc<dyn Connect>,
) {
    let s = create(&store, "a}:b{").await;
    let mut early = store.follow_draft(Arc::clone(&connect), &s, &turn(), EntryId::ZERO);
    assert_eq!(early.next(SHORT).await.unwrap(), Draft::Unknown, "it has not begun");
    let wait = tokio::spawn(async move {
        let first = early.next(LONG).await.unwrap();
        (early, first)
    });
    // The reader is waiting by now, or reads what is there.
    tokio::time::sleep(SHORT).await;
    let begun = Instant::now();
    push(&store, &s, "One ").await;
    let (mut early, first) = wait.await.unwrap();
    assert_eq!(text(&first), "One ");
    assert!(begun.elapsed() < Duration::from_millis(900), "it was woken: {:?}", begun.elapsed());
    assert_eq!(early.next(SHORT).await.unwrap(), Draft::Open(Vec::new()), "nothing came");

    push(&store, &s, "two ").await;
    push(&store, &s, "three").await;
    // Another reader goes on where this one was.
    let mut resumed = store.follow_draft(connect, &s, &turn(), early.position());
    assert_eq!(text(&resumed.next(LONG).await.unwrap()), "two three");
    assert_eq!(text(&early.next(LONG).await.unwrap()), "two three");
    assert_eq!(resumed.position(), early.position());
    let finished = store.finish_draft(&s, &turn(), FinishReason::Stop).await.unwrap();
    let Finished::Stored(entry) = finished else { panic!("{finished:?}") };
    assert_eq!(entry.message.content.to_text(), "One two three");
    for reader in [&mut early, &mut resumed] {
        assert_eq!(reader.next(LONG).await.unwrap(), Draft::Finished(Some(entry.id)));
        assert_eq!(reader.next(Duration::ZERO).await.unwrap(), Draft::Finished(Some(entry.id)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    let (store, connect) = on(Server::shared(Flavor::Redis).unwrap()).await;
    a_reader_hears_every_delta_as_it_comes(store, connect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_valkey() {
    let (store, connect) = on(Server::shared(Flavor::Valkey).unwrap()).await;
    a_reader_hears_every_delta_as_it_comes(store, connect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_cluster() {
    let urls = tokio::task::spawn_blocking(|| Cluster::shared().unwrap().urls()).await.unwrap();
    let (store, connect) = over(PoolConfig::cluster(&urls).unwrap()).await;
    a_reader_hears_every_delta_as_it_comes(store, connect).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_lose_and_double_nothing() {
    const DELTAS: usize = 300;
    let server = Server::start(Flavor::Redis).unwrap();
    let (store, connect) = on(&server).await;
    let s = create(&store, "s").await;
    push(&store, &s, "begin;").await;
    let heard: Vec<Arc<Mutex<String>>> = (0..3).map(|_| Arc::default()).collect();
    let readers = heard.iter().map(|heard| {
        let reader = store.follow_draft(Arc::clone(&connect), &s, &turn(), EntryId::ZERO);
        tokio::spawn(all(reader, Arc::clone(heard)))
    });
    let readers: Vec<_> = readers.collect();
    for number in 0..DELTAS {
        if number % 30 == 7 {
            tokio::task::block_in_place(|| server.kill_clients()).unwrap();
        }
        // Deltas have no ids: one whose answer was lost may come twice, and the readers must agree on that.
        while store.push_draft(&s, &turn(), &[Delta::text(format!("{number};"))]).await.is_err() {}
    }
    let written = text(&store.draft(&s, &turn(), EntryId::ZERO).await.unwrap());
    let begun = Instant::now();
    while heard.iter().any(|heard| heard.lock().unwrap().len() < written.len()) {
        assert!(begun.elapsed() < LONG, "a reader lost something");
        tokio::time::sleep(SHORT).await;
    }
    let finished = store.finish_draft(&s, &turn(), FinishReason::Stop).await.unwrap();
    let Finished::Stored(entry) = finished else { panic!("{finished:?}") };
    assert_eq!(entry.message.content.to_text(), written);
    for (reader, heard) in readers.into_iter().zip(heard) {
        assert_eq!(reader.await.unwrap(), Some(entry.id));
        assert_eq!(*heard.lock().unwrap(), written);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_was_dropped_loses_nothing() {
    let (store, connect) = on(Server::shared(Flavor::Redis).unwrap()).await;
    let s = create(&store, "s").await;
    push(&store, &s, "a").await;
    let mut reader = store.follow_draft(connect, &s, &turn(), EntryId::ZERO);
    assert_eq!(text(&reader.next(LONG).await.unwrap()), "a");
    tokio::time::timeout(SHORT, reader.next(LONG)).await.unwrap_err();
    push(&store, &s, "b").await;
    assert_eq!(text(&reader.next(LONG).await.unwrap()), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_what_is_gone_is_told() {
    let (store, connect) = on(Server::shared(Flavor::Redis).unwrap()).await;
    let s = create(&store, "s").await;
    push(&store, &s, "a").await;
    let mut reader = store.follow_draft(Arc::clone(&connect), &s, &turn(), EntryId::ZERO);
    assert_eq!(text(&reader.next(LONG).await.unwrap()), "a");
    let wait = tokio::spawn(async move { reader.next(LONG).await.unwrap() });
    assert!(store.delete(&s).await.unwrap());
    let begun = Instant::now();
    assert_eq!(wait.await.unwrap(), Draft::Unknown);
    assert!(begun.elapsed() < LONG / 2);
    let mut never = store.follow_draft(connect, &id("never"), &turn(), EntryId::ZERO);
    assert_eq!(never.next(SHORT).await.unwrap(), Draft::Unknown);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stays_away_is_an_error() {
    let server = Server::start(Flavor::Redis).unwrap();
    let (store, connect) = on(&server).await;
    let s = create(&store, "s").await;
    let _ = store.say(&s, Message::user("x")).await.unwrap();
    push(&store, &s, "a").await;
    let mut reader = store.follow_draft(connect, &s, &turn(), EntryId::ZERO);
    assert_eq!(text(&reader.next(LONG).await.unwrap()), "a");
    drop(server);
    let begun = Instant::now();
    let error = reader.next(Duration::from_millis(200)).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(Duration::from_millis(200) <= begun.elapsed() && begun.elapsed() < LONG);
}
