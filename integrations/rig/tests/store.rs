//! The store in memory, on RediSearch and on a vector set; the cache between rig and its model.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_rig::inferkit_embcache::{CachedEmbedder, Embedder as _, MemoryEmbeddingCache};
use inferkit_rig::inferkit_vectorsearch::inferkit_core::keys::Namespace;
use inferkit_rig::inferkit_vectorsearch::inferkit_core::{DynDriver, Pool, SystemClock};
use inferkit_rig::inferkit_vectorsearch::{
    Hnsw, MAX_K, MemoryVectorIndex, Metric, RedisVectorIndex, RedisVectorSet, Schema, TenantIndex,
    VectorField, VectorIndex, VectorSetOptions,
};
use inferkit_rig::{Error, RigEmbedder, RigVectorStore, model};
use rig_core::driver::{Exchange, Local, Model, Opened, Opening, Step, Transport};
use rig_core::embeddings::{Embedding, EmbeddingResponse, EmbeddingsBuilder};
use rig_core::operation::Embedding as EmbeddingOp;
use rig_core::vector_store::request::{Filter, FilterError, SearchFilter as _};
use rig_core::vector_store::{
    InsertDocuments as _, VectorSearchRequest, VectorStoreError, VectorStoreIndex,
};
use rig_core::wire::Capabilities;
use rig_core::{DynModel, Embed, ProviderError};
use serde_json::{Value, json};

const DIMENSIONS: usize = 32;

/// A model that counts letters, its calls and its texts.
#[derive(Clone, Default)]
struct Letters {
    calls: Arc<AtomicUsize>,
    texts: Arc<AtomicUsize>,
}

impl Letters {
    fn model(&self) -> DynModel<EmbeddingOp> {
        let capabilities = Capabilities::embedding(3, DIMENSIONS);
        let wire = Local::new("letters").with_id("v1").with_capabilities(capabilities);
        Model::new(wire, self.clone()).erase()
    }
}

fn letters(text: &str) -> Vec<f64> {
    let mut counts = vec![0.01; DIMENSIONS];
    for byte in text.bytes().filter(u8::is_ascii_alphabetic) {
        counts[usize::from(byte.to_ascii_lowercase() - b'a')] += 1.0;
    }
    counts
}

impl Transport<Local<EmbeddingOp>> for Letters {
    fn send(&self, texts: Vec<String>, _: Exchange) -> Opening<Step<EmbeddingOp>> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.texts.fetch_add(texts.len(), Ordering::SeqCst);
        if texts.iter().any(|text| text == "fail") {
            return Opening::failed(ProviderError::Provider("no".to_owned()));
        }
        assert!(texts.len() <= 3, "more than the model takes");
        let embeddings = texts.into_iter().map(|document| {
            let vec = letters(&document);
            Embedding { document, vec }
        });
        let end = Step::End(EmbeddingResponse::new(embeddings.collect()));
        Opening::ready(Opened::new(futures_util::stream::iter([Ok::<_, ProviderError>(end)])))
    }
}

#[derive(Clone, Debug, Embed, PartialEq, serde::Deserialize, serde::Serialize)]
struct Shoe {
    id: String,
    #[embed]
    title: String,
    color: Vec<String>,
    sale: bool,
    price: f64,
    sizes: Vec<u8>,
}

fn shoe(id: &str, title: &str, color: &[&str], price: f64) -> Shoe {
    Shoe {
        id: id.to_owned(),
        title: title.to_owned(),
        color: color.iter().map(|color| (*color).to_owned()).collect(),
        sale: price < 50.0,
        price,
        sizes: vec![43, 44],
    }
}

fn shoes() -> Vec<Shoe> {
    vec![
        shoe("a", "running shoe", &["red", "a\"b|c}"], 79.5),
        shoe("b", "runner", &["blue"], 120.0),
        shoe("c", "office loafer", &["red"], 40.0),
        shoe("d", "hiking boot", &[], 99.0),
        shoe("e", "slipper", &["red"], 15.0),
    ]
}

