//! The index on a server with vector sets: this file names, checks and describes it.

mod attributes;
mod info;
mod options;
mod search;
mod write;

use async_trait::async_trait;
use inferkit_core::keys::{Key, KeyBuilder, KeyFamily, Namespace, Ttl, decode};
use inferkit_core::{Cmd, DriverExt as _, DynDriver, ErrorKind};

pub use info::VectorSetInfo;
use options::VectorOf;
pub use options::{Quantization, VectorSetOptions};

use crate::{
    Affected, Bulk, Document, Error, Filter, Find, Fused, Hybrid, Page, Query, Record, Result,
    Schema, SearchResult, Value, VectorIndex,
};

/// The keys that [`RedisVectorSet`] writes.
pub const VECTOR_SET_KEYS: &[KeyFamily] = &[KeyFamily::new(
    "vset",
    "vset:<index>",
    "vectorset",
    Ttl::Never("it holds the caller's documents"),
    &[
        "VADD", "VSIM", "VREM", "VCARD", "VINFO", "VEMB", "VGETATTR", "VSETATTR", "EVALSHA",
        "EVAL", "MULTI", "EXEC",
    ],
)];

/// A vector index in one vector set of Redis 8 or later: the vectors are kept once, quantized, and no module is needed.
///
/// The documents are the elements of one key, `vset:<index>` under the namespace; the element's name is the id, and its
/// attributes are the document's other fields as JSON.
/// TAG fields are arrays of text in which control characters, `"`, `\` and `%` are percent-encoded; NUMERIC fields are
/// numbers; a TAG or NUMERIC field that a document lacks is `""` or `"nan"`, since a filter that names an absent field
/// would be false even where it is negated.
/// After a field is added to the schema, documents from before pass no filter that names it until they are written again.
///
/// A FLAT field is searched exactly (`TRUTH`: every vector is compared), an HNSW field along the graph.
/// Cloning is cheap, and clones share the connection.
///
/// # What it does not do
///
/// | of `RedisVectorIndex` | here |
/// |---|---|
/// | several vector fields, other metrics than cosine, other types than FLOAT32 | [`Error::Unsupported`] when it is made |
/// | documents without a vector | [`Error::InvalidField`] |
/// | a time to live per document | [`Error::Unsupported`]; nothing is written |
/// | `find`, `hybrid`, sorting, words, prefixes of tags | [`Error::Unsupported`] |
/// | `count`, `remove_where`, `update_where` by filter | exact; the server looks at every element (`TRUTH`) and names each match |
/// | a new vector by `update_where` | [`Error::Unsupported`]; put the document |
/// | `Knn::with_timeout`, `Knn::with_hybrid_policy` | [`Error::Unsupported`] |
/// | exact filters on a graph | the search gives up after [`VectorSetOptions::with_filter_ef`] documents; then it is `partial` |
/// | vectors as they were put | read back as the server keeps them: rounded, or not at all where they are reduced |
/// | distances to 1e-6 | to about 1e-2 with 8 bits per component |
/// | fields with hits | Redis 8.2 or later; [`Error::Unsupported`] on 8.0 |
/// | an index spread over a cluster | one key, so one node |
///
/// # Examples
///
/// ```no_run
/// # use inferkit_vectorsearch::{Hnsw, RedisVectorSet, Schema, VectorField, VectorSetOptions};
/// # use inferkit_vectorsearch::inferkit_core::{DynDriver, keys::Namespace};
/// # async fn example(driver: DynDriver) -> Result<(), Box<dyn std::error::Error>> {
/// let field = VectorField::hnsw("embedding", 384, Hnsw::default());
/// let schema = Schema::builder("docs-v1", "docs:", field).tag("tenant").build()?;
/// let set = RedisVectorSet::new(driver, &Namespace::new("prod")?, schema, VectorSetOptions::new())?;
/// assert_eq!(set.key(), "prod:vset:docs-v1");
/// set.check().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct RedisVectorSet {
    driver: DynDriver,
    key: Key,
    schema: Schema,
    options: VectorSetOptions,
    vector: VectorOf,
}

impl RedisVectorSet {
    /// Names a vector set on a server; nothing is sent, and the first document makes the set.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] if the schema has something that a vector set cannot hold; [`Error::InvalidParameter`] if
    /// an option or a parameter of the graph is out of range.
    pub fn new(
        driver: DynDriver,
        namespace: &Namespace,
        schema: Schema,
        options: VectorSetOptions,
    ) -> Result<Self> {
        let vector = options.field(&schema)?;
        let key = namespace.family("vset").part(schema.index()).build();
        Ok(Self { driver, key, schema, options, vector })
    }

    /// Returns the key of the set.
    #[must_use]
    pub fn key(&self) -> &str {
        self.key.as_str()
    }

    /// Returns the driver.
    #[must_use]
    pub fn driver(&self) -> &DynDriver {
        &self.driver
    }

    /// Returns the same set, but searched exactly: the server compares every vector as it keeps it.
    #[must_use]
    pub fn exact(&self) -> Self {
        let vector = VectorOf { graph: None, ..self.vector.clone() };
        Self { vector, ..self.clone() }
    }

    /// Asks the server about the set: one `VINFO`; `None` if there is none yet.
    ///
    /// # Errors
    ///
    /// [`Error::VectorSetsUnavailable`] or [`Error::Backend`].
    pub async fn info(&self) -> Result<Option<VectorSetInfo>> {
        let cmd = Cmd::new("VINFO").key(&self.key).readonly();
        self.driver.query(cmd).await.map_err(|error| self.explain(error))
    }

