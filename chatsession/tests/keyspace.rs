//! Every key that is written is in the table and expires, and the documents say the same as the table.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use inferkit_chatsession::{
    ClientId, Config, Delta, Draft, EntryId, FinishReason, Fork, KEYS, Message, NewSession, Range,
    RedisSessionStore, SessionStore, SessionStoreExt as _, Summary, Turn, UserId,
};
use inferkit_core::keys::{Ttl, acl, markdown};
use inferkit_core::{Cmd, Connect, DriverExt as _, LEASE_KEYS, Pool};
use inferkit_localredis::{Flavor, Server};
use support::{create, id, say};

async fn connect(url: &str) -> Arc<dyn Connect> {
    Arc::new(Pool::connect(url).await.unwrap())
}

/// Calls everything there is.
async fn use_everything(store: &RedisSessionStore, connect: Arc<dyn Connect>) {
    let s = create(store, "a}:b{").await;
    for number in 0..330 {
        let client = ClientId::new(number.to_string()).unwrap();
        let message = Message::user("x").with_client_id(client);
        let _ = store.append(&s, &message.into()).await.unwrap();
    }
    let first = store.read(&s, Range::After(EntryId::ZERO, 1)).await.unwrap().unwrap()[0].id;
    assert!(store.commit_summary(&s, 0, &Summary::new("x", 1, first, 1)).await.unwrap());
    assert_eq!(store.trim(&s).await.unwrap(), 1);
    let last = store.read(&s, Range::Last(1)).await.unwrap().unwrap()[0].id;
    let _ = store.replace(&s, last, Message::user("y")).await.unwrap();
    store.fork(&s, Fork::Instead(last)).await.unwrap();
    store.recent(&s, u64::MAX).await.unwrap().unwrap();
    for turn in ["done", "open"].map(|turn| Turn::new(turn).unwrap()) {
        store.push_draft(&s, &turn, &[Delta::text("x")]).await.unwrap();
    }
    let done = Turn::new("done").unwrap();
    let mut reader = store.follow_draft(connect, &s, &done, EntryId::ZERO);
    assert!(matches!(reader.next(Duration::from_secs(10)).await.unwrap(), Draft::Open(_)));
    store.finish_draft(&s, &done, FinishReason::Stop).await.unwrap();
    store.draft(&s, &done, EntryId::ZERO).await.unwrap();
    assert_eq!(store.open_drafts(&s).await.unwrap().len(), 1);
    assert!(store.ensure_group(&s, "moderation").await.unwrap());
    assert!(!store.ensure_group(&s, "moderation").await.unwrap());
    let read = store.read_group(&s, "moderation", "one", 10).await.unwrap();
    assert_eq!(read.len(), 10);
    let ids: Vec<EntryId> = read.iter().map(|entry| entry.id).collect();
    let left = store.reclaim_group(&s, "moderation", "two", Duration::ZERO, 4).await.unwrap();
    assert_eq!(left, read[..4]);
    assert_eq!(store.acknowledge(&s, "moderation", &ids).await.unwrap(), 10);
    assert_eq!(store.sessions(&UserId::new("ann").unwrap(), 10).await.unwrap().len(), 1);
    let due = store.claim(10, Duration::from_secs(1)).await.unwrap();
    store.settle(&due.into_iter().map(|due| (due, Some(1))).collect::<Vec<_>>()).await.unwrap();
    assert!(store.mark_archived(&s, Some(last), Duration::from_secs(1)).await.unwrap());
    let lease = store.leases().acquire("x", "me", Duration::from_secs(60)).await.unwrap().unwrap();
    assert!(store.leases().renew(&lease, Duration::from_secs(60)).await.unwrap());
    let gone = create(store, "gone").await;
    say(store, &gone, "x").await;
    let session = store.session(&gone).await.unwrap().unwrap();
    assert!(store.expire(&session).await.unwrap());
    let deleted = create(store, "deleted").await;
    store.push_draft(&deleted, &done, &[Delta::text("x")]).await.unwrap();
    assert!(store.delete(&deleted).await.unwrap());
    let new = NewSession::new(id("erased"), UserId::new("eve").unwrap());
    assert!(store.create(&new).await.unwrap());
    assert_eq!(store.erase_user(&UserId::new("eve").unwrap()).await.unwrap(), [id("erased")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_in_the_table_and_expires() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let config = support::within(Config::new());
    let store = RedisSessionStore::new(Arc::clone(&driver), config.clone()).unwrap();
    use_everything(&store, connect(server.url()).await).await;
    let keys: Vec<String> = driver.query(Cmd::new("KEYS").arg("*")).await.unwrap();
    let prefix = format!("{}:", config.namespace);
    let mut seen = Vec::new();
    for key in keys {
        let shape: Vec<&str> = key.strip_prefix(&prefix).unwrap().split(':').collect();
        let row = match shape[..] {
            ["chat", "{a%7D%3Ab%7B}" | "{deleted}" | "{erased}", "log"] => 0,
            ["chat", "{a%7D%3Ab%7B}" | "{deleted}" | "{erased}", "meta"] => 1,
            ["chat", "{a%7D%3Ab%7B}", "draft", "done" | "open"] => 2,
            ["chat", "user", "ann"] => 3,
            ["chat", "due", _] => 4,
            ["lease", "{x}"] => continue,
            _ => panic!("{key}"),
        };
        seen.push(row);
        let kind: String = driver.query(Cmd::new("TYPE").key(&key)).await.unwrap();
        assert_eq!(kind, KEYS[row].kind, "{key}");
        let left: i64 = driver.query(Cmd::new("PTTL").key(&key)).await.unwrap();
        match (KEYS[row].ttl, &shape[..]) {
            (Ttl::Never(_), _) => assert_eq!(left, -1, "{key}"),
            (_, [_, _, _, "done"]) => assert!(0 < left && left <= 600_000, "{key} {left}"),
            _ => {
                let life = 25 * 60 * 60 * 1000;
                assert!((life - 120_000..=life).contains(&left), "{key} {left}");
            }
        }
    }
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen, [0, 1, 2, 3, 4], "each family is in use");
    let fields: Vec<String> =
        driver.query(Cmd::new("HKEYS").key(store.meta_key(&id("a}:b{")))).await.unwrap();
    let clients = fields.iter().filter(|field| field.starts_with("c:")).count();
    assert!((256..330).contains(&clients), "{clients}");
    let fields: Vec<String> =
        driver.query(Cmd::new("HKEYS").key(store.meta_key(&id("deleted")))).await.unwrap();
    assert_eq!(fields, ["erased"], "a tombstone says nothing else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_table_s_permissions_can_do_everything() {
    let server = Server::start(Flavor::Redis).unwrap();
    let admin = support::pool(server.url()).await;
    let config = support::within(Config::new());
    let mut rules = acl(KEYS, &config.namespace);
    rules.extend(acl(LEASE_KEYS, &config.namespace));
    let cmd = Cmd::new("ACL").args(["SETUSER", "chat", "on", ">secret", "resetchannels"]);
    admin.query::<()>(cmd.args(rules).args(["+hello", "+client", "+ping"])).await.unwrap();
    let url = server.url().replace("redis://", "redis://chat:secret@");
    let store = RedisSessionStore::new(support::pool(&url).await, config).unwrap();
    use_everything(&store, connect(&url).await).await;
}

#[test]
fn the_key_table_of_the_readme_is_the_crate_s() {
    assert!(include_str!("../README.md").contains(&markdown(KEYS)), "{}", markdown(KEYS));
}

#[test]
fn every_script_says_what_it_takes_and_returns() {
    for path in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/scripts")).unwrap() {
        let path = path.unwrap().path();
        let script = std::fs::read_to_string(&path).unwrap();
        let header: Vec<&str> = script
            .lines()
            .filter(|line| *line != "#!lua")
            .take_while(|line| line.starts_with("--"))
            .collect();
        for word in ["KEYS", "ARGV", "Reply"] {
            let found = header.iter().any(|line| line.contains(word));
            let without = word == "ARGV" && path.ends_with("trim.lua");
            assert!(found || without, "the header of {} lacks {word}", path.display());
        }
    }
}
