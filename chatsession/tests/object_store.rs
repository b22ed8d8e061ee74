//! The archive in an object store: in memory, and in a folder.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _};
use inferkit_chatsession::object_store::local::LocalFileSystem;
use inferkit_chatsession::object_store::memory::InMemory;
use inferkit_chatsession::object_store::path::Path;
use inferkit_chatsession::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result as StoreResult,
};
use inferkit_chatsession::{
    Archive, Config, Error, Janitor, Lifetime, MemorySessionStore, Message, NewSession,
    ObjectArchive, SessionId, SessionStore, SessionStoreExt as _, Summary, Transcript, UserId,
};
use inferkit_core::ManualClock;

fn id(name: &str) -> SessionId {
    SessionId::new(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

async fn create(store: &MemorySessionStore, session: &str, owner: &str) -> SessionId {
    let new = NewSession::new(id(session), user(owner));
    assert!(store.create(&new).await.unwrap());
    new.id
}

async fn say(store: &MemorySessionStore, session: &SessionId, text: &str) {
    let _appended = store.say(session, Message::user(text)).await.unwrap();
}

async fn export(store: &MemorySessionStore, session: &SessionId) -> Transcript {
    store.export(session).await.unwrap().unwrap()
}

async fn objects(store: &dyn ObjectStore) -> Vec<String> {
    let all: Vec<ObjectMeta> = store.list(None).try_collect().await.unwrap();
    let mut all: Vec<String> = all.into_iter().map(|object| object.location.to_string()).collect();
    all.sort();
    all
}

async fn keeps_sessions(objects_in: Arc<dyn ObjectStore>, root: &str) {
    let archive = ObjectArchive::new(Arc::clone(&objects_in), root);
    let store = MemorySessionStore::new(Config::new()).unwrap();
    let s = create(&store, "a/../b}:{", "ann").await;
    assert_eq!(archive.load(&s).await.unwrap(), None);
    say(&store, &s, "a\n\nb").await;
    say(&store, &s, "naïve 🙂").await;
    let first = export(&store, &s).await;
    for _ in 0..2 {
        archive.store(&first).await.unwrap();
        assert_eq!(archive.load(&s).await.unwrap().unwrap(), first);
    }
    assert_eq!(objects(&*objects_in).await.len(), 2, "a part and a mark, once");
    let path = archive.path(&s).to_string();
    assert!(path.starts_with(root), "{path}");

    // The session goes on, and its older messages are trimmed meanwhile.
    say(&store, &s, "c").await;
    let whole = export(&store, &s).await;
    let mut trimmed = whole.clone();
    trimmed.entries.remove(0);
    archive.store(&trimmed).await.unwrap();
    assert_eq!(archive.load(&s).await.unwrap().unwrap(), whole);
    // A janitor that is late with an older state changes nothing.
    archive.store(&first).await.unwrap();
    assert_eq!(archive.load(&s).await.unwrap().unwrap(), whole);
    // A summary changes only the head.
    let upto = whole.entries.first().unwrap().id;
    let summary = Summary::new("They met.", 3, upto, 1);
    assert!(store.commit_summary(&s, 0, &summary).await.unwrap());
    let summarized = export(&store, &s).await;
    archive.store(&summarized).await.unwrap();
    assert_eq!(archive.load(&s).await.unwrap().unwrap(), summarized);

    let bobs = create(&store, "bobs", "bob").await;
    archive.store(&export(&store, &bobs).await).await.unwrap();
    let second = create(&store, "second", "ann").await;
    archive.store(&export(&store, &second).await).await.unwrap();
    assert_eq!(archive.remove_user(&user("ann")).await.unwrap(), 2);
    assert_eq!(archive.remove_user(&user("ann")).await.unwrap(), 0);
    assert_eq!(archive.load(&s).await.unwrap(), None);
    assert!(archive.load(&bobs).await.unwrap().is_some());
    assert!(archive.remove(&bobs).await.unwrap());
    assert!(!archive.remove(&bobs).await.unwrap());
    assert_eq!(objects(&*objects_in).await, [""; 0], "nothing is left");
}

#[tokio::test]
async fn memory_keeps_sessions() {
    keeps_sessions(Arc::new(InMemory::new()), "").await;
    keeps_sessions(Arc::new(InMemory::new()), "deep/er").await;
}

#[tokio::test]
async fn a_folder_keeps_sessions() {
    let folder = tempfile::tempdir().unwrap();
    let store = LocalFileSystem::new_with_prefix(folder.path()).unwrap();
    keeps_sessions(Arc::new(store), "chats").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn janitors_at_the_same_session_lose_nothing() {
    let archive = ObjectArchive::new(Arc::new(InMemory::new()), "");
    let store = MemorySessionStore::new(Config::new()).unwrap();
    let s = create(&store, "s", "ann").await;
    let mut states = Vec::new();
    for n in 0..20 {
        say(&store, &s, &n.to_string()).await;
        states.push(export(&store, &s).await);
    }
    let writers = states.iter().cloned().map(|state| {
        let archive = archive.clone();
        tokio::spawn(async move { archive.store(&state).await.unwrap() })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(&archive.load(&s).await.unwrap().unwrap(), states.last().unwrap());
}

#[tokio::test]
async fn a_part_of_another_form_is_an_error_and_can_be_removed() {
    let objects_in = Arc::new(InMemory::new());
    let archive = ObjectArchive::new(Arc::<InMemory>::clone(&objects_in), "");
    let s = id("s");
    for (name, text) in [("1.jsonl", "{\"v\":2}\n"), ("0.jsonl", "no JSON")] {
        let path = archive.path(&s).join(name);
        objects_in.put(&path, text.into()).await.unwrap();
        let error = archive.load(&s).await.unwrap_err();
        match name {
            "1.jsonl" => assert!(matches!(error, Error::UnknownVersion { found: 2, .. })),
            _ => assert!(matches!(error, Error::Corrupt { .. })),
        }
    }
    assert!(archive.remove(&s).await.unwrap());
    assert_eq!(objects(&*objects_in).await, [""; 0]);
}

/// Refuses to write parts of sessions while it is told to.
#[derive(Debug)]
struct Failing {
    inner: InMemory,
    fails: AtomicBool,
}

impl fmt::Display for Failing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Failing")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Failing {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        if self.fails.load(Ordering::SeqCst) && 0 < payload.content_length() {
            return Err(StoreError::Generic { store: "failing", source: "down".into() });
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, below: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.inner.list(below).boxed()
    }

    async fn list_with_delimiter(&self, below: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(below).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[tokio::test]
async fn the_janitor_deletes_nothing_that_the_store_did_not_take() {
    const HOUR: Duration = Duration::from_secs(3600);
    let failing = Arc::new(Failing { inner: InMemory::new(), fails: AtomicBool::new(true) });
    let clock = Arc::new(ManualClock::default());
    let config = Config::new().with_lifetime(Lifetime::new(HOUR, 2 * HOUR));
    let store = Arc::new(
        MemorySessionStore::with_clock(config, Arc::<ManualClock>::clone(&clock)).unwrap(),
    );
    let s = create(&store, "s", "ann").await;
    say(&store, &s, "a").await;
    let archive = Arc::new(ObjectArchive::new(Arc::<Failing>::clone(&failing), ""));
    let sessions = Arc::<MemorySessionStore>::clone(&store);
    let janitor = Janitor::new(sessions).archiving(Arc::<ObjectArchive>::clone(&archive), |_| true);
    clock.advance(2 * HOUR);
    assert_eq!(janitor.sweep().await.unwrap().failed, 1);
    assert!(store.session(&s).await.unwrap().is_some());
    assert_eq!(archive.load(&s).await.unwrap(), None);

    failing.fails.store(false, Ordering::SeqCst);
    clock.advance(Duration::from_secs(60));
    let swept = janitor.sweep().await.unwrap();
    assert_eq!((swept.archived, swept.deleted), (1, 1));
    assert_eq!(store.session(&s).await.unwrap(), None);
    let archived = archive.load(&s).await.unwrap().unwrap();
    assert_eq!(archived.entries.len(), 1);

    // Who is erased leaves the objects too.
    assert_eq!(janitor.erase_user(&user("ann")).await.ok(), Some(()));
    assert_eq!(objects(&failing.inner).await, [""; 0]);
}
