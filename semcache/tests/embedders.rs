//! Vectors of one embedding model are never compared with those of another.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::{Compass, DIMENSIONS, policy};
use inferkit_semcache::{Embedder, Lookup, MemorySemanticCache, RedisSemanticCache, SemanticCache};
use support::{answer, request};

/// An embedder that becomes another model of the same dimensions.
#[derive(Debug, Default)]
struct Changing {
    compass: Compass,
    changed: AtomicBool,
}

#[async_trait]
impl Embedder for Changing {
    fn model(&self) -> &str {
        if self.changed.load(Ordering::SeqCst) { "new" } else { "old" }
    }

    fn dimensions(&self) -> usize {
        DIMENSIONS
    }

    async fn embed_many(&self, texts: &[&str]) -> inferkit_embcache::Result<Vec<Vec<f32>>> {
        self.compass.embed_many(texts).await
    }
}

async fn entries_of_the_old_model_are_no_candidates(
    cache: &dyn SemanticCache,
    embedder: &Changing,
) {
    cache.store(&request("1@0"), &answer("old"), None).await.unwrap();
    assert!(matches!(cache.lookup(&request("1@1")).await.unwrap(), Lookup::Semantic(_)));
    embedder.changed.store(true, Ordering::SeqCst);
    let miss = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap_err();
    assert_eq!(miss.nearest, None);
    // The answer to the very same request does not depend on vectors.
    let exact = cache.lookup(&request("1@0")).await.unwrap();
    assert!(matches!(&exact, Lookup::Exact(hit) if hit.text() == Some("old")), "{exact:?}");
    cache.store(&request("1@2"), &answer("new"), None).await.unwrap();
    let hit = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.text(), Some("new"));
    embedder.changed.store(false, Ordering::SeqCst);
    let hit = cache.lookup(&request("1@3")).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.text(), Some("old"), "although the new model's is nearer");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_redis() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let embedder = Arc::new(Changing::default());
    let shared = Arc::<Changing>::clone(&embedder);
    let cache = RedisSemanticCache::new(driver, shared, support::config()).unwrap();
    cache.ensure_index().await.unwrap();
    entries_of_the_old_model_are_no_candidates(&cache, &embedder).await;
}

#[tokio::test]
async fn on_memory() {
    let embedder = Arc::new(Changing::default());
    let shared = Arc::<Changing>::clone(&embedder);
    let cache = MemorySemanticCache::new(shared, policy());
    entries_of_the_old_model_are_no_candidates(&cache, &embedder).await;
}
