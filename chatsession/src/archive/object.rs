use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt as _, PutPayload};
use sha2::{Digest as _, Sha256};

use super::{Archive, digest};
use crate::{Error, Result, SessionId, Transcript, UserId};

/// How many objects are read or removed side by side.
const AT_ONCE: usize = 16;

/// How often a session is listed again because its objects are removed while they are read.
const ATTEMPTS: usize = 4;

const DAMAGED: Error = Error::Corrupt { what: "the transcript" };

/// An archive in an object store, such as S3, Google Cloud Storage, Azure or a folder.
///
/// `sessions/<2 digits>/<digest of the id>/<last message>-<digest of the content>.jsonl` is a part of a session, in JSON
/// lines; `users/<digest of the user>/<digest of the id>` is an empty object by which the sessions of a user are found.
/// Parts are never changed, and a store makes an object visible whole or not at all: so a crash leaves nothing half written,
/// and two janitors at the same session lose nothing.
/// Each call writes the messages that are not there yet; what is stored twice has the same name, or is read once.
///
/// # Round trips
///
/// `store` lists, reads what is there, and writes twice; `load` lists and reads; requests of one call run side by side.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use inferkit_chatsession::object_store::memory::InMemory;
/// use inferkit_chatsession::{Janitor, MemorySessionStore, ObjectArchive, Config};
///
/// # fn main() -> inferkit_chatsession::Result<()> {
/// // In production an AmazonS3, made by its builder with the feature `aws` of the crate `object_store`.
/// let archive = Arc::new(ObjectArchive::new(Arc::new(InMemory::new()), "chats"));
/// let store = Arc::new(MemorySessionStore::new(Config::new())?);
/// let janitor = Janitor::new(store).archiving(archive, |session| 4 <= session.messages);
/// # drop(janitor);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ObjectArchive {
    store: Arc<dyn ObjectStore>,
    root: Path,
}

impl ObjectArchive {
    /// Makes an archive below the path `root`, which may be empty; nothing is sent.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, root: impl AsRef<str>) -> Self {
        Self { store, root: Path::from(root.as_ref()) }
    }

    /// Returns the path below which a session's objects are.
    #[must_use]
    pub fn path(&self, session: &SessionId) -> Path {
        self.parts(&digest(session.as_str()))
    }

    fn parts(&self, digest: &str) -> Path {
        let shard = digest.get(..2).unwrap_or_default();
        self.root.clone().join("sessions").join(shard).join(digest)
    }

    fn marks(&self, user: &UserId) -> Path {
        self.root.clone().join("users").join(digest(user.as_str()))
    }

    fn mark(&self, transcript: &Transcript) -> Path {
        let session = &transcript.session;
        self.marks(&session.user).join(digest(session.id.as_str()))
    }

    async fn list(&self, below: &Path) -> Result<Vec<ObjectMeta>> {
        let mut found: Vec<_> = self.store.list(Some(below)).try_collect().await.map_err(failed)?;
        found.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(found)
    }

    /// Reads the parts below a path; `None` if one was removed meanwhile.
    async fn read(&self, below: &Path) -> Result<Option<Vec<Transcript>>> {
        let parts = self.list(below).await?;
        let parts = parts.into_iter().map(|part| {
            let store = Arc::clone(&self.store);
            async move { store.get(&part.location).await?.bytes().await }
        });
        let mut parts = futures_util::stream::iter(parts).buffered(AT_ONCE);
        let mut transcripts = Vec::new();
        while let Some(part) = parts.next().await {
            match part {
                Ok(part) => {
                    let lines = str::from_utf8(&part).map_err(|_| DAMAGED)?;
                    transcripts.push(Transcript::from_jsonl(lines)?);
                }
                Err(StoreError::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(Some(transcripts))
    }

    async fn find(&self, below: &Path) -> Result<Option<Transcript>> {
        for _ in 0..ATTEMPTS {
            if let Some(parts) = self.read(below).await? {
                return Ok(merged(parts));
            }
        }
        Err(Error::archive("the session is being removed", true))
    }

    /// Removes all objects below a path, and tells whether there were any.
    async fn clear(&self, below: &Path) -> Result<bool> {
        let found = self.list(below).await?;
        let any = !found.is_empty();
        // Stores that can remove many objects with one request do.
        let paths = futures_util::stream::iter(found).map(|object| Ok(object.location)).boxed();
        let mut removals = self.store.delete_stream(paths);
        while let Some(removed) = removals.next().await {
            allowing_absence(removed)?;
        }
        Ok(any)
    }
}

#[async_trait]
impl Archive for ObjectArchive {
    async fn store(&self, transcript: &Transcript) -> Result<()> {
        let path = self.path(&transcript.session.id);
        let known = self.find(&path).await?;
        let mut new = transcript.clone();
        if let Some(known) = &known {
            let ids: HashSet<_> = known.entries.iter().map(|entry| entry.id).collect();
            new.entries.retain(|entry| !ids.contains(&entry.id));
            if new.entries.is_empty() && known.session == new.session {
                return Ok(());
            }
        }
        let lines = new.to_jsonl()?;
        let last = transcript.session.last.map(|id| (id.millis(), id.sequence()));
        let (millis, sequence) = last.unwrap_or_default();
        let content: String =
            Sha256::digest(&lines).iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let part = path.join(format!("{millis:020}-{sequence:020}-{content}.jsonl"));
        // First, so that no session is overlooked when its user is erased.
        let mark = self.mark(transcript);
        self.store.put(&mark, PutPayload::new()).await.map_err(failed)?;
        self.store.put(&part, lines.into()).await.map_err(failed)?;
        Ok(())
    }

    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>> {
        self.find(&self.path(session)).await
    }

    async fn remove(&self, session: &SessionId) -> Result<bool> {
        let path = self.path(session);
        // What cannot be read is removed all the same.
        if let Ok(Some(transcript)) = self.find(&path).await {
            allowing_absence(self.store.delete(&self.mark(&transcript)).await)?;
        }
        self.clear(&path).await
    }

    async fn remove_user(&self, user: &UserId) -> Result<usize> {
        let mut removed = 0;
        for mark in self.list(&self.marks(user)).await? {
            let Some(session) = mark.location.filename() else { continue };
            removed += usize::from(self.clear(&self.parts(session)).await?);
            allowing_absence(self.store.delete(&mark.location).await)?;
        }
        Ok(removed)
    }
}

/// One session of its parts, with the newest of their heads.
fn merged(parts: Vec<Transcript>) -> Option<Transcript> {
    let newest = parts.iter().map(|part| &part.session).max_by_key(|session| {
        (session.messages, session.last, session.summary_version, session.archived)
    });
    let session = newest?.clone();
    let entries: BTreeMap<_, _> =
        parts.into_iter().flat_map(|part| part.entries).map(|entry| (entry.id, entry)).collect();
    Some(Transcript { session, entries: entries.into_values().collect() })
}

fn allowing_absence<T>(removed: object_store::Result<T>) -> Result<()> {
    match removed {
        Err(StoreError::NotFound { .. }) => Ok(()),
        removed => removed.map(|_| ()).map_err(failed),
    }
}

fn failed(error: StoreError) -> Error {
    let lasting = matches!(
        error,
        StoreError::InvalidPath { .. }
            | StoreError::NotImplemented { .. }
            | StoreError::NotSupported { .. }
            | StoreError::PermissionDenied { .. }
            | StoreError::Unauthenticated { .. }
            | StoreError::UnknownConfigurationKey { .. }
    );
    Error::archive(error, !lasting)
}
