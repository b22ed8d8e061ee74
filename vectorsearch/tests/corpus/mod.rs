//! Documents on a server, and which of them a filter finds there.
#![expect(clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use inferkit_core::{Batch, Cmd, DriverExt, DynDriver, Pool, PoolConfig, Protocol, Reply};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::{Field, Filter, RedisVectorIndex, Rendering, Schema};

/// The fields of a document.
pub(crate) type Document = BTreeMap<&'static str, Vec<u8>>;

/// An index of the test's own with the fields `t`, `u` and `c` (TAG), `n` (NUMERIC) and `x` (TEXT).
pub(crate) struct Corpus {
    index: RedisVectorIndex,
    driver: DynDriver,
    documents: Vec<Document>,
}

impl Corpus {
    pub(crate) async fn new(flavor: Flavor) -> Self {
        let server = Server::shared(flavor).unwrap();
        let config = PoolConfig::single(server.url()).unwrap().with_protocol(Protocol::Resp2);
        let driver = Pool::connect_with(config).await.unwrap().into_driver();
        let unique = unique_prefix();
        let name = format!("idx-{unique}");
        let schema = Schema::builder(name, format!("{unique}:"), Field::tag("t").index_missing())
            .tag("u")
            .field(Field::tag("c").case_insensitive().separated_by(','))
            .field(Field::numeric("n").index_missing())
            .field(Field::text("x").index_missing())
            .build()
            .unwrap();
        let index = RedisVectorIndex::new(Arc::clone(&driver), schema);
        index.ensure_index().await.unwrap();
        Self { index, driver, documents: Vec::new() }
    }

    pub(crate) fn schema(&self) -> &Schema {
        self.index.schema()
    }

    /// Puts these documents in the place of all others.
    pub(crate) async fn fill(&mut self, documents: Vec<Document>) {
        let old = (0..self.documents.len()).map(|id| Cmd::new("DEL").key(self.key(id)));
        let new = documents.iter().enumerate().map(|(id, document)| {
            let cmd = Cmd::new("HSET").key(self.key(id)).args(["stored", "1"]);
            document.iter().fold(cmd, |cmd, (field, value)| cmd.arg(*field).arg(value))
        });
        let batch: Batch = old.chain(new).collect();
        // Neither old ones nor new ones: there is nothing to send.
        if !batch.is_empty() {
            for reply in self.driver.pipeline(batch).await.unwrap() {
                reply.unwrap();
            }
        }
        self.documents = documents;
    }

    /// The documents that the server finds for a query text with parameters.
    pub(crate) async fn query(
        &self,
        text: &str,
        params: &[(String, String)],
    ) -> Result<BTreeSet<usize>, inferkit_core::Error> {
        let mut cmd = Cmd::new("FT.SEARCH").key(self.schema().index()).arg(text);
        // A busy machine must not cut a result short: by default the server returns what half a second found.
        cmd = cmd.args(["NOCONTENT", "LIMIT", "0", "10000", "TIMEOUT", "0"]);
        if !params.is_empty() {
            cmd = cmd.arg("PARAMS").arg(2 * params.len());
            cmd = params.iter().fold(cmd, |cmd, (name, value)| cmd.arg(name).arg(value));
        }
        let reply: Reply = self.driver.query(cmd.args(["DIALECT", "2"]).readonly()).await?;
        let Reply::Array(rows) = reply else { panic!("{reply:?}") };
        let id = |row: &Reply| {
            let Reply::Bulk(key) = row else { panic!("{row:?}") };
            std::str::from_utf8(key).unwrap().rsplit_once(':').unwrap().1.parse().unwrap()
        };
        Ok(rows.iter().skip(1).map(id).collect())
    }

    /// The documents that the server finds.
    pub(crate) async fn search(&self, filter: &Filter, rendering: Rendering) -> BTreeSet<usize> {
        let rendered = filter.render(self.schema(), rendering).unwrap();
        let found = self.query(&rendered.text, &rendered.params).await;
        found.unwrap_or_else(|error| panic!("{}: {error}", rendered.text))
    }

    /// The documents that the filter finds in memory.
    pub(crate) fn matches(&self, filter: &Filter) -> BTreeSet<usize> {
        let matches = |document: &Document| {
            let field = |name: &str| document.get(name).map(Vec::as_slice);
            filter.matches(self.schema(), &field).unwrap()
        };
        let found = self.documents.iter().enumerate().filter(|(_, document)| matches(document));
        found.map(|(id, _)| id).collect()
    }

    pub(crate) async fn close(mut self) {
        self.fill(Vec::new()).await;
        assert!(self.index.drop_index().await.unwrap());
    }

    fn key(&self, id: usize) -> String {
        format!("{}{id}", self.schema().prefix())
    }
}

/// A document with one field.
pub(crate) fn document(field: &'static str, value: impl Into<Vec<u8>>) -> Document {
    Document::from([(field, value.into())])
}
