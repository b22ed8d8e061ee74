use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::io::{BufRead, Write};
use std::time::Duration;

use bytes::Bytes;
use inferkit_vectorsearch::{Similarity, Vector};
use serde::{Deserialize, Serialize};

use crate::selection::labels;
use crate::{
    Answer, EntryId, Error, Finish, Hit, Request, Result, Selection, SemanticCache, Tenant,
};

/// How many entries an import stores at a time.
const IMPORT_CHUNK: usize = 128;

/// Where an export goes on.
///
/// What it holds is known to the cache that made it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cursor(String);

impl Cursor {
    /// Makes one, for an implementor of [`SemanticCache`].
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text that it was made of.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An entry as it is exported: a line of JSON.
///
/// Tenant, request and labels are digests, as in the cache; prompt and answer are not.
/// `Debug` prints neither.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
pub struct Record {
    tenant: String,
    id: String,
    scope: String,
    model: String,
    labels: BTreeSet<String>,
    prompt: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response: Option<String>,
    /// The bytes of a response that is no text, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    response_hex: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_used: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    completion_tokens: Option<u64>,
    /// Whether a limit cut the response off.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
    /// In seconds since the Unix epoch.
    stored_at: u64,
    /// How long the entry has left.
    ttl_millis: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    embedding: Option<Vec<f32>>,
}

impl Record {
    /// Makes the record of an answer to a request; `vector` is that of the prompt, by the model of this name.
    #[must_use]
    pub fn new(
        request: &Request,
        answer: &Answer,
        embedding_model: &str,
        vector: Option<&Vector>,
        stored_at: Duration,
        ttl: Duration,
    ) -> Self {
        let fields = Fields {
            scope: request.scope(embedding_model),
            model: request.model().to_owned(),
            labels: labels(request, answer),
            prompt: request.prompt().to_owned(),
            stored_at,
            ttl,
        };
        Self::of_fields(request.tenant().hex().as_str(), &request.id(), fields, answer, vector)
    }

    pub(crate) fn of_fields(
        tenant: &str,
        id: &EntryId,
        fields: Fields,
        answer: &Answer,
        vector: Option<&Vector>,
    ) -> Self {
        let text = answer.text().map(ToOwned::to_owned);
        let bytes = text.is_none().then(|| to_hex(answer.response()));
        Self {
            tenant: tenant.to_owned(),
            id: id.to_string(),
            scope: fields.scope,
            model: fields.model,
            labels: fields.labels,
            prompt: fields.prompt,
            response: text,
            response_hex: bytes,
            tokens_used: answer.tokens_used(),
            completion_tokens: answer.completion_tokens(),
            truncated: answer.finish() == Finish::Truncated,
            stored_at: fields.stored_at.as_secs(),
            ttl_millis: u64::try_from(fields.ttl.as_millis()).unwrap_or(u64::MAX),
            embedding: vector.map(|vector| vector.as_slice().to_vec()),
        }
    }

    /// Checks that this is an entry that a cache with vectors of `dimensions` can hold.
    ///
    /// # Errors
    ///
    /// What is wrong with it, for [`Error::record`].
    pub fn check(&self, dimensions: usize) -> Result<(), String> {
        let hex = |text: &str, len| {
            text.len() == len
                && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let label = |label: &String| {
            label.starts_with(|c: char| c.is_ascii_lowercase())
                && label.get(1..).is_some_and(|digest| hex(digest, 32))
        };
        if !hex(&self.tenant, 64) || !hex(&self.id, 64) || !hex(&self.scope, 128) {
            return Err("has no proper digests of tenant, request and scope".to_owned());
        }
        if self.model.trim().is_empty() || !self.labels.iter().all(label) {
            return Err("has no model, or improper labels".to_owned());
        }
        if self.ttl_millis == 0 || crate::policy::ttl_millis(self.ttl()).is_err() {
            return Err("has no time left, or more than a hundred years".to_owned());
        }
        self.answer().map_err(|_| "has no answer".to_owned())?;
        match self.vector().transpose() {
            Err(_) => Err("has a vector that cannot be compared".to_owned()),
            Ok(Some(vector)) if vector.dimensions() != dimensions => Err(format!(
                "has a vector of {} dimensions, and this cache has {dimensions}",
                vector.dimensions()
            )),
            Ok(_) => Ok(()),
        }
    }

    /// Tells whether the entry belongs to `tenant`.
    #[must_use]
    pub fn is_of(&self, tenant: &Tenant) -> bool {
        self.tenant == tenant.hex().as_str()
    }

    /// Tells whether the entry is among those of `selection`.
    #[must_use]
    pub fn is_selected(&self, selection: &Selection) -> bool {
        selection.matches_labels(&self.labels, self.stored_at())
    }

    /// Returns the digest of the tenant, in hex.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Returns the id of the entry.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidId`] if the record was not checked and has none.
    pub fn id(&self) -> Result<EntryId> {
        self.id.parse()
    }

    /// Returns the [`Request::scope`] of the request.
    #[must_use]
    pub fn scope(&self) -> &str {
        &self.scope
    }

    /// Returns the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the prompt.
    #[must_use]
    pub fn prompt(&self) -> &str {
        &self.prompt
    }

    pub(crate) fn labels(&self) -> &BTreeSet<String> {
        &self.labels
    }

    /// Returns the answer; its tags are not known.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyAnswer`] if the record was not checked and has none.
    pub fn answer(&self) -> Result<Answer> {
        let response = match (&self.response, &self.response_hex) {
            (Some(text), _) => Bytes::copy_from_slice(text.as_bytes()),
            (None, Some(hex)) => from_hex(hex).ok_or(Error::EmptyAnswer)?.into(),
            (None, None) => return Err(Error::EmptyAnswer),
        };
        let answer = Answer::new(response)?.with_counts(self.tokens_used, self.completion_tokens);
        Ok(if self.truncated { answer.with_finish(Finish::Truncated) } else { answer })
    }

    /// Returns the vector of the prompt, if the entry has one.
    #[must_use]
    pub fn vector(&self) -> Option<Result<Vector>> {
        let components = self.embedding.as_deref()?;
        Some(Vector::new(components).map_err(Error::invalid_embedding))
    }

    /// Returns when the entry was stored, since the Unix epoch.
    #[must_use]
    pub fn stored_at(&self) -> Duration {
        Duration::from_secs(self.stored_at)
    }

    /// Returns how long the entry has left.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        Duration::from_millis(self.ttl_millis)
    }