fn schema(prefix: &str, field: VectorField) -> Schema {
    let schema = Schema::builder(format!("idx-{prefix}"), format!("{prefix}:"), field);
    schema.tag("color").tag("sale").numeric("price").text("title").build().unwrap()
}

fn flat() -> VectorField {
    VectorField::flat("embedding", DIMENSIONS)
}

async fn driver() -> DynDriver {
    Pool::connect(Server::shared(Flavor::Redis).unwrap().url()).await.unwrap().into_driver()
}

/// Memory, RediSearch, a vector set, and a tenant.
async fn indexes() -> Vec<Arc<dyn VectorIndex>> {
    let driver = driver().await;
    let redis = RedisVectorIndex::new(Arc::clone(&driver), schema(&unique_prefix(), flat()));
    redis.ensure_index().await.unwrap();
    let graph = schema("set", VectorField::hnsw("embedding", DIMENSIONS, Hnsw::default()));
    let namespace = Namespace::new(&unique_prefix()).unwrap();
    let set = RedisVectorSet::new(driver, &namespace, graph, VectorSetOptions::new()).unwrap();
    let shared = Schema::builder("idx", "docs:", flat()).tag("tenant").tag("color").tag("sale");
    let shared = shared.numeric("price").text("title").build().unwrap();
    let tenant = TenantIndex::new(MemoryVectorIndex::new(shared), "tenant", "acme").unwrap();
    vec![
        Arc::new(MemoryVectorIndex::new(schema("docs", flat()))),
        Arc::new(redis),
        Arc::new(set),
        Arc::new(tenant),
    ]
}

type Store = RigVectorStore<CachedEmbedder<RigEmbedder>>;

fn cached(letters: &Letters) -> CachedEmbedder<RigEmbedder> {
    let cache = Arc::new(MemoryEmbeddingCache::new(Arc::<SystemClock>::default()));
    CachedEmbedder::new(RigEmbedder::new(letters.model()).unwrap(), cache)
}

async fn filled(index: Arc<dyn VectorIndex>) -> Store {
    let embedder = cached(&Letters::default());
    let store = RigVectorStore::new(index, embedder.clone()).unwrap();
    let builder = EmbeddingsBuilder::new(model(embedder)).documents(shoes()).unwrap();
    store.insert_documents(builder.build().await.unwrap()).await.unwrap();
    store
}

fn request(query: &str, samples: u64) -> VectorSearchRequest {
    VectorSearchRequest::builder().query(query).samples(samples).build()
}

fn filtered(filter: Filter<Value>) -> VectorSearchRequest {
    VectorSearchRequest::builder().query("shoe").samples(10).filter(filter).build()
}

async fn ids(store: &Store, request: VectorSearchRequest) -> Vec<String> {
    let mut found: Vec<String> =
        store.top_n_ids(request).await.unwrap().into_iter().map(|result| result.id).collect();
    found.sort();
    found
}

#[tokio::test]
async fn documents_come_back_the_most_similar_first() {
    for index in indexes().await {
        let store = filled(index).await;
        let found = store.top_n::<Shoe>(request("shoe running", 3)).await.unwrap();
        assert_eq!(found.len(), 3, "{store:?}");
        assert_eq!((&*found[0].id, &found[0].document), ("a", &shoes()[0]));
        assert!(0.97 < found[0].score && found[0].score <= 1.0, "{found:?}");
        assert!(found.is_sorted_by(|a, b| b.score <= a.score));
        let same = store.top_n_ids(request("shoe running", 3)).await.unwrap();
        let pairs = |id: &String, score: f64| (id.clone(), score);
        assert_eq!(
            found.iter().map(|r| pairs(&r.id, r.score)).collect::<Vec<_>>(),
            same.iter().map(|r| pairs(&r.id, r.score)).collect::<Vec<_>>()
        );
        assert!(store.top_n_ids(request("shoe", 0)).await.unwrap().is_empty());
        let strict =
            VectorSearchRequest::builder().query("running shoe").samples(9).threshold(0.97);
        assert_eq!(ids(&store, strict.build()).await, ["a"]);
    }
}

