//! What only a real server can answer: on Redis and on Valkey, in RESP2 and in RESP3.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(feature = "redis")]

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::{Batch, Cmd, DriverExt, DynDriver, Pool, PoolConfig, Protocol};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::{
    Error, Filter, Hnsw, Knn, Metric, RedisVectorIndex, Schema, SchemaBuilder, SearchResult,
    Vector, VectorField, VectorIndexExt as _,
};

const PATIENCE: Duration = Duration::from_secs(60);

async fn connect(server: &Server, protocol: Protocol) -> DynDriver {
    let config = PoolConfig::single(server.url()).unwrap().with_protocol(protocol);
    Pool::connect_with(config.with_timeout(Duration::from_secs(20))).await.unwrap().into_driver()
}

async fn driver(flavor: Flavor, protocol: Protocol) -> DynDriver {
    connect(Server::shared(flavor).unwrap(), protocol).await
}

/// An index name and a key prefix of one test's own.
fn names() -> (String, String) {
    let unique = unique_prefix();
    (format!("idx-{unique}"), format!("{unique}:"))
}

fn flat() -> SchemaBuilder {
    let (index, prefix) = names();
    Schema::builder(index, prefix, VectorField::flat("v", 2)).tag("tenant")
}

fn vector(components: [f32; 2]) -> Vector {
    Vector::new(components).unwrap()
}

fn knn(components: [f32; 2], k: usize, filter: Filter) -> Knn {
    Knn::new("v", vector(components), k, filter).unwrap()
}

async fn write(index: &RedisVectorIndex, id: &str, tenant: &str, vector: &[u8]) {
    let key = format!("{}{id}", index.schema().prefix());
    let cmd = Cmd::new("HSET").key(key).args(["tenant", tenant, "id", id, "v"]).arg(vector);
    index.driver().query::<()>(cmd).await.unwrap();
}

fn ids(result: &SearchResult) -> Vec<String> {
    let id = |hit: &inferkit_vectorsearch::Hit| {
        let key = String::from_utf8(hit.key.to_vec()).unwrap();
        key.split_once(':').unwrap().1.to_owned()
    };
    result.hits.iter().map(id).collect()
}

async fn neighbors_come_sorted_with_their_fields(driver: DynDriver) {
    for field in [VectorField::flat("v", 2), VectorField::hnsw("v", 2, Hnsw::default())] {
        let (name, prefix) = names();
        let schema = Schema::builder(name, prefix, field).tag("tenant").text("body").build();
        let index = RedisVectorIndex::new(Arc::clone(&driver), schema.unwrap());
        assert!(index.ensure_index().await.unwrap());
        for (id, angle) in [("c", 0.9_f32), ("a", 0.0), ("d", 1.5), ("b", 0.4), ("e", 3.1)] {
            let bytes = vector([angle.cos(), angle.sin()]).to_le_bytes();
            write(&index, id, "t", &bytes).await;
        }
        let query = knn([3.0, 0.0], 3, Filter::all()).returning(["id", "v", "nothing"]).unwrap();
        let result = index.knn(&query).await.unwrap();
        assert_eq!(ids(&result), ["a", "b", "c"]);
        assert!(!result.partial && result.skipped == 0 && result.unusable == 0);
        let hit = result.nearest().unwrap();
        assert_eq!(hit.field("id").unwrap(), "a");
        assert_eq!(hit.fields.len(), 2, "{hit:?}");
        assert_eq!(Vector::from_le_bytes(hit.field("v").unwrap()).unwrap(), vector([1.0, 0.0]));
        for (hit, angle) in result.hits.iter().zip([0.0_f64, 0.4, 0.9]) {
            let similarity = hit.distance.to_similarity().as_f64();
            assert!((similarity - angle.cos()).abs() < 1e-6, "{similarity}");
        }
        let bare = index.knn(&knn([3.0, 0.0], 50, Filter::all())).await.unwrap();
        assert_eq!(ids(&bare), ["a", "b", "c", "d", "e"]);
        assert!(bare.hits.iter().all(|hit| hit.fields.is_empty()));

        let mut batch = Batch::new();
        let query = knn([1.0, 0.0], 1, Filter::tag("tenant", "t").unwrap());
        let slot = batch.push::<SearchResult>(query.to_cmd(index.schema()).unwrap());
        let result = driver.run(batch).await.unwrap().take(slot).unwrap();
        assert_eq!(ids(&result), ["a"]);
        assert!(index.drop_index().await.unwrap());
    }
}

