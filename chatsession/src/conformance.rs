//! The suite that every [`SessionStore`] passes; list it with [`session_store_conformance!`](crate::session_store_conformance).
//!
//! Not covered by semver.
#![expect(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a case fails by a panic")]
#![expect(clippy::panic, clippy::indexing_slicing, reason = "a case fails by a panic")]

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::{
    Append, Budget, ClientId, Config, Delta, Draft, Due, Entry, EntryId, Error, FinishReason,
    Finished, Fork, Found, Lifetime, MAX_MESSAGES, Message, NewSession, Part, Pushed, Range, Role,
    SessionId, SessionStore, SessionStoreExt as _, Summary, ToolCall, Transcript, Turn, Usage,
    UserId,
};

/// The settings of the stores that the suite is run on.
#[must_use]
pub fn config() -> Config {
    let lifetime = Lifetime::new(Duration::from_millis(150), Duration::from_millis(400));
    Config::new()
        .with_lifetime(lifetime.with_grace(Duration::from_secs(600)))
        .with_max_message_bytes(1000)
}

/// Names a test per case; `$make` is an `async fn` that returns an empty store with
/// [`config`](crate::conformance::config).
#[macro_export]
macro_rules! session_store_conformance {
    ($make:path) => {
        $crate::session_store_conformance! { $make:
            a_new_session_is_empty, creating_twice_changes_nothing, messages_come_back_in_order,
            every_kind_of_message_comes_back_as_it_was, a_long_log_is_read_whole,
            a_bad_message_stores_nothing, a_session_that_is_not_there_is_not_written,
            a_message_sent_twice_is_stored_once, old_client_ids_are_forgotten,
            ids_with_syntax_are_just_ids, a_deleted_session_stays_deleted,
            sessions_are_listed_by_user, a_user_is_erased_with_all_sessions,
            an_edit_begins_a_branch, a_regenerated_answer_replaces_the_old_one,
            a_fork_goes_on_from_any_message, what_does_not_branch_is_no_branch,
            duplicates_do_not_branch,
            a_summary_stands_for_older_messages, a_stale_summary_is_refused,
            trimming_removes_only_what_is_summarized, a_branched_session_is_not_trimmed,
            branches_around_trimmed_messages_keep_their_summary,
            a_summary_of_another_branch_is_not_shown,
            a_draft_is_followed_and_finished, a_stopped_draft_keeps_what_was_said,
            a_draft_without_content_leaves_no_message, drafts_need_a_session,
            a_draft_is_finished_once, deltas_that_race_with_the_end_are_not_lost,
            concurrent_writers_lose_nothing, due_sessions_are_leased, settled_sessions_come_back,
            a_revived_session_is_not_expired, a_streaming_session_is_not_expired,
            an_archived_session_is_marked, the_window_fits_the_budget, an_export_reads_back,
        }
    };
    ($make:path: $($case:ident),* $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread")]
        async fn $case() {
            $crate::conformance::$case(&$make().await).await;
        }
    )*};
}

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn client(name: impl Into<String>) -> ClientId {
    ClientId::new(name).unwrap()
}

fn turn(name: &str) -> Turn {
    Turn::new(name).unwrap()
}

async fn create(store: &dyn SessionStore, name: &str) -> SessionId {
    assert!(store.create(&NewSession::new(id(name), user("ann"))).await.unwrap());
    id(name)
}

/// Appends messages of ten tokens each.
async fn say<const N: usize>(
    store: &dyn SessionStore,
    session: &SessionId,
    texts: [&str; N],
) -> [EntryId; N] {
    let messages = texts.map(|text| Message::user(text).with_tokens(10));
    let appended = store.append(session, &Append::new(messages)).await.unwrap();
    assert_eq!(appended.duplicates, 0);
    appended.ids.try_into().unwrap()
}

fn texts(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.message.content.to_text()).collect()
}

async fn read(store: &dyn SessionStore, session: &SessionId, range: Range) -> Vec<String> {
    texts(&store.read(session, range).await.unwrap().unwrap())
}

/// The active branch: what its summary stands for, and the messages.
async fn branch(store: &dyn SessionStore, session: &SessionId) -> (Option<String>, Vec<String>) {
    let recent = store.recent(session, u64::MAX).await.unwrap().unwrap();
    (recent.summary.map(|summary| summary.text), texts(&recent.entries))
}

async fn commit(store: &dyn SessionStore, session: &SessionId, text: &str, upto: EntryId) -> bool {
    let version = store.session(session).await.unwrap().unwrap().summary_version;
    store.commit_summary(session, version, &Summary::new(text, 5, upto, 2)).await.unwrap()
}