    /// Sets how long the entry has left.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl_millis = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        self
    }

    /// Returns the entry as a hit.
    ///
    /// # Errors
    ///
    /// As [`Record::id`] and [`Record::answer`].
    pub fn hit(&self, similarity: Similarity) -> Result<Hit> {
        let (prompt, model) = (self.prompt.as_str(), self.model.as_str());
        Ok(Hit::new(self.id()?, prompt, &self.answer()?, similarity, model, self.stored_at()))
    }
}

/// What a [`Record`] is made of besides the answer.
pub(crate) struct Fields {
    pub(crate) scope: String,
    pub(crate) model: String,
    pub(crate) labels: BTreeSet<String>,
    pub(crate) prompt: String,
    pub(crate) stored_at: Duration,
    pub(crate) ttl: Duration,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("id", &self.id)
            .field("model", &self.model)
            .field("stored_at", &self.stored_at)
            .field("ttl_millis", &self.ttl_millis)
            .finish_non_exhaustive()
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?));
    if rest.is_empty() { bytes.collect() } else { None }
}

/// Export to a file and import from one, as JSON Lines.
pub trait TransferExt: SemanticCache {
    /// Writes all entries as JSON, one a line, and calls `progress` with how many were written so far; returns how many.
    ///
    /// Entries of a tenant that was flushed are left out.
    /// The file holds prompts and answers: keep it as safe as the cache.
    /// The writes block: give it a file or a buffer, no network.
    ///
    /// # Errors
    ///
    /// [`Error::File`], and as [`SemanticCache::export_some`].
    fn export<W: Write + Send>(
        &self,
        mut to: W,
        mut progress: impl FnMut(u64) + Send,
    ) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let file = |source| Error::File { source };
            let (mut written, mut seen) = (0, BTreeSet::new());
            let mut cursor = None;
            loop {
                let (records, next) = self.export_some(cursor).await?;
                for record in records {
                    // The server may hand out an entry twice.
                    if seen.insert(record.id()?) {
                        let line = serde_json::to_string(&record)
                            .map_err(|source| Error::NotJson { source })?;
                        writeln!(to, "{line}").map_err(file)?;
                        written += 1;
                    }
                }
                progress(written);
                cursor = match next {
                    Some(next) => Some(next),
                    None => break,
                };
            }
            to.flush().map_err(file)?;
            Ok(written)
        }
    }

    /// Stores the entries of a file that [`export`](Self::export) wrote, in bounded memory, and calls `progress` with how
    /// many were read so far; returns how many were stored.
    ///
    /// # Errors
    ///
    /// [`Error::Record`] for a line that is no entry or does not fit this cache; what came before it may be stored.
    /// [`Error::File`], and as [`SemanticCache::import_many`].
    fn import<R: BufRead + Send>(
        &self,
        from: R,
        mut progress: impl FnMut(u64) + Send,
    ) -> impl Future<Output = Result<u64>> + Send {
        async move {
            let (mut chunk, mut read, mut stored) = (Vec::with_capacity(IMPORT_CHUNK), 0, 0);
            let mut lines = from.lines();
            loop {
                let line = lines.next().transpose().map_err(|source| Error::File { source })?;
                let end = line.is_none();
                if let Some(line) = line.filter(|line| !line.trim().is_empty()) {
                    read += 1;
                    let record = serde_json::from_str(&line);
                    // The error of the parser would repeat the line.
                    chunk.push(record.map_err(|_| Error::record(read, "is not an entry"))?);
                }
                if chunk.len() == IMPORT_CHUNK || end {
                    let before = read - chunk.len();
                    stored += self.import_many(&chunk).await.map_err(|error| match error {
                        Error::Record { number, problem } => {
                            Error::record(before + number, problem)
                        }
                        error => error,
                    })?;
                    chunk.clear();
                    progress(read as u64);
                }
                if end {
                    return Ok(stored);
                }
            }
        }
    }
}

impl<C: SemanticCache + ?Sized> TransferExt for C {}