    /// Checks that the server has vector sets, and that this one has the shape that is expected or does not exist yet.
    ///
    /// # Errors
    ///
    /// [`Error::VectorSetMismatch`]; else as [`info`](Self::info).
    pub async fn check(&self) -> Result<()> {
        let Some(info) = self.info().await? else { return Ok(()) };
        let mut differences = Vec::new();
        let mut differ = |what: &str, is: String, expected: String| {
            if is != expected {
                differences.push(format!("{what} {is} instead of {expected}"));
            }
        };
        let dimensions = self.vector.dimensions;
        let kept = self.options.reduce.unwrap_or(dimensions);
        differ("dimensions", info.dimensions.to_string(), kept.to_string());
        let from = |from: Option<usize>| from.map_or_else(|| "none".to_owned(), |n| n.to_string());
        let reduced_from = self.options.reduce.map(|_| dimensions);
        differ("reduced from", from(info.reduced_from), from(reduced_from));
        let is = info.quantization.map_or("unknown", Quantization::name);
        differ("quantization", is.to_owned(), self.options.quantization.name().to_owned());
        if let Some((m, _)) = self.vector.graph {
            differ("M", info.m.to_string(), m.to_string());
        }
        if differences.is_empty() {
            return Ok(());
        }
        let difference = differences.join(", ");
        Err(Error::VectorSetMismatch { set: self.key().to_owned(), difference })
    }

    /// The key under which the other implementations would keep the element.
    fn key_of(&self, element: &[u8]) -> String {
        KeyBuilder::after(self.schema.prefix()).part(element).build().as_str().to_owned()
    }

    fn explain(&self, error: inferkit_core::Error) -> Error {
        if error.kind() != ErrorKind::Server {
            return Error::Backend(error);
        }
        let text = error.to_string().to_ascii_lowercase();
        if text.contains("unknown command") {
            return Error::VectorSetsUnavailable { source: error };
        }
        // Nothing else of a command that is made here can be a syntax error.
        if text.contains("syntax error in vsim command") {
            return Error::Unsupported {
                what: "this server returns no fields with the hits of a vector set",
                instead: "use Redis 8.2 or later, or leave returning(..) out and call get_many",
            };
        }
        let shape = ["mismatch", "existing set without projection", "set with projection"];
        if shape.iter().any(|fragment| text.contains(fragment)) {
            let set = self.key().to_owned();
            return Error::VectorSetMismatch { set, difference: error.to_string() };
        }
        Error::Backend(error)
    }

    /// Explains the failure of what was sent in chunks.
    fn explain_chunks(&self, error: Error) -> Error {
        match error {
            Error::Backend(source) => self.explain(source),
            Error::Incomplete { done: 0, total, source } => match self.explain(source) {
                Error::Backend(source) => Error::Incomplete { done: 0, total, source },
                explained => explained,
            },
            other => other,
        }
    }
}

fn unsupported<T>(what: &'static str, instead: &'static str) -> Result<T> {
    Err(Error::Unsupported { what, instead })
}

#[async_trait]
impl VectorIndex for RedisVectorSet {
    fn schema(&self) -> &Schema {
        &self.schema
    }

    fn id(&self, key: &[u8]) -> Option<String> {
        let id = key.strip_prefix(self.schema.prefix().as_bytes())?;
        String::from_utf8(decode(str::from_utf8(id).ok()?)?).ok()
    }

    /// One `VADD` per document, pipelined in chunks of a quarter of a megabyte, of which two are under way.
    async fn put_many(&self, documents: &[Document]) -> Result<()> {
        self.write(documents).await
    }

    /// One `MULTI` of `VGETATTR` and `VEMB` per hundred documents.
    async fn get_many(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        self.read(ids).await
    }

    /// One `VREM` per document, pipelined.
    async fn remove_many(&self, ids: &[&str]) -> Result<u64> {
        self.remove(ids.iter().map(|id| bytes::Bytes::copy_from_slice(id.as_bytes()))).await
    }

    /// One `VSIM`, and one `VCARD` in the same pipeline if a graph is searched with a filter.
    async fn search(&self, query: Query<'_>) -> Result<SearchResult> {
        let mut results = self.search_all(&[query]).await?;
        results.pop().unwrap_or_else(|| Ok(SearchResult::default()))
    }

    /// One pipeline of `VSIM`, and one `VCARD` in it if a graph is searched with a filter.
    async fn search_many(&self, queries: &[Query<'_>]) -> Result<Vec<Result<SearchResult>>> {
        self.search_all(queries).await
    }

    /// Refused, since a vector set is searched by vector.
    async fn find(&self, query: &Find) -> Result<Page> {
        query.to_cmd(&self.schema)?;
        unsupported(
            "a vector set has no search without a vector",
            "search by vector with a filter, count(..), or use RedisVectorIndex",
        )
    }

    /// Refused, since a vector set holds no words.
    async fn hybrid(&self, _: &Hybrid) -> Result<Fused> {
        unsupported("a vector set has no search by words", "use RedisVectorIndex")
    }

    /// One `VCARD`; with a filter also one `VSIM` that compares every vector and names each match.
    async fn count(&self, filter: &Filter) -> Result<u64> {
        match filter.to_expression(&self.schema)? {
            None => self.cardinality().await,
            Some(expression) => Ok(self.matching(Some(&expression)).await?.len() as u64),
        }
    }

    /// As [`count`](VectorIndex::count), then one pipelined `VREM` per document.
    async fn remove_where(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        self.remove_matching(filter, bulk).await
    }

    /// As [`count`](VectorIndex::count), then one pipelined `VGETATTR` and one `EVALSHA` per document, and again for
    /// those that others have changed in between.
    async fn update_where(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        self.update_matching(filter, changes, bulk).await
    }
}
