//! Vector sets on a real server: the suite where it applies, and typed errors where it does not.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]
#![cfg(all(feature = "redis", feature = "conformance"))]

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, FredDriver, Pool, PoolConfig, Protocol};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_vectorsearch::conformance::schema;
use inferkit_vectorsearch::{
    Bulk, DataType, Distance, Document, Error, Field, Filter, Find, Hnsw, Hybrid, HybridPolicy,
    Knn, MemoryVectorIndex, Metric, Order, Quantization, Query, RedisVectorSet, Schema, Text,
    Vector, VectorField, VectorIndex as _, VectorIndexExt as _, VectorSetOptions,
    vector_index_conformance,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

async fn pool(flavor: Flavor, protocol: Protocol) -> DynDriver {
    let config = PoolConfig::single(Server::shared(flavor).unwrap().url()).unwrap();
    let config = config.with_protocol(protocol).with_timeout(Duration::from_secs(20));
    Pool::connect_with(config).await.unwrap().into_driver()
}

fn namespace() -> Namespace {
    Namespace::new(&unique_prefix()).unwrap()
}

fn graph() -> VectorField {
    VectorField::hnsw("v", 3, Hnsw::default())
}

fn flat() -> VectorField {
    VectorField::flat("v", 3)
}

fn floats() -> VectorSetOptions {
    VectorSetOptions::new().with_quantization(Quantization::None)
}

fn on(driver: DynDriver, field: VectorField, options: VectorSetOptions) -> RedisVectorSet {
    let schema = schema("docs", "docs:", field).unwrap();
    RedisVectorSet::new(driver, &namespace(), schema, options).unwrap()
}

macro_rules! applying {
    ($make:path) => {
        vector_index_conformance! { $make:
            the_nearest_come_first, filters_hold, a_removed_document_is_gone,
            documents_read_back_as_they_were, any_id_is_its_own,
            documents_that_do_not_fit_change_nothing, queries_that_do_not_fit_are_refused,
            a_range_ends_at_its_radius, many_searches_answer_in_order,
            removals_by_filter_are_guarded, updates_by_filter_keep_the_rest,
            a_load_reports_progress, projections_read_as_structs, tags_are_found_one_by_one,
            tenants_are_kept_apart,
        }
    };
}

mod exact_resp2 {
    use super::*;
    async fn make() -> RedisVectorSet {
        on(pool(Flavor::Redis, Protocol::Resp2).await, flat(), floats())
    }
    applying!(make);
}

mod graph_resp3 {
    use super::*;
    async fn make() -> RedisVectorSet {
        let options = floats().with_threaded_writes();
        on(pool(Flavor::Redis, Protocol::Resp3).await, graph(), options)
    }
    applying!(make);
}

mod graph_fred {
    use super::*;
    async fn make() -> RedisVectorSet {
        use ::fred::interfaces::ClientLike as _;
        let config =
            ::fred::types::config::Config::from_url(Server::shared(Flavor::Redis).unwrap().url());
        let client = ::fred::types::Builder::from_config(config.unwrap()).build().unwrap();
        client.init().await.unwrap();
        on(FredDriver::new(client).into_driver(), graph(), floats())
    }
    applying!(make);
}

/// 8 bits per component: all but the distances and vectors to the last digit.
mod quantized_resp2 {
    use super::*;
    async fn make() -> RedisVectorSet {
        on(pool(Flavor::Redis, Protocol::Resp2).await, graph(), VectorSetOptions::new())
    }
    vector_index_conformance! { make:
        filters_hold, a_removed_document_is_gone, documents_read_back_as_they_were,
        any_id_is_its_own, documents_that_do_not_fit_change_nothing,
        queries_that_do_not_fit_are_refused, many_searches_answer_in_order,
        removals_by_filter_are_guarded, updates_by_filter_keep_the_rest, a_load_reports_progress,
        projections_read_as_structs, tags_are_found_one_by_one, tenants_are_kept_apart,
    }
}

fn vector(components: [f32; 3]) -> Vector {
    Vector::new(components).unwrap()
}

fn document(id: &str) -> Document {
    Document::new(id).with("v", vector([1.0, 0.5, 0.0]))
}

fn knn(k: usize, filter: Filter) -> Knn {
    Knn::new("v", vector([1.0, 0.0, 0.0]), k, filter).unwrap()
}

fn red() -> Filter {
    Filter::tag("color", "red").unwrap()
}

async fn both() -> [DynDriver; 2] {
    [pool(Flavor::Redis, Protocol::Resp2).await, pool(Flavor::Redis, Protocol::Resp3).await]
}

#[tokio::test]
async fn a_put_replaces_everything() {
    for driver in both().await {
        for field in [flat(), graph()] {
            let set = on(Arc::clone(&driver), field, floats());
            let old = document("1").with("color", "red").with("note", "old").with("price", 1);
            set.put(&old).await.unwrap();
            let new = Document::new("1").with("price", "2.50").with("v", vector([0.0, 2.0, 0.0]));
            set.put(&new).await.unwrap();
            let record = set.get("1").await.unwrap().unwrap();
            assert_eq!((record.field("note"), record.field("color")), (None, None));
            assert_eq!(record.field("price").unwrap(), "2.50");
            let stored = Vector::from_le_bytes(record.field("v").unwrap()).unwrap();
            assert_eq!(stored, vector([0.0, 2.0, 0.0]));
            assert_eq!(set.knn(&knn(3, red())).await.unwrap().hits, []);
            assert_eq!(set.count(&Filter::all()).await.unwrap(), 1);
            let hit = set.knn(&knn(3, Filter::all())).await.unwrap().hits.remove(0);
            assert!((hit.distance.as_f64() - 1.0).abs() < 1e-6, "{hit:?}");
        }
    }
}

#[tokio::test]
async fn what_a_vector_set_cannot_do_is_a_typed_error() {
    let set = on(pool(Flavor::Redis, Protocol::Resp3).await, graph(), VectorSetOptions::new());
    set.put(&document("1").with("color", "red")).await.unwrap();
    let words = Filter::text("title", Text::all("red")).unwrap();
    let prefix = Filter::tag_prefix("color", "re").unwrap();
    let all = || knn(3, Filter::all());
    let brief = document("2").with_ttl(Duration::from_secs(60));
    let moved = [("v", vector([0.0, 1.0, 0.0]).into())];
    let sorted = Find::new(red()).sorted_by("price", Order::Ascending).unwrap();
    let batches = all().with_hybrid_policy(HybridPolicy::AdhocBruteForce).unwrap();
    for error in [
        set.put_many(&[document("3"), brief]).await.unwrap_err(),
        set.find(&Find::new(red())).await.unwrap_err(),
        set.find(&sorted).await.unwrap_err(),
        set.hybrid(&Hybrid::new(words.clone(), all()).unwrap()).await.unwrap_err(),
        set.knn(&knn(3, words)).await.unwrap_err(),
        set.knn(&knn(3, prefix.clone())).await.unwrap_err(),
        set.count(&prefix).await.unwrap_err(),
        set.knn(&all().with_timeout(Duration::from_secs(1))).await.unwrap_err(),
        set.knn(&batches).await.unwrap_err(),
        set.knn(&all().returning(["title", "v"]).unwrap()).await.unwrap_err(),
        set.update_where(&red(), &moved, Bulk::apply()).await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        assert!(error.to_string().contains(": ") && !error.is_transient(), "{error}");
    }
    let bare = Document::new("4").with("color", "red");
    assert!(matches!(set.put(&bare).await, Err(Error::InvalidField { .. })));
    assert_eq!(set.count(&Filter::all()).await.unwrap(), 1, "nothing was written");
}

#[tokio::test]
async fn a_schema_that_does_not_fit_is_refused_when_it_is_named() {
    let driver = pool(Flavor::Redis, Protocol::Resp2).await;
    let make = |schema: Schema, options| {
        RedisVectorSet::new(Arc::clone(&driver), &namespace(), schema, options).unwrap_err()
    };
    let build = |field: VectorField| Schema::builder("docs", "docs:", field);
    let plain = VectorSetOptions::new();
    for schema in [
        build(flat().with_metric(Metric::L2)),
        build(graph().with_metric(Metric::InnerProduct)),
        build(flat()).vector(VectorField::flat("w", 3)),
        build(flat().with_data_type(DataType::F64)),
        build(flat()).field(Field::tag("t").case_insensitive()),
    ] {
        let error = make(schema.build().unwrap(), plain);
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    }
    let sparse = VectorField::hnsw("v", 3, Hnsw::default().with_m(2));
    for (field, options) in [
        (sparse, plain),
        (flat(), plain.with_reduce(0)),
        (flat(), plain.with_reduce(4)),
        (graph(), plain.with_filter_ef(0)),
    ] {
        let error = make(build(field).build().unwrap(), options);
        assert!(matches!(error, Error::InvalidParameter { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn a_server_without_vector_sets_says_what_to_use() {
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let set = on(pool(Flavor::Valkey, protocol).await, graph(), floats());
        let change = [("price", 1.into())];
        for error in [
            set.check().await.unwrap_err(),
            set.put(&document("1")).await.unwrap_err(),
            set.put_many(&[document("1"), document("2")]).await.unwrap_err(),
            set.get("1").await.unwrap_err(),
            set.remove("1").await.unwrap_err(),
            set.knn(&knn(1, red())).await.unwrap_err(),
            set.count(&red()).await.unwrap_err(),
            set.update_where(&red(), &change, Bulk::apply()).await.unwrap_err(),
        ] {
            assert!(matches!(error, Error::VectorSetsUnavailable { .. }), "{error:?}");
            assert!(error.to_string().contains("Redis 8") && !error.is_transient(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_set_of_another_shape_is_told_and_left_alone() {
    let driver = pool(Flavor::Redis, Protocol::Resp3).await;
    let namespace = namespace();
    let named = |field, options| {
        let schema = schema("docs", "docs:", field).unwrap();
        RedisVectorSet::new(Arc::clone(&driver), &namespace, schema, options).unwrap()
    };
    let set = named(graph(), VectorSetOptions::new());
    set.check().await.unwrap();
    assert_eq!(set.info().await.unwrap(), None);
    set.put(&document("1")).await.unwrap();
    set.check().await.unwrap();
    let info = set.info().await.unwrap().unwrap();
    assert_eq!((info.documents, info.dimensions, info.m, info.reduced_from), (1, 3, 16, None));
    assert_eq!(info.quantization, Some(Quantization::Q8));
    let dense = VectorField::hnsw("v", 3, Hnsw::default().with_m(32));
    for (other, word) in [
        (named(graph(), floats()), "quantization int8 instead of f32"),
        (named(graph(), VectorSetOptions::new().with_reduce(2)), "dimensions 3 instead of 2"),
        (named(dense, VectorSetOptions::new()), "M 16 instead of 32"),
    ] {
        let told = other.check().await.unwrap_err();
        assert!(told.to_string().contains(word), "{told}");
        let refused = other.put(&document("2")).await.unwrap_err();
        for error in [told, refused] {
            assert!(matches!(error, Error::VectorSetMismatch { .. }), "{error:?}");
        }
    }
    let schema = Schema::builder("docs", "docs:", VectorField::flat("v", 2)).build().unwrap();
    let narrow =
        RedisVectorSet::new(Arc::clone(&driver), &namespace, schema, VectorSetOptions::new());
    let narrow = narrow.unwrap();
    let short = Vector::new([1.0, 0.0]).unwrap();
    let error = narrow.knn(&Knn::new("v", short, 1, Filter::all()).unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::VectorSetMismatch { .. }), "{error:?}");
    assert_eq!(set.count(&Filter::all()).await.unwrap(), 1);
}

#[tokio::test]
async fn projections_are_searched_and_not_read_back() {
    // Exact: a walk over a graph of vectors that are all equally far apart may miss one.
    let schema = Schema::builder("docs", "docs:", VectorField::flat("v", 64));
    let driver = pool(Flavor::Redis, Protocol::Resp2).await;
    let options = VectorSetOptions::new().with_reduce(32);
    let set = RedisVectorSet::new(driver, &namespace(), schema.build().unwrap(), options).unwrap();
    let axis = |axis: usize| {
        let components: Vec<f32> = (0..64).map(|n| if n == axis { 1.0 } else { 0.0 }).collect();
        Vector::new(components).unwrap()
    };
    let documents =
        (0..64).map(|n| Document::new(n.to_string()).with("v", axis(n)).with("n", n as u64));
    set.load(documents, |_| {}).await.unwrap();
    set.check().await.unwrap();
    let result = set.knn(&Knn::new("v", axis(7), 1, Filter::all()).unwrap()).await.unwrap();
    assert_eq!(set.id(&result.hits[0].key).as_deref(), Some("7"));
    assert!(result.hits[0].distance < Distance::new(0.02).unwrap(), "{result:?}");
    let record = set.get("7").await.unwrap().unwrap();
    assert_eq!((record.field("n").unwrap().as_ref(), record.field("v")), (&b"7"[..], None));
}

#[tokio::test]
async fn a_filtered_walk_that_gives_up_says_so() {
    for driver in both().await {
        let make = |options| on(Arc::clone(&driver), graph(), options);
        let short = make(floats().with_filter_ef(20));
        for index in [&short, &make(floats())] {
            let documents = (0..400_u16).map(|n| {
                let angle = f32::from(n) / 400.0;
                let color = if n < 390 { "blue" } else { "red" };
                let vector = Vector::new([angle.cos(), angle.sin(), 0.0]).unwrap();
                Document::new(n.to_string()).with("v", vector).with("color", color)
            });
            index.load(documents, |_| {}).await.unwrap();
            let result = index.knn(&knn(10, red())).await.unwrap();
            if std::ptr::eq(index, &short) {
                assert!(result.partial && result.hits.len() < 10, "{result:?}");
                assert_eq!(index.count(&red()).await.unwrap(), 10, "a count is exact");
            } else {
                assert_eq!((result.partial, result.hits.len()), (false, 10));
            }
            let exact = index.exact().knn(&knn(10, red())).await.unwrap();
            assert_eq!((exact.partial, exact.hits.len()), (false, 10));
            let more = index.exact().knn(&knn(11, red())).await.unwrap();
            assert_eq!((more.partial, more.hits.len()), (false, 10));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_at_once_lose_nothing() {
    let set = on(pool(Flavor::Redis, Protocol::Resp2).await, graph(), VectorSetOptions::new());
    let documents = (0..50_u8).map(|n| document(&n.to_string()).with("color", "red"));
    set.load(documents, |_| {}).await.unwrap();
    let tasks: Vec<_> = (0..6_u8)
        .map(|n| {
            let set = set.clone();
            tokio::spawn(async move {
                let name = format!("field{n}");
                let changes = [(name.as_str(), n.into())];
                set.update_where(&red(), &changes, Bulk::apply()).await.unwrap()
            })
        })
        .collect();
    for task in tasks {
        let affected = task.await.unwrap();
        assert_eq!((affected.matched, affected.changed), (50, 50));
    }
    let ids: Vec<String> = (0..50_u8).map(|n| n.to_string()).collect();
    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
    for record in set.get_many(&ids).await.unwrap() {
        for n in 0..6_u8 {
            assert_eq!(
                record.as_ref().unwrap().field(&format!("field{n}")).unwrap(),
                &n.to_string()
            );
        }
    }
}

/// Characters of the expression language, of JSON, and of neither.
fn nasty() -> impl Strategy<Value = String> {
    let alphabet = "\"'\\%.()[]{}<>=!&|+-*/,:;$@#?~^` \t\n\r\u{1}\u{7f}\u{1f}aBé💥0nulotrinad";
    let characters: Vec<char> = alphabet.chars().filter(|c| *c != '\u{1f}').collect();
    let text = prop::collection::vec(prop::sample::select(characters), 1..12);
    let text = text.prop_map(|text| text.into_iter().collect::<String>());
    let words = prop::sample::select(vec![
        "\" or 1 or \"",
        "\" in .color) or (1",
        "\\\" or 1 or \"",
        "%22",
        "null",
        "1",
        "true",
        "nan",
        "\\u0022",
        "' or 1 or '",
        "red\\",
        "\\\\",
        "25%",
        "%%",
        ".price",
        "[\"red\"]",
    ]);
    prop_oneof![4 => text, 1 => words.prop_map(str::to_owned)]
        .prop_filter("the index strips blanks", |text| Filter::tag("color", text).is_ok())
}

#[test]
fn any_tag_is_found_by_itself_and_by_nothing_else() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let drivers = runtime.block_on(both());
    let tags = prop::collection::btree_set(nasty(), 2..8);
    let config = Config { cases: 150, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&tags, |tags| {
            for driver in &drivers {
                runtime.block_on(async {
                    let set = on(Arc::clone(driver), graph(), VectorSetOptions::new());
                    let tags: Vec<&String> = tags.iter().collect();
                    let documents: Vec<Document> = tags
                        .iter()
                        .enumerate()
                        .map(|(n, tag)| document(&n.to_string()).with_tags("color", [tag.as_str()]))
                        .collect();
                    set.put_many(&documents).await.unwrap();
                    for (n, tag) in tags.iter().enumerate() {
                        let filter = Filter::tag("color", tag.as_str()).unwrap();
                        let query = knn(9, filter.clone()).returning(["color"]).unwrap();
                        let hits = set.knn(&query).await.unwrap().hits;
                        prop_assert_eq!(hits.len(), 1, "{:?} of {:?}", tag, tags);
                        prop_assert_eq!(set.id(&hits[0].key), Some(n.to_string()));
                        prop_assert_eq!(hits[0].field("color").unwrap(), tag.as_bytes());
                        let others = set.count(&!filter).await.unwrap();
                        prop_assert_eq!(others, tags.len() as u64 - 1, "not {:?}", tag);
                    }
                    set.driver().query::<()>(Cmd::new("DEL").key(set.key())).await.unwrap();
                    Ok(())
                })?;
            }
            Ok(())
        })
        .unwrap();
}

fn trees() -> impl Strategy<Value = Filter> {
    let bounds = || prop::sample::select(vec![-1e300, -2.5, -1e-7, 0.0, 1e-300, 3.0, 1e17, 1e300]);
    let numbers = (bounds(), bounds(), 0..4_u8).prop_filter_map("empty", |(a, b, kind)| {
        let range = match kind {
            0 => Filter::number("price", a..b),
            1 => Filter::number("price", a..=b),
            2 => Filter::number("price", a..),
            _ => Filter::number("price", ..b),
        };
        range.ok()
    });
    let tags = prop::collection::vec(prop::sample::select(vec!["red", "a\"b", "%"]), 1..3);
    let leaf = prop_oneof![
        tags.prop_map(|tags| Filter::any_of("color", tags).unwrap()),
        numbers,
        prop::sample::select(vec!["color", "price"])
            .prop_map(|field| Filter::missing(field).unwrap()),
    ];
    leaf.prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a & b),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a | b),
            inner.prop_map(|filter| !filter),
        ]
    })
}

#[test]
fn filters_agree_with_the_index_in_memory() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let schema = Schema::builder("docs", "docs:", graph())
        .field(Field::tag("color").index_missing())
        .field(Field::numeric("price").index_missing())
        .build()
        .unwrap();
    let memory = MemoryVectorIndex::new(schema.clone());
    let driver = runtime.block_on(pool(Flavor::Redis, Protocol::Resp2));
    let set = RedisVectorSet::new(driver, &namespace(), schema, VectorSetOptions::new()).unwrap();
    let mut documents = Vec::new();
    for (n, price) in
        ["", "-1e300", "-2.5", "-1e-7", "0", "-0", "1e-300", "3", "+3", "1e17", "1e300"]
            .iter()
            .enumerate()
    {
        for (m, tags) in [&[][..], &["red"], &["a\"b", "%"], &["red", "%"]].iter().enumerate() {
            let mut document = document(&format!("{n}-{m}"));
            if !price.is_empty() {
                document = document.with("price", *price);
            }
            if !tags.is_empty() {
                document = document.with_tags("color", tags.iter().copied());
            }
            documents.push(document);
        }
    }
    runtime.block_on(async {
        memory.put_many(&documents).await.unwrap();
        set.put_many(&documents).await.unwrap();
    });
    let config = Config { cases: 400, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&trees(), |filter| {
            let query = knn(100, filter.clone());
            let found = |result: inferkit_vectorsearch::SearchResult| {
                let mut keys: Vec<_> = result.hits.into_iter().map(|hit| hit.key).collect();
                keys.sort();
                keys
            };
            let (ours, expected) = runtime.block_on(async {
                let ours = set.search(Query::Knn(&query)).await.unwrap();
                assert!(!ours.partial);
                (found(ours), found(memory.knn(&query).await.unwrap()))
            });
            prop_assert_eq!(ours, expected, "{:?}", filter);
            Ok(())
        })
        .unwrap();
}

/// Recall against the exact index in memory; 8-bit components cost a little of it.
#[tokio::test(flavor = "multi_thread")]
async fn most_true_neighbors_are_found() {
    const DIMENSIONS: usize = 32;
    let mut state = 42_u64;
    let mut random = move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let mut point = |center: Option<&Vec<f32>>| -> Vec<f32> {
        (0..DIMENSIONS).map(|n| random() + center.map_or(0.0, |center| center[n])).collect()
    };
    let centers: Vec<Vec<f32>> = (0..20).map(|_| point(None)).collect();
    let field = || VectorField::hnsw("v", DIMENSIONS, Hnsw::default());
    let schema = Schema::builder("docs", "docs:", field()).build().unwrap();
    let documents: Vec<Document> = (0..2_000)
        .map(|n| {
            let vector = Vector::new(point(Some(&centers[n % 20]))).unwrap();
            Document::new(n.to_string()).with("v", vector)
        })
        .collect();
    let queries: Vec<Vector> =
        (0..100).map(|n| Vector::new(point(Some(&centers[n % 20]))).unwrap()).collect();
    let memory = MemoryVectorIndex::new(schema.clone());
    memory.put_many(&documents).await.unwrap();
    let driver = pool(Flavor::Redis, Protocol::Resp2).await;
    for (options, least) in [(floats(), 0.99), (VectorSetOptions::new(), 0.95)] {
        let set = RedisVectorSet::new(Arc::clone(&driver), &namespace(), schema.clone(), options)
            .unwrap();
        set.put_many(&documents).await.unwrap();
        let mut found = 0;
        for query in &queries {
            let query = Knn::new("v", query.clone(), 10, Filter::all()).unwrap();
            let truth = memory.knn(&query).await.unwrap();
            let result = set.knn(&query).await.unwrap();
            found += result
                .hits
                .iter()
                .filter(|hit| truth.hits.iter().any(|t| t.key == hit.key))
                .count();
            for (hit, t) in result.hits.iter().zip(&truth.hits).take(1) {
                assert!((hit.distance.as_f64() - t.distance.as_f64()).abs() < 0.02);
            }
        }
        let recall = found as f64 / 1_000.0;
        println!("{options:?}: recall@10 {recall}");
        assert!(least <= recall, "{options:?}: {recall}");
        set.driver().query::<()>(Cmd::new("DEL").key(set.key())).await.unwrap();
    }
}