#[tokio::test]
async fn filters_of_rig_hold() {
    for index in indexes().await {
        let store = filled(index).await;
        let red = || Filter::eq("color", json!("red"));
        for (filter, expected) in [
            (red(), &["a", "c", "e"][..]),
            (Filter::eq("color", json!("a\"b|c}")), &["a"]),
            (Filter::eq("sale", json!(true)), &["c", "e"]),
            (Filter::eq("price", json!(120)), &["b"]),
            (Filter::gt("price", json!(79.5)), &["b", "d"]),
            (Filter::lt("price", json!(40)), &["e"]),
            (red().and(Filter::lt("price", json!(79.5))), &["c", "e"]),
            (Filter::eq("color", json!("blue")).or(Filter::gt("price", json!(90))), &["b", "d"]),
            (red().and(Filter::gt("price", json!(1e9))), &[]),
        ] {
            assert_eq!(ids(&store, filtered(filter.clone())).await, expected, "{filter:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_map_is_a_typed_error_and_not_left_out() {
    let store = filled(Arc::new(MemoryVectorIndex::new(schema("docs", flat())))).await;
    let error = async |filter| store.top_n_ids(filtered(filter)).await.unwrap_err();
    let missing = error(Filter::eq("brand", json!("x"))).await;
    assert!(matches!(missing, VectorStoreError::FilterError(FilterError::MissingField(_))));
    for filter in [
        Filter::eq("color", json!(1)),
        Filter::eq("color", json!(["red"])),
        Filter::eq("price", json!("cheap")),
        Filter::gt("price", json!(null)),
        Filter::eq("price", json!(9_007_199_254_740_993_u64)),
    ] {
        let all = Filter::gt("price", json!(0)).or(filter);
        let error = error(all).await;
        let expected = matches!(error, VectorStoreError::FilterError(FilterError::Expected { .. }));
        assert!(expected && !error.to_string().contains("cheap"), "{error:?}");
    }
    for filter in [
        Filter::gt("color", json!("red")),
        Filter::lt("title", json!("x")),
        Filter::eq("title", json!("x")),
        Filter::eq("embedding", json!(1)),
    ] {
        let error = error(filter).await;
        assert!(matches!(error, VectorStoreError::FilterError(FilterError::TypeError(_))));
    }
    let empty = error(Filter::eq("color", json!(""))).await;
    assert!(matches!(empty, VectorStoreError::DatastoreError(_)), "{empty:?}");
    let many = store.top_n_ids(request("shoe", MAX_K as u64 + 1)).await.unwrap_err();
    assert!(matches!(many, VectorStoreError::SamplesOutOfRange { .. }), "{many:?}");
}

#[tokio::test]
async fn documents_that_do_not_fit_change_nothing() {
    #[derive(Embed, serde::Serialize)]
    struct Loose {
        id: &'static str,
        #[embed]
        text: String,
        price: Value,
        color: Value,
    }
    let loose = |price, color| Loose { id: "x", text: "boot".to_owned(), price, color };
    let embedding = |text: &str| vec![Embedding { document: text.to_owned(), vec: letters(text) }];
    for index in indexes().await {
        let store = filled(index).await;
        let good = || (loose(json!(1), json!("red")), embedding("boot"));
        for (bad, embeddings) in [
            (loose(json!("cheap"), json!("red")), embedding("boot")),
            (loose(json!(1), json!(7)), embedding("boot")),
            (loose(json!(1), json!("")), embedding("boot")),
            (loose(json!(1), json!([""])), embedding("boot")),
            (loose(json!(1), json!("red")), Vec::new()),
            (
                loose(json!(1), json!("red")),
                vec![Embedding { document: String::new(), vec: vec![1.0] }],
            ),
        ] {
            let error = store.insert_documents(vec![good(), (bad, embeddings)]).await.unwrap_err();
            assert!(matches!(error, VectorStoreError::DatastoreError(_)), "{error:?}");
        }
        assert_eq!(ids(&store, request("boot", 20)).await, ["a", "b", "c", "d", "e"]);
        store.insert_documents(vec![good()]).await.unwrap();
        assert!(ids(&store, request("boot", 20)).await.contains(&"x".to_owned()));
    }
}

#[tokio::test]
async fn a_document_is_found_by_each_embedding_and_returned_once() {
    for index in indexes().await {
        let store = filled(index).await;
        let two =
            ["zzz", "qqq"].map(|text| Embedding { document: text.to_owned(), vec: letters(text) });
        let boot = shoe("two", "boot", &["green"], 1.0);
        for price in [1.0, 2.0] {
            let boot = Shoe { price, ..boot.clone() };
            store.insert_documents(vec![(boot, two.to_vec())]).await.unwrap();
        }
        for query in ["zzz", "qqq", "zq"] {
            let found = store.top_n::<Shoe>(request(query, 7)).await.unwrap();
            assert_eq!((&*found[0].id, found[0].document.price), ("two", 2.0), "{query}");
            assert_eq!(found.iter().filter(|result| result.id == "two").count(), 1);
        }
    }
}

#[tokio::test]
async fn the_cache_stands_between_rig_and_its_model() {
    let letters = Letters::default();
    let embedder = cached(&letters);
    assert_eq!((embedder.model(), embedder.dimensions()), ("letters/v1", DIMENSIONS));
    let counts = || (letters.calls.load(Ordering::SeqCst), letters.texts.load(Ordering::SeqCst));
    let rig = model(embedder.clone());
    assert_eq!((rig.id(), rig.capabilities().ndims), (Some("letters/v1"), DIMENSIONS));
    let build = || async {
        let builder = EmbeddingsBuilder::new(rig.clone()).documents(shoes()).unwrap();
        builder.build().await.unwrap()
    };
    let first = build().await;
    assert_eq!(counts(), (2, 5), "five texts, three at once");
    for (shoe, embeddings) in &first {
        assert_eq!(embeddings[0].document, shoe.title);
        let expected = self::letters(&shoe.title);
        assert!(embeddings[0].vec.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6));
    }
    build().await;
    assert_eq!(counts(), (2, 5), "all from the cache");
    let index = Arc::new(MemoryVectorIndex::new(schema("docs", flat())));
    let store = RigVectorStore::new(index, embedder).unwrap();
    store.insert_documents(first).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ids(&store, request("a new question", 1)).await.len(), 1);
    }
    assert_eq!(counts(), (3, 6), "a question is embedded once");
    let error = store.top_n_ids(request("fail", 1)).await.unwrap_err();
    assert!(matches!(error, VectorStoreError::DatastoreError(_)), "{error:?}");
    let ProviderError::Request(_) = rig.embed_text("fail").await.unwrap_err() else {
        panic!("the embedder's error is the request's");
    };
}

