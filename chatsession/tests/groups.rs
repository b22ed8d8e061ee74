//! Consumer groups on a session's log, beside the conversation.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use inferkit_chatsession::{
    Append, Entry, EntryId, Message, Range, SessionStore, SessionStoreExt as _, Summary,
};
use inferkit_localredis::Flavor;
use support::create;

const GROUP: &str = "moderation";

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.message.content.to_text()).collect()
}

fn ids(entries: &[Entry]) -> Vec<EntryId> {
    entries.iter().map(|entry| entry.id).collect()
}

async fn each_message_is_processed(flavor: Flavor) {
    let store = support::on_pool(flavor).await;
    let s = create(&store, "a}:b{").await;
    store.ensure_group(&s, GROUP).await.unwrap_err();
    let append = Append::new(["a", "b", "c", "d"].map(Message::user));
    let _ = store.append(&s, &append).await.unwrap();
    assert!(store.ensure_group(&s, GROUP).await.unwrap());
    assert!(!store.ensure_group(&s, GROUP).await.unwrap());

    let first = store.read_group(&s, GROUP, "one", 2).await.unwrap();
    let second = store.read_group(&s, GROUP, "two", 9).await.unwrap();
    assert_eq!(
        (texts(&first), texts(&second)),
        (vec!["a".into(), "b".into()], vec!["c".into(), "d".into()])
    );
    assert_eq!(store.read_group(&s, GROUP, "two", 9).await.unwrap(), []);
    assert_eq!(store.acknowledge(&s, GROUP, &ids(&second)).await.unwrap(), 2);
    assert_eq!(store.acknowledge(&s, GROUP, &ids(&second)).await.unwrap(), 0);

    // `one` crashed; not yet, and then another takes over.
    let hour = Duration::from_secs(3600);
    assert_eq!(store.reclaim_group(&s, GROUP, "two", hour, 9).await.unwrap(), []);
    let left = store.reclaim_group(&s, GROUP, "two", Duration::ZERO, 9).await.unwrap();
    assert_eq!(left, first);
    assert_eq!(store.acknowledge(&s, GROUP, &ids(&left)).await.unwrap(), 2);
    assert_eq!(store.reclaim_group(&s, GROUP, "two", Duration::ZERO, 9).await.unwrap(), []);

    // Groups see all branches, and the conversation is as it was.
    let last = store.read(&s, Range::Last(1)).await.unwrap().unwrap().remove(0).id;
    let _ = store.replace(&s, last, Message::user("e")).await.unwrap();
    assert_eq!(texts(&store.read_group(&s, GROUP, "one", 9).await.unwrap()), ["e"]);
    let recent = store.recent(&s, u64::MAX).await.unwrap().unwrap();
    assert_eq!(texts(&recent.entries), ["a", "b", "c", "e"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_processed_on_redis() {
    each_message_is_processed(Flavor::Redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_is_processed_on_valkey() {
    each_message_is_processed(Flavor::Valkey).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_trimmed_is_not_open_any_more() {
    let store = support::on_pool(Flavor::Redis).await;
    let s = create(&store, "s").await;
    let _ = store.append(&s, &Append::new(["a", "b"].map(Message::user))).await.unwrap();
    store.ensure_group(&s, GROUP).await.unwrap();
    let read = store.read_group(&s, GROUP, "one", 9).await.unwrap();
    let upto = ids(&read).into_iter().next().unwrap();
    assert!(store.commit_summary(&s, 0, &Summary::new("x", 1, upto, 1)).await.unwrap());
    assert_eq!(store.trim(&s).await.unwrap(), 1);
    let left = store.reclaim_group(&s, GROUP, "two", Duration::ZERO, 9).await.unwrap();
    assert_eq!(texts(&left), ["b"]);
}