/// Claims the sessions that are due until `session` is.
async fn claim(store: &dyn SessionStore, session: &SessionId, lease: Duration) -> Due {
    let start = Instant::now();
    loop {
        let due = store.claim(1000, lease).await.unwrap();
        if let Some(due) = due.into_iter().find(|due| due.session == *session) {
            return due;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it never was due");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A session begins with what it was created with.
pub async fn a_new_session_is_empty(store: &dyn SessionStore) {
    assert_eq!(store.session(&id("s")).await.unwrap(), None);
    assert_eq!(store.read(&id("s"), Range::All).await.unwrap(), None);
    assert_eq!(store.recent(&id("s"), 10).await.unwrap(), None);
    let new = NewSession::new(id("s"), user("ann"))
        .with_model("gpt-4.1")
        .with_system("Be brief.")
        .with_metadata("{\"title\":\"Trip\"}");
    assert!(store.create(&new).await.unwrap());
    let session = store.session(&id("s")).await.unwrap().unwrap();
    assert_eq!((session.user.clone(), session.model.as_deref()), (user("ann"), Some("gpt-4.1")));
    assert_eq!(session.system.as_deref(), Some("Be brief."));
    assert_eq!(session.metadata.as_deref(), Some("{\"title\":\"Trip\"}"));
    assert!(0 < session.system_tokens && session.system_tokens < 10);
    assert_eq!((session.last, session.messages, session.tokens), (None, 0, 0));
    assert_eq!(session.active(), session.created);
    for range in [Range::All, Range::Last(3), Range::After(EntryId::ZERO, 3)] {
        assert_eq!(store.read(&id("s"), range).await.unwrap(), Some(vec![]));
    }
    let recent = store.recent(&id("s"), 10).await.unwrap().unwrap();
    assert_eq!((recent.session, recent.entries), (session, vec![]));
}

/// Creating is idempotent for the user, and refused to others.
pub async fn creating_twice_changes_nothing(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    say(store, &s, ["a"]).await;
    let before = store.session(&s).await.unwrap();
    let again = NewSession::new(s.clone(), user("ann")).with_system("other");
    assert!(!store.create(&again).await.unwrap());
    assert_eq!(store.session(&s).await.unwrap(), before);
    let error = store.create(&NewSession::new(s.clone(), user("bob"))).await.unwrap_err();
    assert!(matches!(error, Error::OtherUser), "{error:?}");
    assert_eq!(store.sessions(&user("bob"), 10).await.unwrap(), vec![]);
}

/// All, the last ones, and those after one.
pub async fn messages_come_back_in_order(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [a, b] = say(store, &s, ["a", "b"]).await;
    let [c] = say(store, &s, ["c"]).await;
    assert!(a < b && b < c);
    assert_eq!(read(store, &s, Range::All).await, ["a", "b", "c"]);
    assert_eq!(read(store, &s, Range::Last(2)).await, ["b", "c"]);
    assert_eq!(read(store, &s, Range::Last(0)).await, [""; 0]);
    assert_eq!(read(store, &s, Range::Last(9)).await, ["a", "b", "c"]);
    assert_eq!(read(store, &s, Range::After(a, 1)).await, ["b"]);
    assert_eq!(read(store, &s, Range::After(a, 9)).await, ["b", "c"]);
    assert_eq!(read(store, &s, Range::After(a, 0)).await, [""; 0]);
    assert_eq!(read(store, &s, Range::After(c, 9)).await, [""; 0]);
    let session = store.session(&s).await.unwrap().unwrap();
    assert_eq!((session.last, session.messages, session.tokens), (Some(c), 3, 30));
    let entries = store.read(&s, Range::All).await.unwrap().unwrap();
    let places: Vec<_> = entries.iter().map(|entry| (entry.offset, entry.tokens)).collect();
    assert_eq!(places, [(0, 10), (10, 10), (20, 10)]);
}

/// Parts, tool calls, results, usage, names and any text.
pub async fn every_kind_of_message_comes_back_as_it_was(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let usage = Usage { prompt_tokens: 100, completion_tokens: 17, cached_tokens: 64 };
    let parts = vec![
        Part::Text { text: "What is this?".into() },
        Part::Other(serde_json::json!({"type": "file", "file": {"file_id": "f"}})),
    ];
    let messages = [
        Message::user("naïve \0\r\n 🙂 '\"\\"),
        Message::user(parts).with_name("ann"),
        Message::tool_calls([ToolCall::new("1", "find", "{\"q\":"), ToolCall::new("2", "f", "")]),
        Message::tool("1", "found"),
        Message::tool("2", ""),
        Message::assistant("Here.").with_usage(usage).with_finish_reason(FinishReason::Stop),
        Message::new(Role::System, "s"),
        Message::new(Role::Developer, "d").with_client_id(client("c:*\n")),
    ];
    let _ = store.append(&s, &Append::new(messages.clone())).await.unwrap();
    let entries = store.read(&s, Range::All).await.unwrap().unwrap();
    for (entry, message) in entries.iter().zip(&messages) {
        assert_eq!(entry.message, *message);
        assert!(0 < entry.tokens);
    }
    assert_eq!(entries.len(), messages.len());
    assert_eq!(entries[5].tokens, 17, "what the provider reported");
}

/// No limit of a page cuts a log.
pub async fn a_long_log_is_read_whole(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let all: Vec<String> = (0..1203).map(|number| number.to_string()).collect();
    for page in all.chunks(401) {
        let messages = page.iter().map(|text| Message::user(text.as_str()).with_tokens(10));
        let _ = store.append(&s, &Append::new(messages)).await.unwrap();
    }
    assert_eq!(read(store, &s, Range::All).await, all);
    assert_eq!(read(store, &s, Range::Last(1100)).await, all[103..]);
    assert_eq!(read(store, &s, Range::After(EntryId::ZERO, 1100)).await, all[..1100]);
    assert_eq!(branch(store, &s).await.1, all);
    for (tokens, expected) in [(500, 50), (501, 51), (6000, 600)] {
        let recent = store.recent(&s, tokens).await.unwrap().unwrap();
        assert_eq!(texts(&recent.entries), all[1203 - expected..], "{tokens}");
    }
}

/// What cannot be stored is an error, and nothing of the call is stored.
pub async fn a_bad_message_stores_nothing(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let good = || Message::user("good");
    let nameless = Message::new(Role::Tool, "result");
    let many = vec![good(); MAX_MESSAGES + 1];
    let append =
        async |messages: Vec<Message>| store.append(&s, &Append::new(messages)).await.unwrap_err();
    assert!(matches!(append(vec![]).await, Error::NothingToAppend));
    assert!(matches!(append(vec![good(), Message::user("")]).await, Error::EmptyMessage));
    assert!(matches!(append(vec![good(), nameless]).await, Error::ToolWithoutCall));
    let long = append(vec![good(), Message::user("x".repeat(1001))]).await;
    assert!(matches!(long, Error::MessageTooLong { bytes: 1001, max: 1000 }), "{long:?}");
    assert!(matches!(append(many).await, Error::TooManyMessages { .. }));
    let elsewhere = Append::from(good()).at(Fork::After(EntryId::new(1, 1)));
    let error = store.append(&s, &elsewhere).await.unwrap_err();
    assert!(matches!(error, Error::NoMessage { .. }), "{error:?}");
    assert_eq!(read(store, &s, Range::All).await, [""; 0]);
    assert_eq!(store.session(&s).await.unwrap().unwrap().messages, 0);
}

/// A late writer never makes a session.
pub async fn a_session_that_is_not_there_is_not_written(store: &dyn SessionStore) {
    let s = id("s");
    let errors = [
        store.append(&s, &Message::user("a").into()).await.unwrap_err(),
        store.fork(&s, Fork::After(EntryId::ZERO)).await.unwrap_err(),
        store.trim(&s).await.unwrap_err(),
        store.push_draft(&s, &turn("t"), &[Delta::text("x")]).await.unwrap_err(),
        store.commit_summary(&s, 0, &Summary::new("x", 1, EntryId::ZERO, 1)).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::NoSession), "{error:?}");
    }
    assert!(!store.mark_archived(&s, None, Duration::from_secs(1)).await.unwrap());
    assert!(matches!(store.inspect(&s).await.unwrap(), Found::Gone));
}

/// Also when others come in between, and within one call.
pub async fn a_message_sent_twice_is_stored_once(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let message = |name: &str| Message::user(name).with_client_id(client(name));
    let first = store.append(&s, &Append::new([message("a"), message("b")])).await.unwrap();
    say(store, &s, ["x"]).await;
    let again = Append::new([message("b"), message("c"), message("a"), message("c")]);
    let again = store.append(&s, &again).await.unwrap();
    assert_eq!(again.duplicates, 3);
    assert_eq!((again.ids[0], again.ids[2]), (first.ids[1], first.ids[0]));
    assert_eq!(again.ids[1], again.ids[3]);
    assert_eq!(read(store, &s, Range::All).await, ["a", "b", "x", "c"]);
    assert_eq!(store.session(&s).await.unwrap().unwrap().messages, 4);
    let other = create(store, "other").await;
    assert_eq!(store.say(&other, message("a")).await.unwrap().duplicates, 0, "another session");
}

/// The newest 256 are known, and the memory of a session does not grow with its messages.
pub async fn old_client_ids_are_forgotten(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let message = |number: usize| Message::user("x").with_client_id(client(number.to_string()));
    for batch in 0..10 {
        let messages = (batch * 100..(batch + 1) * 100).map(message);
        let _ = store.append(&s, &Append::new(messages)).await.unwrap();
    }
    let newest = store.append(&s, &Append::new((744..1000).map(message))).await.unwrap();
    assert_eq!(newest.duplicates, 256);
    let oldest = store.append(&s, &Append::new((0..10).map(message))).await.unwrap();
    assert_eq!(oldest.duplicates, 0);
}

/// Ids are any text, and no two of them meet.
pub async fn ids_with_syntax_are_just_ids(store: &dyn SessionStore) {
    let names = ["a}:b{", "a", "{a}", "a:log", "*", " ", "naïve 🙂", "a\0b\r\n", "%61"];
    for name in names {
        let session = NewSession::new(id(name), user(name));
        assert!(store.create(&session).await.unwrap(), "{name:?}");
        say(store, &id(name), [name]).await;
        store.push_draft(&id(name), &turn(name), &[Delta::text(name)]).await.unwrap();
    }
    for name in names {
        assert_eq!(read(store, &id(name), Range::All).await, [name]);
        assert_eq!(store.open_drafts(&id(name)).await.unwrap(), [turn(name)]);
        let listed = store.sessions(&user(name), 10).await.unwrap();
        assert_eq!(listed.into_iter().map(|session| session.id).collect::<Vec<_>>(), [id(name)]);
    }
    assert!(store.delete(&id(names[0])).await.unwrap());
    for name in &names[1..] {
        assert_eq!(read(store, &id(name), Range::All).await, [*name]);
    }
}

/// No late writer brings it back, and the janitor hears of it.
pub async fn a_deleted_session_stays_deleted(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    say(store, &s, ["a"]).await;
    store.push_draft(&s, &turn("t"), &[Delta::text("secret")]).await.unwrap();
    assert!(store.delete(&s).await.unwrap());
    assert!(!store.delete(&s).await.unwrap());
    assert_eq!(store.session(&s).await.unwrap(), None);
    assert_eq!(store.read(&s, Range::All).await.unwrap(), None);
    assert_eq!(store.draft(&s, &turn("t"), EntryId::ZERO).await.unwrap(), Draft::Unknown);
    let errors = [
        store.append(&s, &Message::user("b").into()).await.unwrap_err(),
        store.create(&NewSession::new(s.clone(), user("ann"))).await.unwrap_err(),
        store.push_draft(&s, &turn("t"), &[Delta::text("x")]).await.unwrap_err(),
        store.finish_draft(&s, &turn("t"), FinishReason::Stop).await.unwrap_err(),
        store.commit_summary(&s, 0, &Summary::new("x", 1, EntryId::ZERO, 1)).await.unwrap_err(),
        store.fork(&s, Fork::After(EntryId::ZERO)).await.unwrap_err(),
        store.trim(&s).await.unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::Erased), "{error:?}");
    }
    assert!(!store.mark_archived(&s, None, Duration::from_secs(1)).await.unwrap());
    assert!(matches!(store.inspect(&s).await.unwrap(), Found::Erased));
    assert_eq!(store.sessions(&user("ann"), 10).await.unwrap(), vec![]);
    claim(store, &s, Duration::from_secs(60)).await;
}