async fn a_tag_is_found_to_the_letter_and_nothing_else(driver: DynDriver) {
    let index = RedisVectorIndex::new(driver, flat().build().unwrap());
    index.ensure_index().await.unwrap();
    let long = "x".repeat(inferkit_vectorsearch::MAX_TAG_BYTES);
    let almost = format!("{}y", &long[1..]);
    let tenants = [
        "a",
        "A",
        "ab cd",
        "ab!cd",
        "ab,cd",
        "ab;cd",
        "ab|cd",
        "ab{cd}",
        "{ab}",
        "ab}|@tenant:{a",
        "ab\"cd",
        "ab'cd",
        "ab\\cd",
        "ab\\",
        "ab*",
        "*",
        "$f0",
        "$vector",
        "@tenant:{a}",
        "gpt-4",
        "gpt",
        "4",
        "über",
        "uber",
        "中文",
        "🦀 crab",
        "(ab)",
        "[ab]",
        "%ab%",
        "~ab",
        "-ab",
        "ab=>[KNN 1 @v $vector]",
        "ab\tcd",
        "ab\ncd",
        "ab\u{7f}cd",
        "ab\u{2}cd",
        "a.b",
        "a/b:c",
        "a#b&c^d",
        "a<b>c?`d`",
        "w'ab?cd'",
        &long,
        &almost,
    ];
    for (id, tenant) in tenants.iter().enumerate() {
        write(&index, &id.to_string(), tenant, &vector([1.0, 0.5]).to_le_bytes()).await;
    }
    for (id, tenant) in tenants.iter().enumerate() {
        let query = knn([1.0, 0.0], 100, Filter::tag("tenant", *tenant).unwrap());
        let result = index.knn(&query).await.unwrap();
        assert_eq!(ids(&result), [id.to_string()], "{tenant:?}");
    }
    for stranger in ["b", "ab", "AB CD", "ab?cd", "ab cd ef", "x*", "cd"] {
        let query = knn([1.0, 0.0], 100, Filter::tag("tenant", stranger).unwrap());
        assert_eq!(ids(&index.knn(&query).await.unwrap()), [""; 0], "{stranger:?}");
    }
    let some = Filter::any_of("tenant", ["ab|cd", "中文", "nobody"]).unwrap();
    let result = index.knn(&knn([1.0, 0.0], 100, some.clone())).await.unwrap();
    assert_eq!(result.hits.len(), 2);
    let both = some.and(Filter::tag("tenant", "中文").unwrap());
    assert_eq!(index.knn(&knn([1.0, 0.0], 100, both)).await.unwrap().hits.len(), 1);
    let all = index.knn(&knn([1.0, 0.0], 100, Filter::all())).await.unwrap();
    assert_eq!(all.hits.len(), tenants.len());
    index.drop_index().await.unwrap();
}

