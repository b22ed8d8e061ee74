//! Archiving, deletion and the janitor, in memory by a clock that the tests set, and on Redis.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_chatsession::{
    Archive, Config, Delta, EntryId, Error, FinishReason, Found, Janitor, JsonlArchive, Lifetime,
    MemoryArchive, MemorySessionStore, Message, NewSession, Range, RedisSessionStore, Result,
    Session, SessionId, SessionStore, SessionStoreExt as _, Summary, Swept, Transcript, Turn,
    UserId,
};
use inferkit_core::ManualClock;
use inferkit_localredis::{Flavor, Server};
use support::{create, id, say};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);

struct Home {
    clock: Arc<ManualClock>,
    store: Arc<MemorySessionStore>,
    archive: Arc<MemoryArchive>,
    janitor: Janitor,
}

/// Sessions of at least two messages are archived.
fn rule(session: &Session) -> bool {
    2 <= session.messages
}

fn home() -> Home {
    let clock = Arc::new(ManualClock::default());
    let store = MemorySessionStore::with_clock(Config::new(), Arc::<ManualClock>::clone(&clock));
    let (store, archive) = (Arc::new(store.unwrap()), Arc::new(MemoryArchive::new()));
    let janitor = Janitor::new(Arc::<MemorySessionStore>::clone(&store));
    let janitor = janitor.archiving(Arc::<MemoryArchive>::clone(&archive), rule);
    Home { clock, store, archive, janitor }
}

impl Home {
    async fn after(&self, time: Duration) -> Swept {
        self.clock.advance(time);
        self.janitor.sweep().await.unwrap()
    }

    async fn archived(&self, session: &SessionId) -> Option<Vec<String>> {
        let transcript = self.archive.load(session).await.unwrap()?;
        Some(texts(&transcript))
    }

    async fn exists(&self, session: &SessionId) -> bool {
        self.store.session(session).await.unwrap().is_some()
    }
}

fn texts(transcript: &Transcript) -> Vec<String> {
    transcript.entries.iter().map(|entry| entry.message.content.to_text()).collect()
}

fn is(swept: Swept, archived: usize, deleted: usize) -> bool {
    (swept.archived, swept.deleted, swept.failed) == (archived, deleted, 0)
}

#[tokio::test]
async fn an_idle_session_is_archived_and_then_deleted() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b"] {
        say(&*home.store, &s, text).await;
    }
    assert!(is(home.after(59 * MINUTE).await, 0, 0));
    assert!(is(home.after(MINUTE).await, 1, 0));
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "b"]);
    assert!(home.exists(&s).await);
    assert!(is(home.after(22 * HOUR + 59 * MINUTE).await, 0, 0));
    assert!(home.exists(&s).await);
    assert!(is(home.after(MINUTE).await, 0, 1));
    assert!(!home.exists(&s).await);
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "b"]);
    assert_eq!(home.after(30 * HOUR).await.due, 0);
}

#[tokio::test]
async fn a_janitor_that_comes_late_archives_before_it_deletes() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b"] {
        say(&*home.store, &s, text).await;
    }
    assert!(is(home.after(24 * HOUR + 30 * MINUTE).await, 1, 1));
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn what_the_rule_leaves_out_is_deleted_without_trace() {
    let home = home();
    let (short, empty) = (create(&*home.store, "s").await, create(&*home.store, "empty").await);
    say(&*home.store, &short, "a").await;
    assert!(is(home.after(HOUR).await, 0, 0));
    assert!(is(home.after(23 * HOUR).await, 0, 2));
    for session in [&short, &empty] {
        assert!(!home.exists(session).await);
        assert_eq!(home.archived(session).await, None);
    }
}