/// The latest active first.
pub async fn sessions_are_listed_by_user(store: &dyn SessionStore) {
    for name in ["a", "b", "c"] {
        create(store, name).await;
        say(store, &id(name), [name]).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    assert!(store.create(&NewSession::new(id("d"), user("bob"))).await.unwrap());
    let names = async |limit| {
        let sessions = store.sessions(&user("ann"), limit).await.unwrap();
        sessions.into_iter().map(|session| session.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(10).await, ["c", "b", "a"]);
    assert_eq!(names(2).await, ["c", "b"]);
    assert_eq!(names(0).await, [""; 0]);
    say(store, &id("a"), ["again"]).await;
    assert_eq!(names(10).await, ["a", "c", "b"]);
    assert!(store.delete(&id("c")).await.unwrap());
    assert_eq!(names(10).await, ["a", "b"]);
    assert_eq!(store.sessions(&user("eve"), 10).await.unwrap(), vec![]);
}

/// Nobody else's go.
pub async fn a_user_is_erased_with_all_sessions(store: &dyn SessionStore) {
    for name in ["a", "b", "c"] {
        create(store, name).await;
        say(store, &id(name), [name]).await;
    }
    assert!(store.create(&NewSession::new(id("d"), user("bob"))).await.unwrap());
    let mut erased = store.erase_user(&user("ann")).await.unwrap();
    erased.sort();
    assert_eq!(erased, [id("a"), id("b"), id("c")]);
    assert_eq!(store.sessions(&user("ann"), 10).await.unwrap(), vec![]);
    assert_eq!(store.erase_user(&user("ann")).await.unwrap(), vec![]);
    let error = store.append(&id("a"), &Message::user("late").into()).await.unwrap_err();
    assert!(matches!(error, Error::Erased), "{error:?}");
    assert_eq!(store.sessions(&user("bob"), 10).await.unwrap().len(), 1);
}

/// An edit of an earlier message: what followed it is on another branch.
pub async fn an_edit_begins_a_branch(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [a, b, _] = say(store, &s, ["a", "b", "c"]).await;
    let edit = store.replace(&s, b, Message::user("B").with_tokens(3)).await.unwrap();
    assert_eq!(branch(store, &s).await.1, ["a", "B"]);
    let session = store.session(&s).await.unwrap().unwrap();
    assert_eq!((session.tokens, session.messages, session.leaf), (13, 4, Some(edit.ids[0])));
    say(store, &s, ["d", "e"]).await;
    assert_eq!(branch(store, &s).await.1, ["a", "B", "d", "e"]);
    assert_eq!(
        read(store, &s, Range::All).await,
        ["a", "b", "c", "B", "d", "e"],
        "nothing is lost"
    );
    // The first message, and an edit of the edit.
    let _ = store.replace(&s, a, Message::user("A").with_tokens(1)).await.unwrap();
    assert_eq!(branch(store, &s).await.1, ["A"]);
    let _ = store.replace(&s, edit.ids[0], Message::user("BB").with_tokens(1)).await.unwrap();
    assert_eq!(branch(store, &s).await.1, ["a", "BB"]);
    let recent = store.recent(&s, 1).await.unwrap().unwrap();
    assert_eq!(recent.entries.last().map(Entry::end), Some(11));
    assert_eq!(recent.session.tokens, 11);
}

/// The last answer is generated again, and again.
pub async fn a_regenerated_answer_replaces_the_old_one(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [_, answer] = say(store, &s, ["question", "answer"]).await;
    for text in ["second", "third"] {
        let _ = store.replace(&s, answer, Message::assistant(text)).await.unwrap();
        assert_eq!(branch(store, &s).await.1, ["question", text]);
    }
    assert_eq!(store.fork(&s, Fork::After(answer)).await.unwrap(), answer);
    assert_eq!(branch(store, &s).await.1, ["question", "answer"], "back to the first");
    say(store, &s, ["thanks"]).await;
    assert_eq!(branch(store, &s).await.1, ["question", "answer", "thanks"]);
}

/// Forks choose the branch without a message.
pub async fn a_fork_goes_on_from_any_message(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [a, b, c] = say(store, &s, ["a", "b", "c"]).await;
    assert_eq!(store.fork(&s, Fork::After(a)).await.unwrap(), a);
    assert_eq!(branch(store, &s).await.1, ["a"]);
    assert_eq!(store.session(&s).await.unwrap().unwrap().tokens, 10);
    let [d] = say(store, &s, ["d"]).await;
    assert_eq!(branch(store, &s).await.1, ["a", "d"]);
    assert_eq!(store.fork(&s, Fork::Instead(c)).await.unwrap(), b);
    assert_eq!(branch(store, &s).await.1, ["a", "b"]);
    assert_eq!(store.fork(&s, Fork::Instead(d)).await.unwrap(), a);
    assert_eq!(store.fork(&s, Fork::After(EntryId::ZERO)).await.unwrap(), EntryId::ZERO);
    assert_eq!(branch(store, &s).await.1, [""; 0]);
    say(store, &s, ["e", "f"]).await;
    assert_eq!(branch(store, &s).await.1, ["e", "f"]);
    assert_eq!(store.fork(&s, Fork::After(c)).await.unwrap(), c);
    assert_eq!(branch(store, &s).await.1, ["a", "b", "c"]);
    let error = store.fork(&s, Fork::After(EntryId::new(1, 1))).await.unwrap_err();
    assert!(matches!(error, Error::NoMessage { .. }), "{error:?}");
}

/// A session that only ever goes on from its end stays cheap.
pub async fn what_does_not_branch_is_no_branch(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    store.fork(&s, Fork::After(EntryId::ZERO)).await.unwrap();
    let first = Append::from(Message::user("a")).at(Fork::After(EntryId::ZERO));
    let first = store.append(&s, &first).await.unwrap();
    let second = Append::from(Message::user("b")).at(Fork::After(first.ids[0]));
    let second = store.append(&s, &second).await.unwrap();
    store.fork(&s, Fork::After(second.ids[0])).await.unwrap();
    assert_eq!(store.session(&s).await.unwrap().unwrap().leaf, None);
    assert_eq!(branch(store, &s).await.1, ["a", "b"]);
}

/// Sending an edit twice makes one branch.
pub async fn duplicates_do_not_branch(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [_, b, _] = say(store, &s, ["a", "b", "c"]).await;
    let edit = Append::from(Message::user("B").with_client_id(client("1"))).at(Fork::Instead(b));
    let _ = store.append(&s, &edit).await.unwrap();
    say(store, &s, ["d"]).await;
    assert_eq!(store.append(&s, &edit).await.unwrap().duplicates, 1);
    assert_eq!(branch(store, &s).await.1, ["a", "B", "d"]);
}

/// The window goes on after the summary.
pub async fn a_summary_stands_for_older_messages(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [_, b, _] = say(store, &s, ["a", "b", "c"]).await;
    assert!(commit(store, &s, "a+b", b).await);
    assert_eq!(branch(store, &s).await, (Some("a+b".into()), vec!["c".into()]));
    assert_eq!(read(store, &s, Range::All).await, ["a", "b", "c"]);
    let summary = store.session(&s).await.unwrap().unwrap().summary.unwrap();
    assert_eq!((summary.upto, summary.tokens, summary.messages), (b, 5, 2));
    let recent = store.recent(&s, 1).await.unwrap().unwrap();
    assert_eq!(recent.summary, Some(summary));
}

/// Of two that summarize the same messages one is stored.
pub async fn a_stale_summary_is_refused(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [a, b] = say(store, &s, ["a", "b"]).await;
    let version = store.session(&s).await.unwrap().unwrap().summary_version;
    for (upto, stored) in [(a, true), (b, false)] {
        let summary = Summary::new("x", 1, upto, 1);
        assert_eq!(store.commit_summary(&s, version, &summary).await.unwrap(), stored);
    }
    // A message does not matter to a summary, but another branch does.
    let version = store.session(&s).await.unwrap().unwrap().summary_version;
    say(store, &s, ["c"]).await;
    assert_eq!(store.session(&s).await.unwrap().unwrap().summary_version, version);
    let _ = store.replace(&s, b, Message::user("B")).await.unwrap();
    assert!(!store.commit_summary(&s, version, &Summary::new("x", 1, b, 2)).await.unwrap());
}

/// The newest messages stay, exactly.
pub async fn trimming_removes_only_what_is_summarized(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let ids = say(store, &s, ["a", "b", "c", "d"]).await;
    assert_eq!(store.trim(&s).await.unwrap(), 0, "no summary, no trimming");
    assert!(commit(store, &s, "a+b", ids[1]).await);
    assert_eq!(store.trim(&s).await.unwrap(), 2);
    assert_eq!(store.trim(&s).await.unwrap(), 0);
    assert_eq!(read(store, &s, Range::All).await, ["c", "d"]);
    assert_eq!(branch(store, &s).await, (Some("a+b".into()), vec!["c".into(), "d".into()]));
    assert!(commit(store, &s, "all", ids[3]).await);
    assert_eq!(store.trim(&s).await.unwrap(), 2);
    assert_eq!(branch(store, &s).await, (Some("all".into()), vec![]));
    let [e] = say(store, &s, ["e"]).await;
    assert!(ids[3] < e);
    assert_eq!(branch(store, &s).await, (Some("all".into()), vec!["e".into()]));
    let session = store.session(&s).await.unwrap().unwrap();
    assert_eq!((session.messages, session.tokens), (5, 50));
}

/// Other branches are not in the summary.
pub async fn a_branched_session_is_not_trimmed(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [_, b] = say(store, &s, ["a", "b"]).await;
    let edit = store.replace(&s, b, Message::user("B")).await.unwrap();
    assert!(commit(store, &s, "a+B", edit.ids[0]).await);
    assert_eq!(store.trim(&s).await.unwrap(), 0);
    assert_eq!(read(store, &s, Range::All).await, ["a", "b", "B"]);
}

/// A branch may begin between two summaries.
pub async fn branches_around_trimmed_messages_keep_their_summary(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [a, b, c, d] = say(store, &s, ["a", "b", "c", "d"]).await;
    assert!(commit(store, &s, "a+b", b).await);
    store.trim(&s).await.unwrap();
    assert!(commit(store, &s, "a+b+c", c).await);
    let error = store.replace(&s, a, Message::user("A")).await.unwrap_err();
    assert!(matches!(error, Error::NoMessage { id } if id == a), "{error:?}");
    let _ = store.replace(&s, c, Message::user("C")).await.unwrap();
    assert_eq!(branch(store, &s).await, (Some("a+b".into()), vec!["C".into()]));
    store.fork(&s, Fork::After(d)).await.unwrap();
    assert_eq!(branch(store, &s).await, (Some("a+b+c".into()), vec!["d".into()]));
    store.fork(&s, Fork::After(EntryId::ZERO)).await.unwrap();
    say(store, &s, ["anew"]).await;
    assert_eq!(branch(store, &s).await, (None, vec!["anew".into()]));
}

/// It comes back with its branch.
pub async fn a_summary_of_another_branch_is_not_shown(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [_, b, c] = say(store, &s, ["a", "b", "c"]).await;
    assert!(commit(store, &s, "a+b", b).await);
    let _ = store.replace(&s, b, Message::user("B")).await.unwrap();
    assert_eq!(branch(store, &s).await, (None, vec!["a".into(), "B".into()]));
    store.fork(&s, Fork::After(c)).await.unwrap();
    assert_eq!(branch(store, &s).await, (Some("a+b".into()), vec!["c".into()]));
}

/// Readers resume where they were, and end up with the message.
pub async fn a_draft_is_followed_and_finished(store: &dyn SessionStore) {
    let (s, t) = (create(store, "s").await, turn("t"));
    let [a] = say(store, &s, ["a"]).await;
    assert_eq!(store.draft(&s, &t, EntryId::ZERO).await.unwrap(), Draft::Unknown);
    let push = async |text: &str| match store.push_draft(&s, &t, &[Delta::text(text)]).await {
        Ok(Pushed::Open(id)) => id,
        other => panic!("{other:?}"),
    };
    let first = push("Once ").await;
    let second = push("upon ").await;
    assert!(first < second);
    let deltas = vec![(first, Delta::text("Once ")), (second, Delta::text("upon "))];
    assert_eq!(store.draft(&s, &t, EntryId::ZERO).await.unwrap(), Draft::Open(deltas.clone()));
    assert_eq!(store.draft(&s, &t, first).await.unwrap(), Draft::Open(deltas[1..].to_vec()));
    assert_eq!(store.draft(&s, &t, second).await.unwrap(), Draft::Open(vec![]));
    assert_eq!(store.open_drafts(&s).await.unwrap(), std::slice::from_ref(&t));
    assert_eq!(read(store, &s, Range::All).await, ["a"], "a draft is no message");
    push("a time").await;
    let finished = store.finish_draft(&s, &t, FinishReason::Stop).await.unwrap();
    let Finished::Stored(entry) = finished else { panic!("{finished:?}") };
    assert_eq!(entry.message.content.to_text(), "Once upon a time");
    assert_eq!((entry.message.role, entry.offset), (Role::Assistant, 10));
    assert_eq!(entry.message.finish_reason, Some(FinishReason::Stop));
    assert_eq!(
        store.read(&s, Range::After(a, 9)).await.unwrap().unwrap(),
        std::slice::from_ref(&entry)
    );
    assert_eq!(store.draft(&s, &t, second).await.unwrap(), Draft::Finished(Some(entry.id)));
    assert_eq!(store.open_drafts(&s).await.unwrap(), vec![]);
    assert_eq!(store.session(&s).await.unwrap().unwrap().drafts, 0);
}

/// Whoever stops it; its writer hears of it.
pub async fn a_stopped_draft_keeps_what_was_said(store: &dyn SessionStore) {
    let (s, t) = (create(store, "s").await, turn("t"));
    let call = Delta::ToolCall {
        index: 0,
        id: "1".into(),
        name: "find".into(),
        arguments: "{\"q\"".into(),
    };
    store.push_draft(&s, &t, &[Delta::text("Let me "), call]).await.unwrap();
    let usage = Usage { prompt_tokens: 9, completion_tokens: 31, cached_tokens: 4 };
    store.push_draft(&s, &t, &[Delta::Usage { usage }]).await.unwrap();
    store.finish_draft(&s, &t, FinishReason::Stopped).await.unwrap();
    let pushed = store.push_draft(&s, &t, &[Delta::text("see")]).await.unwrap();
    assert_eq!(pushed, Pushed::Finished);
    let entries = store.read(&s, Range::All).await.unwrap().unwrap();
    assert_eq!(texts(&entries), ["Let me "]);
    assert_eq!(entries[0].message.tool_calls, [ToolCall::new("1", "find", "{\"q\"")]);
    assert_eq!(entries[0].message.finish_reason, Some(FinishReason::Stopped));
    assert_eq!((entries[0].message.usage, entries[0].tokens), (Some(usage), 31));
}

/// Nothing said, nothing stored.
pub async fn a_draft_without_content_leaves_no_message(store: &dyn SessionStore) {
    let (s, t) = (create(store, "s").await, turn("t"));
    store.push_draft(&s, &t, &[Delta::text("")]).await.unwrap();
    let finished = store.finish_draft(&s, &t, FinishReason::Stopped).await.unwrap();
    assert_eq!(finished, Finished::Empty);
    assert_eq!(store.draft(&s, &t, EntryId::ZERO).await.unwrap(), Draft::Finished(None));
    let finished = store.finish_draft(&s, &t, FinishReason::Stopped).await.unwrap();
    assert_eq!(finished, Finished::Before(None));
    assert_eq!(read(store, &s, Range::All).await, [""; 0]);
}

/// And deltas.
pub async fn drafts_need_a_session(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let error = store.finish_draft(&s, &turn("t"), FinishReason::Stop).await.unwrap_err();
    assert!(matches!(error, Error::DraftGone), "{error:?}");
    let error = store.finish_draft(&id("x"), &turn("t"), FinishReason::Stop).await.unwrap_err();
    assert!(matches!(error, Error::NoSession), "{error:?}");
    let error = store.push_draft(&s, &turn("t"), &[]).await.unwrap_err();
    assert!(matches!(error, Error::NothingToAppend), "{error:?}");
}

/// By however many.
pub async fn a_draft_is_finished_once(store: &dyn SessionStore) {
    let (s, t) = (create(store, "s").await, turn("t"));
    store.push_draft(&s, &t, &[Delta::text("yes")]).await.unwrap();
    let finish = (0..8).map(|_| store.finish_draft(&s, &t, FinishReason::Stop));
    let finished: Vec<_> = join_all(finish).await.into_iter().map(Result::unwrap).collect();
    let stored: Vec<_> = finished
        .iter()
        .filter_map(|one| if let Finished::Stored(entry) = one { Some(entry.id) } else { None })
        .collect();
    assert_eq!(stored.len(), 1, "{finished:?}");
    let before = finished.iter().filter(|one| **one == Finished::Before(Some(stored[0]))).count();
    assert_eq!(before, 7, "{finished:?}");
    assert_eq!(read(store, &s, Range::All).await, ["yes"]);
}

/// What was accepted is in the message.
pub async fn deltas_that_race_with_the_end_are_not_lost(store: &dyn SessionStore) {
    let (s, t) = (create(store, "s").await, turn("t"));
    let write = async {
        let mut accepted = String::new();
        loop {
            match store.push_draft(&s, &t, &[Delta::text("x")]).await.unwrap() {
                Pushed::Open(_) => accepted.push('x'),
                Pushed::Finished => return accepted,
            }
            tokio::task::yield_now().await;
        }
    };
    let stop = async {
        while store.open_drafts(&s).await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        store.finish_draft(&s, &t, FinishReason::Stopped).await.unwrap()
    };
    let (accepted, _) = futures_util::join!(write, stop);
    assert_eq!(read(store, &s, Range::All).await, [accepted]);
}

/// Every message once, each call's together, each writer's in order.
pub async fn concurrent_writers_lose_nothing(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let write = (0..8).map(|writer| {
        let s = &s;
        async move {
            for number in 0..25 {
                let messages = ["a", "b"]
                    .map(|part| Message::user(format!("{writer}/{number}/{part}")).with_tokens(1));
                let _ = store.append(s, &Append::new(messages)).await.unwrap();
            }
        }
    });
    join_all(write).await;
    let all = read(store, &s, Range::All).await;
    assert_eq!(all.len(), 400);
    for pair in all.chunks(2) {
        assert_eq!(pair[0].strip_suffix("/a"), pair[1].strip_suffix("/b"), "together");
    }
    for writer in 0..8 {
        let of_writer = all.iter().filter_map(|text| text.strip_prefix(&format!("{writer}/")));
        let expected = (0..25).flat_map(|n| [format!("{n}/a"), format!("{n}/b")]);
        assert!(of_writer.eq(expected), "in order");
    }
    let session = store.session(&s).await.unwrap().unwrap();
    assert_eq!((session.messages, session.tokens), (400, 400));
    let entries = store.read(&s, Range::All).await.unwrap().unwrap();
    assert!(entries.iter().map(|entry| entry.offset).eq(0..400));
}

/// One claimant at a time; a claim that is not settled comes again.
pub async fn due_sessions_are_leased(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let first = claim(store, &s, Duration::from_millis(300)).await;
    assert!(first.now < first.until);
    let lost = claim(store, &s, Duration::from_secs(60)).await;
    assert!(first.until <= lost.now, "not before the lease ended");
    assert!(store.claim(1000, Duration::from_secs(60)).await.unwrap().is_empty());
    // The first claimant comes late and changes nothing.
    store.settle(&[(first, None)]).await.unwrap();
    store.settle(&[(lost.clone(), Some(lost.now))]).await.unwrap();
    claim(store, &s, Duration::from_secs(60)).await;
}

/// At the time that was given, or never.
pub async fn settled_sessions_come_back(store: &dyn SessionStore) {
    let (a, lease) = (create(store, "a").await, Duration::from_secs(60));
    let due = claim(store, &a, lease).await;
    let next = due.now + 200;
    store.settle(&[(due, Some(next))]).await.unwrap();
    let due = claim(store, &a, lease).await;
    assert!(next <= due.now);
    store.settle(&[(due, None)]).await.unwrap();
    let b = create(store, "b").await;
    let due = claim(store, &b, lease).await;
    assert!(next < due.now);
    assert!(store.claim(1000, lease).await.unwrap().is_empty(), "not the one that is gone");
}

/// A message in between keeps it.
pub async fn a_revived_session_is_not_expired(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    say(store, &s, ["a"]).await;
    let seen = store.session(&s).await.unwrap().unwrap();
    say(store, &s, ["b"]).await;
    assert!(!store.expire(&seen).await.unwrap());
    assert_eq!(read(store, &s, Range::All).await, ["a", "b"]);
    let seen = store.session(&s).await.unwrap().unwrap();
    assert!(store.expire(&seen).await.unwrap());
    assert!(!store.expire(&seen).await.unwrap());
    assert_eq!(store.read(&s, Range::All).await.unwrap(), None);
    assert_eq!(store.sessions(&user("ann"), 10).await.unwrap(), vec![]);
    // Its time was over: the id may begin anew.
    create(store, "s").await;
    assert_eq!(read(store, &s, Range::All).await, [""; 0]);
}

/// Somebody is waiting for the answer.
pub async fn a_streaming_session_is_not_expired(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    store.push_draft(&s, &turn("t"), &[Delta::text("x")]).await.unwrap();
    let seen = store.session(&s).await.unwrap().unwrap();
    assert_eq!(seen.drafts, 1);
    assert!(!store.expire(&seen).await.unwrap());
    store.finish_draft(&s, &turn("t"), FinishReason::Stop).await.unwrap();
    assert!(!store.expire(&seen).await.unwrap(), "it has a message more");
    let seen = store.session(&s).await.unwrap().unwrap();
    assert!(store.expire(&seen).await.unwrap());
}

/// Until which message.
pub async fn an_archived_session_is_marked(store: &dyn SessionStore) {
    let s = create(store, "s").await;
    let [a] = say(store, &s, ["a"]).await;
    let keep = Duration::from_secs(1);
    assert!(store.mark_archived(&s, None, keep).await.unwrap());
    assert_eq!(store.session(&s).await.unwrap().unwrap().archived, None);
    assert!(store.mark_archived(&s, Some(a), keep).await.unwrap());
    assert_eq!(store.session(&s).await.unwrap().unwrap().archived, Some(a));
    say(store, &s, ["b"]).await;
    assert_eq!(store.session(&s).await.unwrap().unwrap().archived, Some(a));
}

/// System prompt, summary and the newest messages.
pub async fn the_window_fits_the_budget(store: &dyn SessionStore) {
    assert_eq!(store.window(&id("s"), Budget::new(100)).await.unwrap(), None);
    let mut new = NewSession::new(id("s"), user("ann")).with_system("Be brief.");
    new.system_tokens = Some(5);
    assert!(store.create(&new).await.unwrap());
    let ids = say(store, &id("s"), ["a", "b", "c", "d", "e"]).await;
    assert!(commit(store, &id("s"), "a+b", ids[1]).await);
    let window = store.window(&id("s"), Budget::new(30).with_step(0)).await.unwrap().unwrap();
    assert_eq!(texts(&window.entries), ["d", "e"]);
    assert_eq!((window.tokens, window.dropped), (30, 1));
    let sent = window.to_messages();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[0].content.to_text(), "Be brief.");
    assert!(sent[1].content.to_text().ends_with("a+b"));
    let error = store.window(&id("s"), Budget::new(19)).await.unwrap_err();
    assert!(matches!(error, Error::BudgetTooSmall { needed: 20, budget: 19 }), "{error:?}");
}

/// Byte by byte.
pub async fn an_export_reads_back(store: &dyn SessionStore) {
    assert_eq!(store.export(&id("s")).await.unwrap(), None);
    let s = create(store, "s").await;
    let [a, b, _] = say(store, &s, ["a\n", "b", "c 🙂"]).await;
    let _ = store.replace(&s, b, Message::tool("x", "{}")).await.unwrap();
    assert!(commit(store, &s, "a", a).await);
    let transcript = store.export(&s).await.unwrap().unwrap();
    assert_eq!(texts(&transcript.entries), ["a\n", "b", "c 🙂", "{}"]);
    let lines = transcript.to_jsonl().unwrap();
    assert_eq!(lines.lines().count(), 5);
    assert_eq!(Transcript::from_jsonl(&lines).unwrap(), transcript);
}
