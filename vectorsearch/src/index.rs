use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Document, Filter, Find, Fused, Hybrid, Knn, Page, Query, Range, Record, Result, Schema,
    SearchResult, Value,
};

/// The most documents that [`VectorIndexExt::load`] holds at a time.
const LOAD_CHUNK: usize = 512;

/// Documents with vectors that can be searched: the contract with those who implement one.
///
/// Callers also use [`VectorIndexExt`].
/// [`RedisVectorIndex`](crate::RedisVectorIndex) and [`MemoryVectorIndex`](crate::MemoryVectorIndex) are such.
#[async_trait]
pub trait VectorIndex: Debug + Send + Sync + 'static {
    /// Returns the schema that documents and queries must fit.
    fn schema(&self) -> &Schema;

    /// Returns the id of the document that lies under the `key` of a hit, or `None` if it is not a key of this index.
    fn id(&self, key: &[u8]) -> Option<String>;

    /// Writes documents, each in the place of the one with the same id, of which nothing is left.
    ///
    /// All documents are checked before the first is written.
    /// Each document is written atomically; the documents of one call are not.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidField`](crate::Error::InvalidField) and
    /// [`Error::DimensionMismatch`](crate::Error::DimensionMismatch) if a document does not fit; nothing is written then.
    /// [`Error::Incomplete`](crate::Error::Incomplete) or [`Error::Backend`](crate::Error::Backend) if the server failed;
    /// the call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves each document either as it was or written.
    async fn put_many(&self, documents: &[Document]) -> Result<()>;

    /// Reads documents with all their fields; `None` for ids that are not there, in the order of `ids`.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>>;

    /// Removes documents; returns how many were there.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::put_many`].
    async fn remove_many(&self, ids: &[&str]) -> Result<u64>;

    /// Searches by vector.
    ///
    /// Nothing found is an empty result.
    /// Check [`SearchResult::partial`] before a short answer is taken for "there is nothing else".
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`](crate::Error::UnknownField),
    /// [`Error::FieldKindMismatch`](crate::Error::FieldKindMismatch) or
    /// [`Error::DimensionMismatch`](crate::Error::DimensionMismatch) if the query does not fit the schema.
    /// [`Error::IndexMissing`](crate::Error::IndexMissing),
    /// [`Error::SearchTimeout`](crate::Error::SearchTimeout),
    /// [`Error::SearchUnavailable`](crate::Error::SearchUnavailable) or [`Error::Backend`](crate::Error::Backend) if there
    /// is no answer.
    async fn search(&self, query: Query<'_>) -> Result<SearchResult>;

    /// Searches many times at once; one result per query, in order.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::search`], and nothing is sent if one of the queries does not fit.
    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>>;

    /// Searches by a filter alone, page by page.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::search`].
    async fn find(&self, query: &Find) -> Result<Page>;

    /// Searches by words and by vector, and fuses the two rankings.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::search`].
    async fn hybrid(&self, query: &Hybrid) -> Result<Fused> {
        let (find, knn) = query.parts()?;
        let words = self.find(&find).await?;
        Ok(query.fuse(words, self.search(Query::from(&knn)).await?))
    }

    /// Counts the documents that `filter` considers; some that have just expired may be among them.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::search`].
    async fn count(&self, filter: &Filter) -> Result<u64>;

    /// Removes every document that `filter` considers when it is asked; later ones stay.
    ///
    /// # Errors
    ///
    /// [`Error::MatchesAll`](crate::Error::MatchesAll) if the filter considers every document and `bulk` does not allow
    /// that; else as [`VectorIndex::search`] and [`VectorIndex::put_many`].
    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected>;

    /// Sets fields of every document that `filter` considers when it is asked, and that is still there when its turn
    /// comes; other fields stay.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::remove_where`], and as [`VectorIndex::put_many`] for fields that do not fit the schema.
    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected>;
}

/// Whether a removal or an update by filter is done, and whether it may reach every document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Bulk {
    dry_run: bool,
    allow_all: bool,
}

impl Bulk {
    /// Does it.
    pub fn apply() -> Self {
        Self { dry_run: false, allow_all: false }
    }

    /// Only counts what would be reached.
    pub fn dry_run() -> Self {
        Self { dry_run: true, allow_all: false }
    }

    /// Allows a filter that considers every document.
    pub fn allow_all(self) -> Self {
        Self { allow_all: true, ..self }
    }

    /// Tells whether this only counts.
    #[must_use]
    pub fn is_dry_run(self) -> bool {
        self.dry_run
    }