#[tokio::test]
async fn both_clocks_run_from_the_last_message() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b", "c"] {
        say(&*home.store, &s, text).await;
        assert!(is(home.after(50 * MINUTE).await, 0, 0), "{text}");
    }
    assert!(is(home.after(10 * MINUTE).await, 1, 0));
    // Revived after it was archived: both clocks begin anew, and the archive gets the rest.
    assert!(is(home.after(22 * HOUR).await, 0, 0));
    say(&*home.store, &s, "d").await;
    assert!(is(home.after(30 * MINUTE).await, 0, 0));
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "b", "c"]);
    assert!(is(home.after(30 * MINUTE).await, 1, 0));
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "b", "c", "d"]);
    assert!(is(home.after(22 * HOUR).await, 0, 0));
    assert!(home.exists(&s).await);
    assert!(is(home.after(HOUR).await, 0, 1));
}

#[tokio::test]
async fn messages_that_are_trimmed_stay_in_the_archive() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b", "c"] {
        say(&*home.store, &s, text).await;
    }
    assert!(is(home.after(HOUR).await, 1, 0));
    let last = home.store.session(&s).await.unwrap().unwrap().last.unwrap();
    assert!(home.store.commit_summary(&s, 0, &Summary::new("abc", 1, last, 3)).await.unwrap());
    assert_eq!(home.store.trim(&s).await.unwrap(), 3);
    say(&*home.store, &s, "d").await;
    assert!(is(home.after(HOUR).await, 1, 0));
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "b", "c", "d"]);
    let archived = home.archive.load(&s).await.unwrap().unwrap();
    assert_eq!(archived.session.summary.unwrap().text, "abc");
}

#[tokio::test]
async fn a_session_of_which_all_is_summarized_is_archived_once() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b"] {
        say(&*home.store, &s, text).await;
    }
    let last = home.store.session(&s).await.unwrap().unwrap().last.unwrap();
    assert!(home.store.commit_summary(&s, 0, &Summary::new("ab", 1, last, 2)).await.unwrap());
    assert_eq!(home.store.trim(&s).await.unwrap(), 2);
    assert!(is(home.after(HOUR).await, 1, 0));
    assert_eq!(home.archived(&s).await.unwrap(), [""; 0]);
    assert!(is(home.after(23 * HOUR).await, 0, 1));
}

#[tokio::test]
async fn an_abandoned_draft_is_saved() {
    let home = home();
    let s = create(&*home.store, "s").await;
    let turn = Turn::new("t").unwrap();
    say(&*home.store, &s, "a").await;
    home.clock.advance(30 * MINUTE);
    home.store.push_draft(&s, &turn, &[Delta::text("I was about to")]).await.unwrap();
    assert!(is(home.after(30 * MINUTE).await, 0, 0));
    assert_eq!(home.store.open_drafts(&s).await.unwrap().len(), 1, "it may still be streaming");
    assert!(is(home.after(HOUR).await, 0, 0));
    assert_eq!(home.store.open_drafts(&s).await.unwrap().len(), 0);
    assert!(is(home.after(HOUR).await, 1, 0));
    assert_eq!(home.archived(&s).await.unwrap(), ["a", "I was about to"]);
    let saved = home.store.read(&s, Range::Last(1)).await.unwrap().unwrap();
    let reason = saved.first().unwrap().message.finish_reason.clone();
    assert_eq!(reason, Some(FinishReason::Interrupted));
}

#[tokio::test]
async fn an_erased_session_leaves_the_archive() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b"] {
        say(&*home.store, &s, text).await;
    }
    assert!(is(home.after(HOUR).await, 1, 0));
    assert!(home.store.delete(&s).await.unwrap());
    assert_eq!(home.after(Duration::ZERO).await.erased, 1);
    assert_eq!(home.archived(&s).await, None);
}

#[tokio::test]
async fn a_user_is_erased_from_the_archive_too() {
    let home = home();
    let (s, t) = (create(&*home.store, "s").await, create(&*home.store, "t").await);
    for text in ["a", "b"] {
        say(&*home.store, &s, text).await;
    }
    assert!(is(home.after(24 * HOUR).await, 1, 2));
    assert!(home.archived(&s).await.is_some());
    create(&*home.store, "u").await;
    home.janitor.erase_user(&UserId::new("ann").unwrap()).await.unwrap();
    assert_eq!(home.archived(&s).await, None);
    assert!(matches!(home.store.inspect(&id("u")).await.unwrap(), Found::Erased));
    assert!(matches!(home.store.inspect(&t).await.unwrap(), Found::Gone));
}

