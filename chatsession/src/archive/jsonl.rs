use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;

use super::{Archive, digest};
use crate::{Error, Result, SessionId, Transcript, UserId};

/// An archive of one file of JSON lines per session, in a folder.
///
/// `sessions/<2 digits>/<digest of the id>.jsonl` is a session; `users/<digest of the user>/<digest of the id>` is an empty
/// file by which the sessions of a user are found.
/// Files are only ever appended to, so that two janitors at the same session lose nothing; what was written twice is read
/// once, and what a crash cut off is skipped.
/// Each call syncs what it wrote to the disk before it returns, on tokio's threads for blocking work.
#[derive(Clone, Debug)]
pub struct JsonlArchive {
    root: PathBuf,
}

impl JsonlArchive {
    /// Makes an archive in the folder `root`, which is created with the first session.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Returns the file of a session.
    #[must_use]
    pub fn path(&self, session: &SessionId) -> PathBuf {
        self.file(&digest(session.as_str()))
    }

    fn file(&self, digest: &str) -> PathBuf {
        let shard = digest.get(..2).unwrap_or_default();
        self.root.join("sessions").join(shard).join(format!("{digest}.jsonl"))
    }

    fn marks(&self, user: &UserId) -> PathBuf {
        self.root.join("users").join(digest(user.as_str()))
    }

    fn write(&self, transcript: &Transcript) -> Result<()> {
        let session = &transcript.session;
        let path = self.path(&session.id);
        let known: HashSet<_> = match read(&path)? {
            Some(earlier) => earlier.entries.iter().map(|entry| entry.id).collect(),
            None => HashSet::new(),
        };
        let mut new = transcript.clone();
        new.entries.retain(|entry| !known.contains(&entry.id));
        // A line that a crash left unfinished is ended, and a blank line sets apart what follows.
        let lines = format!("\n\n{}", new.to_jsonl()?);
        let mark = self.marks(&session.user).join(digest(session.id.as_str()));
        // First, so that no session is overlooked when its user is erased.
        append(&mark, b"").and_then(|()| append(&path, lines.as_bytes())).map_err(failed)
    }

    fn delete(&self, session: &SessionId) -> Result<bool> {
        let path = self.path(session);
        if let Ok(Some(transcript)) = read(&path) {
            let mark = self.marks(&transcript.session.user).join(digest(session.as_str()));
            remove(&mark).map_err(failed)?;
        }
        remove(&path).map_err(failed)
    }

    fn delete_user(&self, user: &UserId) -> Result<usize> {
        let folder = self.marks(user);
        let marks = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
            marks => marks.map_err(failed)?,
        };
        let mut removed = 0;
        for mark in marks {
            let mark = mark.map_err(failed)?;
            let name = mark.file_name();
            removed += usize::from(remove(&self.file(&name.to_string_lossy())).map_err(failed)?);
            remove(&mark.path()).map_err(failed)?;
        }
        match fs::remove_dir(&folder) {
            // A session that came meanwhile is the next call's.
            Err(error)
                if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::DirectoryNotEmpty) =>
            {
                Err(failed(error))
            }
            _ => Ok(removed),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let this = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&this)).await;
        done.map_err(|error| Error::archive(error, true))?
    }
}

#[async_trait]
impl Archive for JsonlArchive {
    async fn store(&self, transcript: &Transcript) -> Result<()> {
        let transcript = transcript.clone();
        self.blocking(move |this| this.write(&transcript)).await
    }

    async fn load(&self, session: &SessionId) -> Result<Option<Transcript>> {
        let path = self.path(session);
        self.blocking(move |_| read(&path)).await
    }

    async fn remove(&self, session: &SessionId) -> Result<bool> {
        let session = session.clone();
        self.blocking(move |this| this.delete(&session)).await
    }

    async fn remove_user(&self, user: &UserId) -> Result<usize> {
        let user = user.clone();
        self.blocking(move |this| this.delete_user(&user)).await
    }
}

/// Reads what was appended, one transcript after the other, separated by blank lines.
fn read(path: &Path) -> Result<Option<Transcript>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(failed)?,
    };
    // A crash may have cut a character in two.
    let text = String::from_utf8_lossy(&text);
    let mut whole: Option<Transcript> = None;
    for part in text.split("\n\n") {
        let part = part.trim_matches('\n');
        if part.is_empty() {
            continue;
        }
        match Transcript::from_jsonl(&format!("{part}\n")) {
            Ok(mut next) => {
                if let Some(earlier) = whole.take() {
                    next.merge(earlier);
                }
                whole = Some(next);
            }
            // It was never acknowledged.
            Err(Error::Corrupt { .. }) => {
                tracing::warn!("a part of an archived session was not written to its end");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder)?;
    let new = !path.exists();
    let mut file = OpenOptions::new().append(true).create(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if new {
        // Where folders cannot be opened, they need not be.
        if let Ok(folder) = File::open(folder) {
            folder.sync_all()?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        removed => removed.map(|()| true),
    }
}

fn failed(error: io::Error) -> Error {
    Error::archive(error, true)
}