    /// Tells whether the filter may consider every document.
    #[must_use]
    pub fn allows_all(self) -> bool {
        self.allow_all
    }

    /// Checks whether a filter may be used.
    ///
    /// # Errors
    ///
    /// [`Error::MatchesAll`](crate::Error::MatchesAll) if it considers every document and that is not allowed.
    pub fn check(self, filter: &Filter) -> Result<()> {
        if filter.is_all() && !self.allow_all { Err(crate::Error::MatchesAll) } else { Ok(()) }
    }
}

/// What a removal or an update by filter reached.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Affected {
    /// The number of documents that the filter considered.
    pub matched: u64,
    /// The number of them that were changed: fewer if some were removed meanwhile, and 0 in a dry run.
    pub changed: u64,
}

impl Affected {
    /// Makes a count, for an implementor of [`VectorIndex`].
    #[must_use]
    pub fn new(matched: u64, changed: u64) -> Self {
        Self { matched, changed }
    }
}

/// What callers do with a [`VectorIndex`].
pub trait VectorIndexExt: VectorIndex {
    /// Writes one document; see [`VectorIndex::put_many`].
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::put_many`].
    fn put(&self, document: &Document) -> impl Future<Output = Result<()>> + Send {
        async move { self.put_many(std::slice::from_ref(document)).await }
    }

    /// Reads one document.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::get_many`].
    fn get(&self, id: &str) -> impl Future<Output = Result<Option<Record>>> + Send {
        async move { Ok(self.get_many(&[id]).await?.pop().flatten()) }
    }

    /// Removes one document; returns whether it was there.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::remove_many`].
    fn remove(&self, id: &str) -> impl Future<Output = Result<bool>> + Send {
        async move { Ok(self.remove_many(&[id]).await? != 0) }
    }

    /// Finds the nearest neighbors.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::search`].
    fn knn(&self, query: &Knn) -> impl Future<Output = Result<SearchResult>> + Send {
        async move { self.search(Query::Knn(query)).await }
    }

    /// Finds the neighbors within a distance.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::search`].
    fn range(&self, query: &Range) -> impl Future<Output = Result<SearchResult>> + Send {
        async move { self.search(Query::Range(query)).await }
    }

    /// Writes any number of documents as they are made, in bounded memory, and calls `progress` with the number written
    /// so far.
    ///
    /// A document that does not fit the schema ends the load; those before it may be written.
    /// Returns the number of documents.
    ///
    /// # Errors
    ///
    /// As [`VectorIndex::put_many`].
    fn load<I>(
        &self,
        documents: I,
        mut progress: impl FnMut(u64) + Send,
    ) -> impl Future<Output = Result<u64>> + Send
    where
        I: IntoIterator<Item = Document, IntoIter: Send> + Send,
    {
        async move {
            let mut documents = documents.into_iter();
            let (mut chunk, mut written) = (Vec::with_capacity(LOAD_CHUNK), 0);
            loop {
                chunk.extend(documents.by_ref().take(LOAD_CHUNK));
                if chunk.is_empty() {
                    return Ok(written);
                }
                self.put_many(&chunk).await?;
                written += chunk.len() as u64;
                progress(written);
                chunk.clear();
            }
        }
    }
}

impl<I: VectorIndex + ?Sized> VectorIndexExt for I {}

#[async_trait]
impl<I: VectorIndex + ?Sized> VectorIndex for Arc<I> {
    fn schema(&self) -> &Schema {
        (**self).schema()
    }

    fn id(&self, key: &[u8]) -> Option<String> {
        (**self).id(key)
    }

    async fn put_many(&self, documents: &[Document]) -> Result<()> {
        (**self).put_many(documents).await
    }

    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        (**self).get_many(ids).await
    }

    async fn remove_many(&self, ids: &[&str]) -> Result<u64> {
        (**self).remove_many(ids).await
    }

    async fn search(&self, query: Query<'_>) -> Result<SearchResult> {
        (**self).search(query).await
    }

    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>> {
        (**self).search_many(queries).await
    }

    async fn find(&self, query: &Find) -> Result<Page> {
        (**self).find(query).await
    }

    async fn hybrid(&self, query: &Hybrid) -> Result<Fused> {
        (**self).hybrid(query).await
    }

    async fn count(&self, filter: &Filter) -> Result<u64> {
        (**self).count(filter).await
    }

    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        (**self).remove_where(filter, bulk).await
    }

    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        (**self).update_where(filter, changes, bulk).await
    }
}