async fn poisoned_vectors_are_never_hits(driver: DynDriver) {
    let floats =
        |floats: [f32; 2]| floats.iter().flat_map(|float| float.to_le_bytes()).collect::<Vec<u8>>();
    for field in [VectorField::flat("v", 2), VectorField::hnsw("v", 2, Hnsw::default())] {
        let (name, prefix) = names();
        let schema = Schema::builder(name, prefix, field).tag("tenant").build().unwrap();
        let index = RedisVectorIndex::new(Arc::clone(&driver), schema);
        index.ensure_index().await.unwrap();
        write(&index, "good", "t", &floats([1.0, 0.1])).await;
        write(&index, "zero", "t", &floats([0.0, 0.0])).await;
        write(&index, "nan", "t", &floats([f32::NAN, 1.0])).await;
        write(&index, "infinite", "t", &floats([f32::INFINITY, 1.0])).await;
        write(&index, "short", "t", &1.0_f32.to_le_bytes()).await;
        write(&index, "long", "t", &[0; 12]).await;
        write(&index, "text", "t", b"[1.0, 0.1]").await;
        let mut unusable = 0;
        for filter in [Filter::all(), Filter::tag("tenant", "t").unwrap()] {
            let result = index.knn(&knn([1.0, 0.0], 10, filter)).await.unwrap();
            assert_eq!(ids(&result), ["good"]);
            unusable += result.unusable;
        }
        // Some query plans pass over them, others return them with a distance of `nan`.
        assert!((1..=6).contains(&unusable), "{unusable}");
        let info = index.info().await.unwrap();
        assert_eq!(info.documents, 4);
        // The scan that follows the creation may come upon them a second time.
        assert!((3..=6).contains(&info.failures), "{info:?}");
        assert!(info.last_failure.is_some());
        index.drop_index().await.unwrap();
    }
}

