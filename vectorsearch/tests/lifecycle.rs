//! Writing, verifying, reindexing and dropping on a real server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(feature = "redis")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{
    Batch, Cmd, Driver, DriverExt as _, DynDriver, Error as CoreError, Pool, PoolConfig, Protocol,
    Reply,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::{
    Bulk, Document, Error, Filter, Find, Hnsw, Knn, RedisVectorIndex, Schema, SchemaBuilder,
    Vector, VectorField, VectorIndex as _, VectorIndexExt as _,
};

const PATIENCE: Duration = Duration::from_secs(120);

async fn driver() -> DynDriver {
    connect(Server::shared(Flavor::Redis).unwrap(), Protocol::Resp2).await
}

async fn connect(server: &Server, protocol: Protocol) -> DynDriver {
    let config = PoolConfig::single(server.url()).unwrap().with_protocol(protocol);
    Pool::connect_with(config.with_timeout(Duration::from_secs(20))).await.unwrap().into_driver()
}

fn flat(index: &str, prefix: &str) -> SchemaBuilder {
    Schema::builder(index, prefix, VectorField::flat("v", 2)).tag("color").numeric("price")
}

async fn fresh() -> RedisVectorIndex {
    let unique = unique_prefix();
    let schema = flat(&format!("idx-{unique}"), &format!("{unique}:")).build().unwrap();
    let index = RedisVectorIndex::new(driver().await, schema);
    index.ensure_index().await.unwrap();
    index
}

fn document(id: usize) -> Document {
    let color = if id.is_multiple_of(2) { "red" } else { "blue" };
    let vector = Vector::new([1.0, f32::from(u16::try_from(id).unwrap())]).unwrap();
    Document::new(id.to_string()).with("color", color).with("price", id).with("v", vector)
}

fn red() -> Filter {
    Filter::tag("color", "red").unwrap()
}

fn knn(k: usize) -> Knn {
    Knn::new("v", Vector::new([1.0, 0.0]).unwrap(), k, Filter::all()).unwrap()
}