#[tokio::test]
async fn a_transcript_knows_the_active_branch() {
    let home = home();
    let s = create(&*home.store, "s").await;
    for text in ["a", "b", "c"] {
        say(&*home.store, &s, text).await;
    }
    assert!(is(home.after(HOUR).await, 1, 0));
    let entries = home.store.read(&s, Range::All).await.unwrap().unwrap();
    let [a, b, ..] = &entries[..] else { panic!("messages are missing") };
    assert!(home.store.commit_summary(&s, 0, &Summary::new("a", 1, a.id, 1)).await.unwrap());
    assert_eq!(home.store.trim(&s).await.unwrap(), 1);
    let _ = home.store.replace(&s, b.id, Message::user("B")).await.unwrap();
    let branch = |transcript: &Transcript| {
        let branch = transcript.branch().unwrap().into_iter();
        branch.map(|entry| entry.message.content.to_text()).collect::<Vec<_>>()
    };
    assert_eq!(branch(&home.store.export(&s).await.unwrap().unwrap()), ["B"]);
    assert!(is(home.after(HOUR).await, 1, 0));
    let archived = home.archive.load(&s).await.unwrap().unwrap();
    assert_eq!(texts(&archived), ["a", "b", "c", "B"]);
    assert_eq!(branch(&archived), ["a", "B"], "also what was trimmed");
}

/// An archive that erases the session, or adds to it, while it is being archived; or fails.
#[derive(Debug)]
struct Meddler {
    inner: MemoryArchive,
    store: Arc<MemorySessionStore>,
    deed: Deed,
    armed: AtomicBool,
}

#[derive(Clone, Copy, Debug)]
enum Deed {
    Append,
    Erase,
    Fail,
}

#[async_trait]
impl Archive for Meddler {
    async fn store(&self, transcript: &Transcript) -> Result<()> {
        if self.armed.swap(false, Ordering::SeqCst) {
            let session = &transcript.session.id;
            match self.deed {
                Deed::Append => say(&*self.store, session, "late").await,
                Deed::Erase => assert!(self.store.delete(session).await.unwrap()),
                Deed::Fail => return Err(Error::archive("the disk is full", true)),
            }
        }
        self.inner.store(transcript).await
    }

    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>> {
        self.inner.load(session).await
    }

    async fn remove(&self, session: &SessionId) -> Result<bool> {
        self.inner.remove(session).await
    }

    async fn remove_user(&self, user: &UserId) -> Result<usize> {
        self.inner.remove_user(user).await
    }
}

/// A session that is due for both, and an archive that does its deed once.
async fn meddled(deed: Deed) -> (Home, Arc<Meddler>, SessionId, Swept) {
    let mut home = home();
    let store = Arc::clone(&home.store);
    let armed = AtomicBool::new(true);
    let meddler = Arc::new(Meddler { inner: MemoryArchive::new(), store, deed, armed });
    home.janitor = Janitor::new(Arc::<MemorySessionStore>::clone(&home.store))
        .archiving(Arc::<Meddler>::clone(&meddler), rule);
    let s = create(&*home.store, "s").await;
    for text in ["a", "b"] {
        say(&*home.store, &s, text).await;
    }
    let swept = home.after(24 * HOUR).await;
    (home, meddler, s, swept)
}

#[tokio::test]
async fn a_session_revived_while_it_is_archived_is_not_deleted() {
    let (home, meddler, s, swept) = meddled(Deed::Append).await;
    assert!(is(swept, 1, 0), "{swept:?}");
    let log = home.store.read(&s, Range::All).await.unwrap().unwrap();
    assert_eq!(log.len(), 3);
    assert!(is(home.after(HOUR).await, 1, 0));
    let archived = meddler.load(&s).await.unwrap().unwrap();
    assert_eq!(texts(&archived), ["a", "b", "late"]);
}