async fn the_index_is_made_once_and_compared(driver: DynDriver) {
    let (name, prefix) = names();
    let build = |prefix: &str, vector: VectorField| Schema::builder(&name, prefix, vector);
    let index = |builder: SchemaBuilder| {
        RedisVectorIndex::new(Arc::clone(&driver), builder.build().unwrap())
    };
    let hnsw = || VectorField::hnsw("v", 2, Hnsw::default());
    let ours = index(build(&prefix, hnsw()).tag("t").numeric("n").text("x"));
    assert!(ours.ensure_index().await.unwrap());
    assert!(!ours.ensure_index().await.unwrap());
    // Neither the order of fields nor tuning makes another schema.
    let tuned = VectorField::hnsw("v", 2, Hnsw::default().with_m(16).with_ef_runtime(99));
    assert!(
        !index(build(&prefix, tuned).text("x").numeric("n").tag("t")).ensure_index().await.unwrap()
    );

    let wide = VectorField::hnsw("v", 3, Hnsw::default());
    let flat = VectorField::flat("v", 2);
    let other_prefix = format!("{prefix}other:");
    let full = |builder: SchemaBuilder| builder.tag("t").numeric("n").text("x");
    for (other, word) in [
        (full(build(&other_prefix, hnsw())), "prefix"),
        (full(build(&prefix, wide)), "dimension of field `v` is 2 instead of 3"),
        (full(build(&prefix, flat)), "algorithm of field `v` is HNSW instead of FLAT"),
        (full(build(&prefix, hnsw().with_metric(Metric::L2))), "metric of field `v` is COSINE"),
        (build(&prefix, hnsw()).tag("t").tag("n").text("x"), "type of field `n`"),
        (full(build(&prefix, hnsw())).tag("u"), "field `u` is missing"),
        (build(&prefix, hnsw()).tag("t").numeric("n"), "another field `x`"),
    ] {
        let error = index(other).ensure_index().await.unwrap_err();
        assert!(matches!(error, Error::SchemaMismatch { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(word) && text.contains("drop_index()"), "{word}: {text}");
    }

    // An index that other hands made with a TAG that ignores the case, which would mix tenants.
    let (other_name, other_prefix) = names();
    let cmd = Cmd::new("FT.CREATE").key(&other_name).args([
        "PREFIX",
        "1",
        &other_prefix,
        "SCHEMA",
        "tenant",
        "TAG",
    ]);
    let cmd = cmd.args([
        "v",
        "VECTOR",
        "FLAT",
        "6",
        "TYPE",
        "FLOAT64",
        "DIM",
        "2",
        "DISTANCE_METRIC",
        "COSINE",
    ]);
    driver.query::<()>(cmd).await.unwrap();
    let schema = Schema::builder(&other_name, &other_prefix, VectorField::flat("v", 2));
    let other = index(schema.tag("tenant"));
    let text = other.ensure_index().await.unwrap_err().to_string();
    for word in ["separator", "case", "FLOAT64"] {
        assert!(text.contains(word), "{word}: {text}");
    }

    write(&ours, "kept", "t", &vector([1.0, 0.0]).to_le_bytes()).await;
    for index in [&ours, &other] {
        assert!(index.drop_index().await.unwrap());
        assert!(!index.drop_index().await.unwrap());
    }
    let kept: bool = driver.query(Cmd::new("EXISTS").key(format!("{prefix}kept"))).await.unwrap();
    assert!(kept, "dropping an index keeps its documents");
}

async fn an_alias_is_not_the_index(driver: DynDriver) {
    let real = RedisVectorIndex::new(Arc::clone(&driver), flat().build().unwrap());
    real.ensure_index().await.unwrap();
    let (alias, _) = names();
    let cmd = Cmd::new("FT.ALIASADD").arg(&alias).arg(real.schema().index());
    driver.query::<()>(cmd).await.unwrap();
    let schema = Schema::builder(&alias, real.schema().prefix(), VectorField::flat("v", 2));
    let aliased = RedisVectorIndex::new(driver, schema.tag("tenant").build().unwrap());
    for error in
        [aliased.ensure_index().await.unwrap_err(), aliased.drop_index().await.unwrap_err()]
    {
        assert!(matches!(error, Error::SchemaMismatch { .. }), "{error:?}");
        let difference = error.to_string();
        assert!(difference.contains("alias") && difference.contains(real.schema().index()));
    }
    assert!(real.drop_index().await.unwrap(), "the index behind the alias is still there");
}

async fn eight_racers_make_one_index(driver: DynDriver) {
    let schema = flat().build().unwrap();
    let racers: Vec<_> = (0..8)
        .map(|_| {
            let index = RedisVectorIndex::new(Arc::clone(&driver), schema.clone());
            tokio::spawn(async move { index.ensure_index().await })
        })
        .collect();
    let mut created = 0;
    for racer in racers {
        created += u32::from(racer.await.unwrap().unwrap());
    }
    assert_eq!(created, 1);
    RedisVectorIndex::new(driver, schema).drop_index().await.unwrap();
}

async fn a_missing_index_says_what_to_call(driver: DynDriver) {
    let index = RedisVectorIndex::new(Arc::clone(&driver), flat().build().unwrap());
    let query = knn([1.0, 0.0], 1, Filter::all());
    let mut batch = Batch::new();
    let slot = batch.push::<SearchResult>(query.to_cmd(index.schema()).unwrap());
    let error = driver.run(batch).await.unwrap().take(slot).unwrap_err();
    for error in [
        index.knn(&query).await.unwrap_err(),
        index.info().await.unwrap_err(),
        index.wait_until_indexed(PATIENCE).await.unwrap_err(),
        Error::of_index(error, index.schema().index()),
    ] {
        assert!(matches!(error, Error::IndexMissing { .. }), "{error:?}");
        assert!(error.to_string().contains("ensure_index()"), "{error}");
    }
    assert!(!index.drop_index().await.unwrap());
    assert!(index.ensure_index().await.unwrap());
    assert_eq!(index.knn(&query).await.unwrap(), index.knn(&query).await.unwrap());
    index.drop_index().await.unwrap();
}

async fn documents_from_before_are_waited_for(driver: DynDriver) {
    const DOCUMENTS: u64 = 2000;
    let index = RedisVectorIndex::new(Arc::clone(&driver), flat().build().unwrap());
    let prefix = index.schema().prefix();
    let one = vector([1.0, 0.5]);
    let batch: Batch = (0..DOCUMENTS)
        .map(|id| {
            Cmd::new("HSET").key(format!("{prefix}{id}")).args(["tenant", "t", "v"]).arg(&one)
        })
        .collect();
    driver.run(batch).await.unwrap();
    write(&index, "bad", "t", b"short").await;
    index.ensure_index().await.unwrap();
    let error = index.wait_until_indexed(Duration::ZERO).await;
    if let Err(error) = error {
        assert!(
            matches!(error, Error::IndexingTimeout { .. }) && error.is_transient(),
            "{error:?}"
        );
    }
    let info = index.wait_until_indexed(PATIENCE).await.unwrap();
    assert!(info.is_complete());
    assert_eq!(info.documents, DOCUMENTS);
    // A scan may come upon a key twice while other tests write.
    assert!((1..=2).contains(&info.failures), "{info:?}");
    index.drop_index().await.unwrap();
}

async fn expired_documents_are_no_hits(flavor: Flavor, protocol: Protocol) {
    // A server of its own, since it stops expiring keys by itself.
    let server = Server::builder(flavor).config("enable-debug-command", "yes").start().unwrap();
    let driver = connect(&server, protocol).await;
    driver.query::<()>(Cmd::new("DEBUG").args(["SET-ACTIVE-EXPIRE", "0"])).await.unwrap();
    let index = RedisVectorIndex::new(Arc::clone(&driver), flat().build().unwrap());
    index.ensure_index().await.unwrap();
    for (id, y) in [("gone", 0.0), ("left", 0.5), ("lost", 0.2)] {
        write(&index, id, "t", &vector([1.0, y]).to_le_bytes()).await;
    }
    for id in ["gone", "lost"] {
        let key = format!("{}{id}", index.schema().prefix());
        driver.query::<()>(Cmd::new("PEXPIRE").key(key).arg("1")).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(20)).await;
    let bare = knn([1.0, 0.0], 3, Filter::all());
    for query in [bare.clone(), bare.returning(["id"]).unwrap()] {
        let result = index.knn(&query).await.unwrap();
        assert_eq!(ids(&result), ["left"]);
        assert_eq!((result.skipped, result.unusable), (2, 0));
    }
    index.drop_index().await.unwrap();
}

macro_rules! on_servers {
    ($($case:ident),* $(,)?) => {
        on_servers! { @server redis_resp2, Flavor::Redis, Protocol::Resp2, $($case),* }
        on_servers! { @server redis_resp3, Flavor::Redis, Protocol::Resp3, $($case),* }
        on_servers! { @server valkey_resp2, Flavor::Valkey, Protocol::Resp2, $($case),* }
        on_servers! { @server valkey_resp3, Flavor::Valkey, Protocol::Resp3, $($case),* }
    };
    (@server $server:ident, $flavor:expr, $protocol:expr, $($case:ident),*) => {
        mod $server {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(driver($flavor, $protocol).await).await;
                }
            )*

            #[tokio::test]
            async fn expired_documents_are_no_hits() {
                super::expired_documents_are_no_hits($flavor, $protocol).await;
            }
        }
    };
}

on_servers! {
    a_missing_index_says_what_to_call,
    a_tag_is_found_to_the_letter_and_nothing_else,
    an_alias_is_not_the_index,
    documents_from_before_are_waited_for,
    eight_racers_make_one_index,
    neighbors_come_sorted_with_their_fields,
    poisoned_vectors_are_never_hits,
    the_index_is_made_once_and_compared,
}

#[tokio::test]
async fn a_server_without_search_says_what_to_install() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let driver = driver(Flavor::Plain, protocol).await;
        let index = RedisVectorIndex::new(driver, flat().build().unwrap());
        for error in [
            index.ensure_index().await.unwrap_err(),
            index.knn(&knn([1.0, 0.0], 1, Filter::all())).await.unwrap_err(),
            index.drop_index().await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::SearchUnavailable { .. }), "{error:?}");
            assert!(error.to_string().contains("RediSearch") && !error.is_transient(), "{error}");
        }
    }
}
