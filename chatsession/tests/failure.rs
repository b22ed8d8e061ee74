//! A full server, sessions of a later release and damaged ones, on a real server.

mod support;

use std::sync::Arc;

use inferkit_chatsession::{
    Append, Config, EntryId, Error, Message, Range, RedisSessionStore, SessionStore,
    SessionStoreExt as _,
};
use inferkit_core::{Cmd, DriverExt as _, ErrorKind};
use inferkit_localredis::{Flavor, Server};
use support::{create, say, with_driver};

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_stores_nothing_and_still_erases() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let server = Server::start(flavor).unwrap();
        let driver = support::pool(server.url()).await;
        let config = support::within(Config::new());
        let store = RedisSessionStore::new(Arc::clone(&driver), config).unwrap();
        let s = create(&store, "s").await;
        for number in 0..100 {
            say(&store, &s, &format!("{number} {}", "x".repeat(100_000))).await;
        }
        let before = store.session(&s).await.unwrap();
        let limit = async |bytes: u64| {
            let cmd = Cmd::new("CONFIG").args(["SET", "maxmemory"]).arg(bytes);
            driver.query::<()>(cmd).await.unwrap();
        };
        let used: String = driver.query(Cmd::new("INFO").arg("memory")).await.unwrap();
        let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
        limit(used.trim().parse::<u64>().unwrap() - 5_000_000).await;
        let messages = ["a", "b"].map(Message::user);
        let error = store.append(&s, &Append::new(messages)).await.unwrap_err();
        let Error::Backend(cause) = &error else { panic!("{error:?}") };
        assert_eq!(cause.kind(), ErrorKind::OutOfMemory, "{error:?}");
        assert_eq!(store.session(&s).await.unwrap(), before);
        assert!(store.window(&s, inferkit_chatsession::Budget::new(1000)).await.unwrap().is_some());
        assert!(store.delete(&s).await.unwrap());
        assert!(matches!(store.say(&s, Message::user("late")).await, Err(Error::Erased)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_later_release_is_neither_read_nor_written() {
    let (store, driver) = with_driver().await;
    let s = create(&store, "s").await;
    say(&store, &s, "a").await;
    driver.query::<()>(Cmd::new("HSET").key(store.meta_key(&s)).args(["v", "2"])).await.unwrap();
    let errors = [
        store.session(&s).await.unwrap_err(),
        store.read(&s, Range::All).await.unwrap_err(),
        store.recent(&s, 10).await.unwrap_err(),
        store.say(&s, Message::user("b")).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::UnknownVersion { found: 2, .. }), "{error:?}");
    }
    let length: u64 = driver.query(Cmd::new("XLEN").key(store.log_key(&s))).await.unwrap();
    assert_eq!(length, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_is_an_error_and_no_message() {
    let (store, driver) = with_driver().await;
    for fields in [
        &["x", "y"][..],
        &[
            "v", "1t", "role", "king", "content", "x", "tokens", "1", "at", "0", "extra", "",
            "parent", "",
        ],
        &[
            "v", "1t", "role", "user", "content", "x", "tokens", "-", "at", "0", "extra", "",
            "parent", "",
        ],
        &[
            "v", "1t", "role", "user", "content", "x", "tokens", "1", "at", "0", "extra", "{",
            "parent", "",
        ],
        &[
            "v", "1p", "role", "user", "content", "x", "tokens", "1", "at", "0", "extra", "",
            "parent", "",
        ],
    ] {
        let s = create(&store, &fields.join("/")).await;
        say(&store, &s, "a").await;
        let cmd = Cmd::new("XADD").key(store.log_key(&s)).arg("*").args(fields);
        driver.query::<()>(cmd).await.unwrap();
        let error = store.read(&s, Range::All).await.unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
        let first = store.read(&s, Range::After(EntryId::ZERO, 1)).await.unwrap().unwrap();
        assert_eq!(first.len(), 1, "what is before it is there");
    }
    let s = create(&store, "hash").await;
    driver.query::<()>(Cmd::new("HSET").key(store.meta_key(&s)).args(["n", "x"])).await.unwrap();
    let error = store.session(&s).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error:?}");
}