#[tokio::test]
async fn a_session_erased_while_it_is_archived_is_not_in_the_archive() {
    let (_, meddler, s, swept) = meddled(Deed::Erase).await;
    assert!(is(swept, 0, 0), "{swept:?}");
    assert_eq!(meddler.load(&s).await.unwrap(), None);
}

#[tokio::test]
async fn a_failing_archive_deletes_nothing_and_is_tried_again() {
    let (home, meddler, s, swept) = meddled(Deed::Fail).await;
    assert_eq!((swept.failed, swept.deleted), (1, 0));
    assert!(home.exists(&s).await);
    assert_eq!(home.after(Duration::from_secs(1)).await.due, 0, "not before the lease ends");
    assert!(is(home.after(MINUTE).await, 1, 1));
    assert_eq!(texts(&meddler.load(&s).await.unwrap().unwrap()), ["a", "b"]);
}

#[tokio::test]
async fn files_keep_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let archive = JsonlArchive::new(folder.path());
    let store = MemorySessionStore::new(Config::new()).unwrap();
    let s = create(&store, "a/../b").await;
    assert_eq!(archive.load(&s).await.unwrap(), None);
    for text in ["a\n\nb", "naïve 🙂"] {
        say(&store, &s, text).await;
    }
    let first = store.export(&s).await.unwrap().unwrap();
    for _ in 0..2 {
        archive.store(&first).await.unwrap();
        assert_eq!(archive.load(&s).await.unwrap().unwrap(), first);
    }
    assert!(archive.path(&s).starts_with(folder.path()));
    // The older messages are trimmed, and another is there.
    say(&store, &s, "c").await;
    let mut second = store.export(&s).await.unwrap().unwrap();
    let whole = second.clone();
    second.entries.remove(0);
    archive.store(&second).await.unwrap();
    assert_eq!(archive.load(&s).await.unwrap().unwrap(), whole);
    // A crash cuts off what is written next, wherever.
    let stored = std::fs::read(archive.path(&s)).unwrap();
    say(&store, &s, "d").await;
    let third = store.export(&s).await.unwrap().unwrap();
    archive.store(&third).await.unwrap();
    let more = std::fs::read(archive.path(&s)).unwrap();
    for end in stored.len()..more.len() {
        std::fs::write(archive.path(&s), more.get(..end).unwrap()).unwrap();
        let torn = archive.load(&s).await.unwrap().unwrap();
        assert!(torn == whole || torn.entries == whole.entries || torn == third, "cut at {end}");
        if end % 37 == 0 {
            archive.store(&third).await.unwrap();
            assert_eq!(archive.load(&s).await.unwrap().unwrap(), third, "cut at {end}");
        }
    }
    let other = NewSession::new(id("other"), UserId::new("bob").unwrap());
    assert!(store.create(&other).await.unwrap());
    archive.store(&store.export(&id("other")).await.unwrap().unwrap()).await.unwrap();
    assert_eq!(archive.remove_user(&UserId::new("ann").unwrap()).await.unwrap(), 1);
    assert_eq!(archive.remove_user(&UserId::new("ann").unwrap()).await.unwrap(), 0);
    assert_eq!(archive.load(&s).await.unwrap(), None);
    assert!(archive.remove(&id("other")).await.unwrap());
    assert!(!archive.remove(&id("other")).await.unwrap());
    assert_eq!(archive.remove_user(&UserId::new("bob").unwrap()).await.unwrap(), 0);
}

