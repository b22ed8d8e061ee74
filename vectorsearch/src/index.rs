use std::time::Duration;

use inferkit_core::{Cmd, DriverExt, DynDriver};
use tokio::time::Instant;
use tracing::field::Empty;

use crate::error::is_index_exists;
use crate::{Error, IndexInfo, Knn, Result, Schema, SearchResult};

/// The time limit of a search that a server has by default.
const DEFAULT_TIMEOUT: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// A vector index on Redis or Valkey with RediSearch.
///
/// The documents are hashes that the caller writes under the schema's prefix; the server indexes them as they come.
/// Cloning is cheap, and clones share the connection.
///
/// # Examples
///
/// ```no_run
/// # use inferkit_vectorsearch::{RedisVectorIndex, Schema, VectorField};
/// # use inferkit_vectorsearch::inferkit_core::DynDriver;
/// # async fn example(driver: DynDriver) -> inferkit_vectorsearch::Result<()> {
/// let schema = Schema::builder("docs-v1", "docs:", VectorField::flat("embedding", 384)).build()?;
/// let index = RedisVectorIndex::new(driver, schema);
/// index.ensure_index().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisVectorIndex {
    driver: DynDriver,
    schema: Schema,
}

impl RedisVectorIndex {
    /// Names an index on a server; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, schema: Schema) -> Self {
        Self { driver, schema }
    }

    /// Returns the schema.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Returns the driver.
    #[must_use]
    pub fn driver(&self) -> &DynDriver {
        &self.driver
    }

    /// Creates the index unless it exists with the same schema; returns whether this call created it.
    ///
    /// One `FT.INFO` if it exists, else also one `FT.CREATE`; safe to call from many processes at once and to repeat.
    /// Documents that are there already are indexed in the background:
    /// [`wait_until_indexed`](Self::wait_until_indexed) waits for that.
    ///
    /// # Errors
    ///
    /// [`Error::SchemaMismatch`] if an index or an alias of this name exists and differs; nothing is changed then.
    /// [`Error::SearchUnavailable`] if the server has no search; [`Error::Backend`] if it could not be asked.
    #[tracing::instrument(name = "vectorsearch.ensure_index", level = "debug", skip_all, fields(created = Empty), err(level = "debug"))]
    pub async fn ensure_index(&self) -> Result<bool> {
        let created = match self.check().await {
            // The question comes first, since a new index may take the name of an alias and hide it.
            Err(Error::IndexMissing { .. }) => {
                match self.driver.query(self.schema.create_cmd()).await {
                    Ok(()) => true,
                    Err(error) if is_index_exists(&error) => {
                        self.check().await?;
                        false
                    }
                    Err(error) => return Err(self.explain(error)),
                }
            }
            other => other.map(|_| false)?,
        };
        tracing::Span::current().record("created", created);
        Ok(created)
    }

    /// Waits until the server has indexed the documents that were there before the index, and tells how it went.
    ///
    /// One `FT.INFO` per look, 5 ms apart at first and 250 ms later.
    /// Look at [`IndexInfo::failures`]: documents that do not fit the schema are left out without an error.
    ///
    /// # Errors
    ///
    /// [`Error::IndexingTimeout`] if it takes longer than `timeout`; the server goes on.
    /// [`Error::IndexMissing`], [`Error::SearchUnavailable`] or [`Error::Backend`] if there is no answer.
    #[tracing::instrument(
        name = "vectorsearch.wait_until_indexed",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub async fn wait_until_indexed(&self, timeout: Duration) -> Result<IndexInfo> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let info = self.info().await?;
            if info.is_complete() {
                return Ok(info);
            }
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Err(Error::IndexingTimeout {
                    index: self.schema.index().to_owned(),
                    percent: info.percent_indexed,
                });
            }
            tokio::time::sleep(pause.min(left)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Asks the server about the index: one `FT.INFO`.
    ///
    /// # Errors
    ///
    /// [`Error::IndexMissing`], [`Error::SearchUnavailable`] or [`Error::Backend`].
    pub async fn info(&self) -> Result<IndexInfo> {
        let cmd = Cmd::new("FT.INFO").key(self.schema.index()).readonly();
        self.driver.query(cmd).await.map_err(|error| self.explain(error))
    }

    /// Finds the nearest neighbors: one `FT.SEARCH`.
    ///
    /// Nothing found is an empty result.
    /// Check [`SearchResult::partial`] before a short answer is taken for "there is nothing else".
    ///
    /// # Errors
    ///
    /// [`Error::UnknownField`], [`Error::FieldKindMismatch`] or [`Error::DimensionMismatch`] if the query does not fit
    /// the schema; nothing is sent then.
    /// [`Error::IndexMissing`] if [`ensure_index`](Self::ensure_index) was not called, or the index was lost with the
    /// server's data; [`Error::SearchUnavailable`] or [`Error::Backend`] if there is no answer.
    #[tracing::instrument(name = "vectorsearch.search", level = "debug", skip_all, fields(hits = Empty, partial = Empty), err(level = "debug"))]
    pub async fn search(&self, query: &Knn) -> Result<SearchResult> {
        let cmd = query.to_cmd(&self.schema)?;
        let start = Instant::now();
        let mut result: SearchResult =
            self.driver.query(cmd).await.map_err(|error| self.explain(error))?;
        if !result.warns && result.hits.len() < query.k() {
            result.partial = query.timeout().unwrap_or(DEFAULT_TIMEOUT) <= start.elapsed();
        }
        let span = tracing::Span::current();
        span.record("hits", result.hits.len());
        span.record("partial", result.partial);
        Ok(result)
    }

    /// Drops the index and keeps its documents; returns whether there was one.
    ///
    /// One `FT.INFO`, then one `FT.DROPINDEX` without `DD`.
    ///
    /// # Errors
    ///
    /// [`Error::SchemaMismatch`] if the name is an alias: the server would drop the index behind it.
    /// [`Error::SearchUnavailable`] or [`Error::Backend`] if there is no answer.
    #[tracing::instrument(
        name = "vectorsearch.drop_index",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub async fn drop_index(&self) -> Result<bool> {
        let index = self.schema.index();
        match self.info().await {
            Ok(info) if info.name == index => {}
            Ok(info) => {
                return Err(Error::SchemaMismatch {
                    index: index.to_owned(),
                    difference: format!("the name is an alias of index `{}`", info.name),
                });
            }
            Err(Error::IndexMissing { .. }) => return Ok(false),
            Err(error) => return Err(error),
        }
        let dropped = self.driver.query(Cmd::new("FT.DROPINDEX").key(index)).await;
        match dropped.map_err(|error| self.explain(error)) {
            Ok(()) => Ok(true),
            Err(Error::IndexMissing { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn check(&self) -> Result<()> {
        match self.info().await?.difference(&self.schema) {
            Some(difference) => {
                Err(Error::SchemaMismatch { index: self.schema.index().to_owned(), difference })
            }
            None => Ok(()),
        }
    }

    fn explain(&self, error: inferkit_core::Error) -> Error {
        Error::of_index(error, self.schema.index())
    }
}
