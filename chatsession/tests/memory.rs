//! What a message costs the server's memory.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;

use inferkit_chatsession::{Append, ClientId, Config, Message, RedisSessionStore, SessionStore};
use inferkit_core::{Cmd, DriverExt as _};
use inferkit_localredis::{Flavor, Server};
use support::create;

/// The bytes per message of 400 bytes beyond these, over sessions of 100 messages.
async fn overhead(flavor: Flavor, with_client_ids: bool) -> i64 {
    const SESSIONS: i64 = 200;
    const MESSAGES: i64 = 100;
    let server = Server::start(flavor).unwrap();
    let driver = support::pool(server.url()).await;
    let config = support::within(Config::new());
    let store = RedisSessionStore::new(Arc::clone(&driver), config).unwrap();
    let used = async || -> i64 {
        let info: String = driver.query(Cmd::new("INFO").arg("memory")).await.unwrap();
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory_dataset:")).unwrap();
        line.trim().parse().unwrap()
    };
    let sessions = (0..SESSIONS).map(|number| format!("session-{number:06}"));
    let mut ids = Vec::new();
    for name in sessions {
        ids.push(create(&store, &name).await);
    }
    let text: String = "Plants turn light into sugar. ".repeat(14).chars().take(400).collect();
    let one = async |id, number: i64| {
        let mut message = Message::user(&*text);
        if with_client_ids {
            message = message.with_client_id(ClientId::new(format!("{number:016}")).unwrap());
        }
        let _ = store.append(id, &Append::new([message])).await.unwrap();
    };
    let before = used().await;
    for number in 0..MESSAGES {
        futures_util::future::join_all(ids.iter().map(|id| one(id, number))).await;
    }
    (used().await - before) / (SESSIONS * MESSAGES) - 400
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_costs_little_more_than_its_text() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let (plain, with_id) = (overhead(flavor, false).await, overhead(flavor, true).await);
        println!("{flavor:?}: {plain} bytes beside a message of 400, {with_id} with a client id");
        assert!(plain <= 110, "{flavor:?}: {plain}");
        assert!(with_id <= 250, "{flavor:?}: {with_id}");
    }
}