/// 20 000 sessions that are all due at once go into the archive whole, and then out of the server; nothing is left.
#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_due_sessions_are_archived_and_deleted_intact() {
    const SESSIONS: usize = 20_000;
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let lifetime = Lifetime::new(Duration::from_millis(1), Duration::from_millis(1));
    let config = support::within(Config::new().with_lifetime(lifetime));
    let store = Arc::new(RedisSessionStore::new(driver, config).unwrap());
    let write = async |number: usize| {
        let new = NewSession::new(id(&format!("s{number}")), UserId::new("ann").unwrap());
        assert!(store.create(&new).await.unwrap());
        let messages = ["a", "b"].map(|part| Message::user(format!("{number} {part}")));
        let append = inferkit_chatsession::Append::new(messages);
        let _ = store.append(&new.id, &append).await.unwrap();
    };
    for start in (0..SESSIONS).step_by(500) {
        futures_util::future::join_all((start..start + 500).map(write)).await;
    }
    let archive = Arc::new(MemoryArchive::new());
    let janitor = || {
        Janitor::new(Arc::<RedisSessionStore>::clone(&store))
            .archiving(Arc::<MemoryArchive>::clone(&archive), rule)
    };
    let (start, before) = (Instant::now(), cpu(&server));
    let work = async |janitor: Janitor| {
        let mut deleted = 0;
        loop {
            let swept = janitor.sweep().await.unwrap();
            assert_eq!(swept.failed, 0);
            deleted += swept.deleted;
            if swept.due == 0 {
                return deleted;
            }
        }
    };
    let (a, b) = tokio::join!(work(janitor()), work(janitor()));
    let (spent, wall) = (cpu(&server) - before, start.elapsed());
    assert_eq!(a + b, SESSIONS);
    for number in 0..SESSIONS {
        let transcript = archive.load(&id(&format!("s{number}"))).await.unwrap().unwrap();
        assert_eq!(texts(&transcript), [format!("{number} a"), format!("{number} b")]);
    }
    assert_eq!(server.command(&["DBSIZE"]).unwrap(), "0", "no key is left");
    println!(
        "{:.0} sessions a second of the server's time ({:.0} by the clock)",
        SESSIONS as f64 / spent,
        SESSIONS as f64 / wall.as_secs_f64(),
    );
}

/// The server's CPU time so far, in seconds.
fn cpu(server: &Server) -> f64 {
    let info = server.command(&["INFO", "cpu"]).unwrap();
    let field = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim_start_matches(':').trim().parse().unwrap()
    };
    field("used_cpu_sys_main_thread") + field("used_cpu_user_main_thread")
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis_the_janitor_runs_until_it_is_stopped() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let lifetime = Lifetime::new(Duration::from_millis(100), Duration::from_millis(300));
    let config = support::within(Config::new().with_lifetime(lifetime));
    let store = Arc::new(RedisSessionStore::new(driver, config).unwrap());
    let archive = Arc::new(MemoryArchive::new());
    let janitor = Janitor::new(Arc::<RedisSessionStore>::clone(&store))
        .archiving(Arc::<MemoryArchive>::clone(&archive), rule)
        .with_every(Duration::from_millis(10));
    let s = create(&*store, "s").await;
    for text in ["a", "b"] {
        say(&*store, &s, text).await;
    }
    let task = tokio::spawn(janitor.run());
    let start = Instant::now();
    while store.session(&s).await.unwrap().is_some() {
        assert!(start.elapsed() < Duration::from_secs(20), "it was never deleted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(texts(&archive.load(&s).await.unwrap().unwrap()), ["a", "b"]);
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
}

#[tokio::test]
async fn a_transcript_that_is_not_whole_or_of_a_later_release_is_refused() {
    let store = MemorySessionStore::new(Config::new()).unwrap();
    let s = create(&store, "s").await;
    say(&store, &s, "a").await;
    let transcript = store.export(&s).await.unwrap().unwrap();
    assert_eq!(transcript.entries.first().map(|entry| entry.offset), Some(0));
    assert!(transcript.entries.iter().all(|entry| EntryId::ZERO < entry.id));
    let lines = transcript.to_jsonl().unwrap();
    for end in 0..lines.len() {
        let part = lines.get(..end).unwrap_or_default();
        match Transcript::from_jsonl(part) {
            // Only whole lines.
            Ok(_) => assert!(part.ends_with('\n')),
            Err(error) => assert!(matches!(error, Error::Corrupt { .. }), "{error:?}"),
        }
    }
    let later = lines.replacen("\"v\":1", "\"v\":2", 1);
    let error = Transcript::from_jsonl(&later).unwrap_err();
    assert!(matches!(error, Error::UnknownVersion { found: 2, .. }), "{error:?}");
}