#[tokio::test]
async fn a_store_that_cannot_work_is_not_made() {
    let make = |field: VectorField, more: Option<VectorField>| {
        let schema = Schema::builder("idx", "docs:", field);
        let schema = more.into_iter().fold(schema, |schema, field| schema.vector(field));
        let index = Arc::new(MemoryVectorIndex::new(schema.build().unwrap()));
        RigVectorStore::new(index, cached(&Letters::default())).unwrap_err()
    };
    let narrow = make(VectorField::flat("v", 3), None);
    assert!(matches!(narrow, Error::DimensionMismatch { expected: 3, got: DIMENSIONS, .. }));
    assert!(matches!(make(flat(), Some(VectorField::flat("w", 3))), Error::NotOneVectorField));
    let unknown = Local::new("letters").with_capabilities(Capabilities::embedding(3, 0));
    assert!(RigEmbedder::new(Model::new(unknown, Letters::default())).is_err());
}

#[tokio::test]
async fn scores_follow_the_metric() {
    for (metric, best) in [(Metric::InnerProduct, 25.0), (Metric::L2, 0.0)] {
        let index = MemoryVectorIndex::new(schema("docs", flat().with_metric(metric)));
        let store = filled(Arc::new(index)).await;
        let query = if metric == Metric::L2 { "runner" } else { "nnnnn" };
        let found = store.top_n_ids(request(query, 5)).await.unwrap();
        assert!(found.is_sorted_by(|a, b| b.score <= a.score), "{found:?}");
        assert!(found[0].score <= best + 1e-3, "{found:?}");
    }
}