async fn raw(index: &RedisVectorIndex, id: &str, field: &str, value: &[u8]) {
    let key = format!("{}{id}", index.schema().prefix());
    let cmd = Cmd::new("HSET").key(key).arg(field).arg(value);
    index.driver().query::<u64>(cmd).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_update_keeps_the_old_entry_where_the_bare_server_loses_it() {
    let index = fresh().await;
    index.put_many(&[document(1), document(2)]).await.unwrap();
    let bad = document(1).with("v", Vector::new([1.0]).unwrap());
    assert!(matches!(index.put(&bad).await, Err(Error::DimensionMismatch { .. })));
    assert_eq!(index.knn(&knn(5)).await.unwrap().hits.len(), 2);
    // What the check is for: the server drops the document without a word.
    raw(&index, "1", "v", &[0; 4]).await;
    assert_eq!(index.knn(&knn(5)).await.unwrap().hits.len(), 1);
    let verified = index.verify().await.unwrap();
    assert_eq!((verified.stored, verified.indexed, verified.failures), (2, 1, 1));
    assert!(!verified.is_complete());
    assert!(verified.last_failure.unwrap().contains("blob size"));
    index.put(&document(1)).await.unwrap();
    assert!(index.verify().await.unwrap().is_complete());
}

#[tokio::test(flavor = "multi_thread")]
async fn more_documents_than_a_cursor_hands_out_are_removed_and_updated() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let unique = unique_prefix();
        let schema = flat(&format!("idx-{unique}"), &format!("{unique}:")).build().unwrap();
        let server = Server::shared(Flavor::Redis).unwrap();
        let index = RedisVectorIndex::new(connect(server, protocol).await, schema);
        index.ensure_index().await.unwrap();
        index.load((0..5_000).map(document), |_| {}).await.unwrap();
        let done = index.update_where(&red(), &[("price", 7.into())], Bulk::apply()).await.unwrap();
        assert_eq!((done.matched, done.changed), (2_500, 2_500));
        let page = index.find(&Find::new(red()).returning(["price"]).unwrap()).await.unwrap();
        assert!(page.records.iter().all(|record| record.field("price").unwrap() == "7"));
        let done = index.remove_where(&red(), Bulk::apply()).await.unwrap();
        assert_eq!((done.matched, done.changed), (2_500, 2_500));
        let verified = index.verify().await.unwrap();
        assert_eq!((verified.stored, verified.indexed), (2_500, 2_500));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_a_put_and_keeps_the_old_document() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = connect(&server, Protocol::Resp2).await;
    let index = RedisVectorIndex::new(driver, flat("docs", "docs:").build().unwrap());
    index.ensure_index().await.unwrap();
    index.put(&document(1)).await.unwrap();
    let limit = Cmd::new("CONFIG").args(["SET", "maxmemory", "1000000"]);
    index.driver().query::<()>(limit).await.unwrap();
    let error = index.put(&document(1).with("price", 2)).await.unwrap_err();
    assert!(matches!(error, Error::Backend(_)) && error.to_string().contains("memory"), "{error}");
    let error = index.put_many(&[document(1), document(2)]).await.unwrap_err();
    assert!(matches!(error, Error::Incomplete { done: 0, total: 2, .. }), "{error}");
    let record = index.get("1").await.unwrap().unwrap();
    assert_eq!(record.field("price").unwrap(), "1");
    assert_eq!(index.knn(&knn(5)).await.unwrap().hits.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_is_replaced_while_it_is_searched_and_written() {
    let unique = unique_prefix();
    let (alias, prefix) = (format!("alias-{unique}"), format!("{unique}:"));
    let first = flat(&format!("v1-{unique}"), &prefix).build().unwrap();
    let index = RedisVectorIndex::behind_alias(driver().await, first.clone(), &alias).unwrap();
    assert!(index.ensure_index().await.unwrap() && !index.ensure_index().await.unwrap());
    index.load((0..3_000).map(document), |_| {}).await.unwrap();
    let same = index.reindex(first.clone(), PATIENCE, |_| {}).await.unwrap_err();
    assert!(matches!(same, Error::InvalidName { .. }), "{same}");

    let stop = Arc::new(AtomicBool::new(false));
    let searching = tokio::spawn({
        let (index, stop) = (index.clone(), Arc::clone(&stop));
        async move {
            let mut searches = 0;
            while !stop.load(Ordering::SeqCst) {
                let result = index.knn(&knn(10)).await.unwrap();
                assert_eq!((result.hits.len(), result.partial), (10, false));
                searches += 1;
                // The server takes in what was there before only between commands.
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            searches
        }
    });
    let writing = tokio::spawn({
        let (index, stop) = (index.clone(), Arc::clone(&stop));
        async move {
            let mut written = 3_000;
            while !stop.load(Ordering::SeqCst) {
                index.put(&document(written)).await.unwrap();
                written += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            written
        }
    });
    let second = VectorField::hnsw("v", 2, Hnsw::default());
    let second = Schema::builder(format!("v2-{unique}"), &prefix, second).tag("color");
    let second = second.numeric("price").build().unwrap();
    let mut looks = 0;
    let replaced = index.reindex(second.clone(), PATIENCE, |_| looks += 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    stop.store(true, Ordering::SeqCst);
    assert!(searching.await.unwrap() > 0 && looks > 0);
    let written = writing.await.unwrap() as u64;

    assert_eq!(replaced.info().await.unwrap().name, second.index());
    assert_eq!((replaced.alias(), replaced.schema()), (Some(&*alias), &second));
    assert_eq!(replaced.count(&Filter::all()).await.unwrap(), written);
    assert!(replaced.verify().await.unwrap().is_complete());
    let old = RedisVectorIndex::new(Arc::clone(index.driver()), first);
    assert!(matches!(old.info().await, Err(Error::IndexMissing { .. })));
    // Who still holds the old handle goes on searching, and is told if the fields differ.
    assert_eq!(index.knn(&knn(3)).await.unwrap().hits.len(), 3);
    assert!(matches!(index.ensure_index().await, Err(Error::SchemaMismatch { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_index_that_holds_less_is_dropped_again() {
    let unique = unique_prefix();
    let alias = format!("alias-{unique}");
    let first = flat(&format!("v1-{unique}"), &format!("{unique}:")).build().unwrap();
    let index = RedisVectorIndex::behind_alias(driver().await, first, &alias).unwrap();
    index.ensure_index().await.unwrap();
    index.load((0..50).map(document), |_| {}).await.unwrap();
    // Vectors of three dimensions are not what is stored.
    let wide =
        Schema::builder(format!("v2-{unique}"), format!("{unique}:"), VectorField::flat("v", 3));
    let wide = wide.build().unwrap();
    let error = index.reindex(wide.clone(), PATIENCE, |_| {}).await.unwrap_err();
    let counts =
        matches!(error, Error::ReindexIncomplete { expected: 50, got: 0, failures: 50, .. });
    assert!(counts, "{error}");
    let wide = RedisVectorIndex::new(Arc::clone(index.driver()), wide);
    assert!(matches!(wide.info().await, Err(Error::IndexMissing { .. })));
    assert_eq!(index.knn(&knn(50)).await.unwrap().hits.len(), 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_alias_there_is_nothing_to_move() {
    let index = fresh().await;
    let next = index.schema().with_index("other").unwrap();
    let error = index.reindex(next, PATIENCE, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("behind_alias"), "{error}");
    let schema = index.schema().clone();
    for alias in ["", "a b", schema.index()] {
        let behind =
            RedisVectorIndex::behind_alias(Arc::clone(index.driver()), schema.clone(), alias);
        assert!(matches!(behind, Err(Error::InvalidName { .. })), "{alias:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_does_not_bring_a_removed_document_back() {
    let index = fresh().await;
    index.load((0..200).map(document), |_| {}).await.unwrap();
    let ids: Vec<String> = (0..200).map(|id| id.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    let (red, change) = (red(), [("price", 1.into())]);
    let (removed, updated) =
        tokio::join!(index.remove_many(&ids), index.update_where(&red, &change, Bulk::apply()));
    assert_eq!(removed.unwrap(), 200);
    let updated = updated.unwrap();
    assert!(updated.changed <= updated.matched, "{updated:?}");
    assert_eq!(index.verify().await.unwrap().stored, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn backfill_shows_its_progress() {
    let unique = unique_prefix();
    let schema = flat(&format!("idx-{unique}"), &format!("{unique}:")).build().unwrap();
    let index = RedisVectorIndex::new(driver().await, schema);
    index.load((0..2_000).map(document), |_| {}).await.unwrap();
    assert!(matches!(index.knn(&knn(1)).await, Err(Error::IndexMissing { .. })));
    assert!(matches!(index.find(&Find::new(red())).await, Err(Error::IndexMissing { .. })));
    assert!(matches!(index.count(&red()).await, Err(Error::IndexMissing { .. })));
    let removal = index.remove_where(&red(), Bulk::apply()).await;
    assert!(matches!(removal, Err(Error::IndexMissing { .. })));
    index.ensure_index().await.unwrap();
    let mut seen = Vec::new();
    let progress = |info: &inferkit_vectorsearch::IndexInfo| seen.push(info.percent_indexed);
    let info = index.wait_until_indexed_with(PATIENCE, progress).await.unwrap();
    assert_eq!(info.documents, 2_000);
    assert!(seen.is_sorted() && 100.0 <= *seen.last().unwrap(), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_search_says_so() {
    let server = Server::shared(Flavor::Plain).unwrap();
    let driver = connect(server, Protocol::Resp2).await;
    let index = RedisVectorIndex::new(driver, flat("docs", "docs:").build().unwrap());
    assert!(matches!(index.ensure_index().await, Err(Error::SearchUnavailable { .. })));
    assert!(matches!(index.find(&Find::new(red())).await, Err(Error::SearchUnavailable { .. })));
    assert!(matches!(index.count(&red()).await, Err(Error::SearchUnavailable { .. })));
    let removal = index.remove_where(&red(), Bulk::apply()).await;
    assert!(matches!(removal, Err(Error::SearchUnavailable { .. })));
    let many = index.search_many(&[(&knn(1)).into()]).await.unwrap().remove(0);
    assert!(matches!(many, Err(Error::SearchUnavailable { .. })));
}

/// A server with search, but without the commands of aliases.
#[derive(Debug)]
struct WithoutAliases(DynDriver);

#[async_trait]
impl Driver for WithoutAliases {
    async fn call(&self, cmd: Cmd) -> inferkit_core::Result<Reply> {
        if cmd.name().starts_with("FT.ALIAS") {
            return Err(CoreError::server(format!("ERR unknown command '{}'", cmd.name())));
        }
        self.0.call(cmd).await
    }

    async fn pipeline(
        &self,
        batch: Batch,
    ) -> inferkit_core::Result<Vec<inferkit_core::Result<Reply>>> {
        self.0.pipeline(batch).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_aliases_is_named_and_its_index_works_by_name() {
    let unique = unique_prefix();
    let alias = format!("alias-{unique}");
    let schema = flat(&format!("v1-{unique}"), &format!("{unique}:")).build().unwrap();
    let next = schema.with_index(&format!("v2-{unique}")).unwrap();
    let bare: DynDriver = Arc::new(WithoutAliases(driver().await));
    let behind = RedisVectorIndex::behind_alias(Arc::clone(&bare), schema.clone(), &alias).unwrap();
    for _ in 0..2 {
        let error = behind.ensure_index().await.unwrap_err();
        assert!(matches!(error, Error::EngineLacks { what: "aliases", .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.starts_with("RediSearch ") && text.contains("RedisVectorIndex::new"),
            "{text}"
        );
    }
    let named = RedisVectorIndex::new(bare, schema.clone());
    assert!(!named.ensure_index().await.unwrap());
    named.put(&document(1)).await.unwrap();
    assert_eq!(named.knn(&knn(1)).await.unwrap().hits.len(), 1);

    // An alias that is there, but cannot be moved, stays where it is.
    let whole = RedisVectorIndex::behind_alias(driver().await, schema.clone(), &alias).unwrap();
    let add = Cmd::new("FT.ALIASADD").key(alias).arg(schema.index());
    whole.driver().query::<()>(add).await.unwrap();
    let error = behind.reindex(next, PATIENCE, |_| {}).await.unwrap_err();
    assert!(matches!(error, Error::EngineLacks { what: "aliases", .. }), "{error:?}");
    assert_eq!(whole.info().await.unwrap().name, schema.index());
}
