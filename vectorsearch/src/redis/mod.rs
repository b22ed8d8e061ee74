//! The index on a server with `FT.*` commands: this file makes, watches and drops it.

mod bulk;
mod reindex;
mod search;
mod write;

use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{KeyFamily, Ttl};
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use tokio::time::Instant;
use tracing::field::Empty;

pub use bulk::Verification;
pub(crate) use write::send;

use crate::error::is_index_exists;
use crate::{
    Affected, Bulk, Document, Engine, Error, Filter, Find, Fused, Hybrid, IndexInfo, Page, Query,
    Record, Result, Schema, SearchResult, Value, VectorIndex,
};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// The keys that [`RedisVectorIndex`] writes; `<prefix>` is the schema's.
pub const KEYS: &[KeyFamily] = &[KeyFamily::new(
    "<prefix>",
    "<prefix><id>",
    "hash",
    Ttl::Never("they are the caller's documents; `Document::with_ttl` sets one"),
    &[
        "EVALSHA",
        "EVAL",
        "MULTI",
        "EXEC",
        "DEL",
        "HSET",
        "PEXPIRE",
        "EXISTS",
        "HGETALL",
        "UNLINK",
        "SCAN",
        "FT.CREATE",
        "FT.INFO",
        "FT.SEARCH",
        "FT.AGGREGATE",
        "FT.CURSOR",
        "FT.ALIASADD",
        "FT.ALIASUPDATE",
        "FT.DROPINDEX",
    ],
)];

/// A vector index on Redis or Valkey with RediSearch.
///
/// The documents are hashes under the schema's prefix, written here or by other means; the server indexes them as they
/// come.
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
    /// The index itself.
    schema: Schema,
    /// What is searched: the same schema under the name of the alias, if there is one.
    target: Schema,
}

impl RedisVectorIndex {
    /// Names an index on a server; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, schema: Schema) -> Self {
        Self { driver, target: schema.clone(), schema }
    }

    /// Names an index that is searched by an alias, so that [`reindex`](Self::reindex) can replace it while it is used;
    /// nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if `alias` is not a name, or the name of the index.
    pub fn behind_alias(driver: DynDriver, schema: Schema, alias: &str) -> Result<Self> {
        let target = schema.with_index(alias)?;
        if alias == schema.index() {
            return Err(Error::InvalidName {
                what: "alias",
                name: alias.to_owned(),
                problem: "an index of this name would hide the alias",
            });
        }
        Ok(Self { driver, schema, target })
    }

    /// Returns the schema.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Returns the ACL rules (`ACL SETUSER` words) that a user of this index needs; [`reindex`](Self::reindex) also needs
    /// those of the next index.
    ///
    /// The server takes the names of indexes and aliases for keys, too.
    #[must_use]
    pub fn acl(&self) -> Vec<String> {
        let commands = KEYS.iter().flat_map(|row| row.commands);
        let commands = commands.map(|command| format!("+{}", command.to_ascii_lowercase()));
        let mut rules = vec![format!("~{}*", self.schema.prefix())];
        rules.extend([&self.schema, &self.target].map(|schema| format!("~{}", schema.index())));
        rules.into_iter().chain(commands).collect()
    }

    /// Returns the alias that is searched, if there is one.
    #[must_use]
    pub fn alias(&self) -> Option<&str> {
        (self.target.index() != self.schema.index()).then(|| self.target.index())
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
    /// [`Error::EngineLacks`] if there is an alias to be made and the engine has none; the index is left, and works by its
    /// own name.
    /// [`Error::SearchUnavailable`] if the server has no search; [`Error::Backend`] if it could not be asked.
    #[tracing::instrument(name = "vectorsearch.ensure_index", level = "debug", skip_all, fields(created = Empty), err(level = "debug"))]
    pub async fn ensure_index(&self) -> Result<bool> {
        let created = match self.check().await {
            // The question comes first, since a new index may take the name of an alias and hide it.
            Err(Error::IndexMissing { .. }) => self.create().await?,
            other => other.map(|()| false)?,
        };
        tracing::Span::current().record("created", created);
        Ok(created)
    }

    async fn create(&self) -> Result<bool> {
        let created = match self.driver.query(self.schema.create_cmd()).await {
            Ok(()) => true,
            Err(error) if is_index_exists(&error) => {
                self.check_index(&self.schema).await?;
                false
            }
            Err(error) => return Err(self.explain(error)),
        };
        if let Some(alias) = self.alias() {
            let add = Cmd::new("FT.ALIASADD").key(alias).arg(self.schema.index()).idempotent();
            match self.driver.query::<()>(add).await {
                Ok(()) => {}
                Err(error) if is_index_exists(&error) => self.check_index(&self.target).await?,
                Err(error) => return Err(self.explain_alias(error).await),
            }
        }
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
        self.wait_until_indexed_with(timeout, |_| {}).await
    }

    /// Waits as [`wait_until_indexed`](Self::wait_until_indexed) does, and shows `progress` what the server tells each
    /// time it is asked.
    ///
    /// # Errors
    ///
    /// As [`wait_until_indexed`](Self::wait_until_indexed).
    pub async fn wait_until_indexed_with(
        &self,
        timeout: Duration,
        mut progress: impl FnMut(&IndexInfo) + Send,
    ) -> Result<IndexInfo> {
        let start = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let info = self.info().await?;
            progress(&info);
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
        self.info_of(self.target.index()).await
    }

    async fn info_of(&self, index: &str) -> Result<IndexInfo> {
        let cmd = Cmd::new("FT.INFO").key(index).readonly();
        self.driver.query(cmd).await.map_err(|error| self.explain(error))
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
        match self.info_of(index).await {
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

    /// Checks what is searched, and the index itself where there is no alias.
    async fn check(&self) -> Result<()> {
        self.check_index(&self.target).await
    }

    async fn check_index(&self, expected: &Schema) -> Result<()> {
        let info = self.info_of(expected.index()).await?;
        // Behind an alias an index of any name will do.
        let named = if self.alias() == Some(expected.index()) {
            expected.with_index(&info.name)?
        } else {
            expected.clone()
        };
        match info.difference(&named) {
            Some(difference) => {
                Err(Error::SchemaMismatch { index: expected.index().to_owned(), difference })
            }
            None => Ok(()),
        }
    }

    /// Explains the refusal of an `FT.ALIAS*` command; a server that has an index but not the command has no aliases.
    async fn explain_alias(&self, error: inferkit_core::Error) -> Error {
        let error = match self.explain(error) {
            Error::SearchUnavailable { source } => source,
            other => return other,
        };
        let engine = match Engine::probe(&self.driver).await {
            Ok(Engine::None) => return Error::SearchUnavailable { source: error },
            Ok(engine) => engine.to_string(),
            Err(_) => "the search of this server".to_owned(),
        };
        let instead = "name the index itself with RedisVectorIndex::new, and change the name in your settings when another is filled";
        Error::EngineLacks { engine, what: "aliases", instead }
    }

    fn explain(&self, error: inferkit_core::Error) -> Error {
        Error::of_index(error, self.target.index())
    }
}

#[async_trait]
impl VectorIndex for RedisVectorIndex {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn id(&self, key: &[u8]) -> Option<String> {
        self.schema.id(key)
    }

    /// One `EVALSHA` for one document; more go as a `MULTI` of `DEL`, `HSET` and `PEXPIRE` for each 16 of them, eight of
    /// which are under way, or on a cluster as one pipelined `EVALSHA` each.
    async fn put_many(&self, documents: &[Document]) -> Result<()> {
        self.write(documents).await
    }

    /// One `HGETALL` per document, pipelined.
    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        self.read(ids).await
    }

    /// One `UNLINK` per document, pipelined.
    async fn remove_many(&self, ids: &[&str]) -> Result<u64> {
        self.unlink(ids).await
    }

    /// One `FT.SEARCH`.
    async fn search(&self, query: Query<'_>) -> Result<SearchResult> {
        self.search_one(query).await
    }

    /// One pipeline of `FT.SEARCH`.
    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>> {
        self.search_all(queries).await
    }

    /// One `FT.SEARCH`.
    async fn find(&self, query: &Find) -> Result<Page> {
        self.find_page(query).await
    }

    /// One pipeline of two `FT.SEARCH`.
    async fn hybrid(&self, query: &Hybrid) -> Result<Fused> {
        self.search_hybrid(query).await
    }

    /// One `FT.SEARCH` that returns no documents.
    async fn count(&self, filter: &Filter) -> Result<u64> {
        self.count_matching(filter).await
    }

    /// One `FT.AGGREGATE` and one `FT.CURSOR READ` per thousand documents to collect their keys, then one pipelined
    /// `UNLINK` per document.
    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        self.remove_matching(filter, bulk).await
    }

    /// As [`remove_where`](VectorIndex::remove_where), with one pipelined `EVALSHA` per document.
    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        self.update_matching(filter, changes, bulk).await
    }
}
