//! How entries lie on the server: packed answers, 16-bit vectors, the index by size and its move, and lost epochs.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::{Compass, DIMENSIONS, policy};
use inferkit_semcache::{
    Algorithm, Config, Hnsw, RedisSemanticCache, SemanticCache, SemanticCacheExt as _,
    semantic_cache_conformance,
};
use support::{answer, request};

async fn driver() -> DynDriver {
    support::pool(Server::shared(Flavor::Redis).unwrap().url()).await
}

/// The suite over packed answers and 16-bit vectors.
mod packed {
    async fn make() -> super::RedisSemanticCache {
        let config = super::support::config().with_half_vectors().with_zstd_above(0);
        super::support::over(super::driver().await, config).await
    }
    super::semantic_cache_conformance!(make);
}

async fn length(driver: &DynDriver, cache: &RedisSemanticCache, field: &str) -> usize {
    let key = cache.key(request("1@0").tenant(), &request("1@0").id());
    driver.query(Cmd::new("HSTRLEN").key(key).arg(field)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn long_answers_are_packed_and_vectors_are_half_as_long() {
    let driver = driver().await;
    let text = "plants turn light into sugar and oxygen. ".repeat(100);
    let plain = support::over(Arc::clone(&driver), support::config()).await;
    plain.store(&request("1@0"), &answer(&text), None).await.unwrap();
    assert_eq!(length(&driver, &plain, "response").await, text.len());
    assert_eq!(length(&driver, &plain, "embedding").await, 4 * DIMENSIONS);
    let config = support::config().with_half_vectors().with_zstd_above(1_000);
    let small = support::over(Arc::clone(&driver), config).await;
    small.store(&request("1@0"), &answer(&text), None).await.unwrap();
    assert!(length(&driver, &small, "response").await < text.len() / 10);
    assert_eq!(length(&driver, &small, "embedding").await, 2 * DIMENSIONS);
    for prompt in ["1@0", "1@1"] {
        let hit = small.lookup(&request(prompt)).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some(text.as_str()));
    }
    // Packed or not is told entry by entry: another setting reads both.
    let namespace = plain.config().namespace.clone();
    let config = support::config().with_namespace(namespace).with_zstd_above(10);
    let reader = support::cache(driver, config).await;
    let hit = reader.lookup(&request("1@0")).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.text(), Some(text.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_is_moved_while_the_cache_is_used() {
    // Of its own: a server fills its new indexes one after the other, and other tests make many.
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let config = support::config();
    let cache = support::over(Arc::clone(&driver), config.clone()).await;
    let other = support::cache(Arc::clone(&driver), config.clone()).await;
    let many = (0..200).map(|number| (request(&format!("{}@0 {number}", number % 8)), answer("w")));
    cache.warm_up(many, |_| {}).await.unwrap();
    assert!(cache.index().schema().index().contains(":flat:"));

    let done = Arc::new(AtomicBool::new(false));
    let asking = {
        let (other, done) = (other.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            let mut asked = 0;
            while !done.load(Ordering::SeqCst) || asked < 20 {
                assert!(other.lookup(&request("1@1")).await.unwrap().hit().is_some());
                asked += 1;
            }
        })
    };
    let graph = Algorithm::Hnsw(Hnsw::default());
    cache.move_index(graph, Duration::from_secs(20), |_| {}).await.unwrap();
    done.store(true, Ordering::SeqCst);
    asking.await.unwrap();
    assert!(cache.index().schema().index().contains(":hnsw:"));
    assert!(cache.move_index(graph, Duration::from_secs(20), |_| {}).await.is_err(), "it is there");

    // Who comes later takes the index as it is, unless an algorithm is forced.
    let later = support::cache(Arc::clone(&driver), config.clone()).await;
    assert!(later.index().schema().index().contains(":hnsw:"));
    for cache in [&cache, &other, &later] {
        cache.store(&request("7@20 new"), &answer("new"), None).await.unwrap();
        let hit = cache.lookup(&request("7@21")).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some("new"));
    }
    let forced = config.with_algorithm(Algorithm::Flat);
    let forced = RedisSemanticCache::new(driver, Arc::new(Compass::default()), forced).unwrap();
    assert!(forced.ensure_index().await.unwrap_err().to_string().contains("another schema"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_index_follows_the_expected_size() {
    let driver = driver().await;
    for (entries, kind) in [(1_000, ":flat:"), (1_000_000, ":hnsw:")] {
        let config = support::config().with_expected_entries(entries);
        let cache = support::over(Arc::clone(&driver), config).await;
        assert!(cache.index().schema().index().contains(kind));
        cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
        assert!(cache.lookup(&request("1@1")).await.unwrap().hit().is_some());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_epoch_empties_the_cache_and_revives_nothing() {
    let driver = driver().await;
    let cache = support::over(Arc::clone(&driver), support::config()).await;
    cache.store(&request("1@0"), &answer("flushed"), None).await.unwrap();
    cache.flush(request("1@0").tenant()).await.unwrap();
    cache.store(&request("1@10"), &answer("lost"), None).await.unwrap();
    let epoch = cache.epoch_key(request("1@0").tenant());
    assert!(driver.query::<bool>(Cmd::new("DEL").key(&epoch)).await.unwrap());
    let none = async || {
        for prompt in ["1@0", "1@1", "1@10"] {
            let lookup = cache.lookup(&request(prompt)).await.unwrap();
            assert!(lookup.hit().is_none(), "{lookup:?}");
        }
    };
    none().await;
    cache.store(&request("5@0"), &answer("a new epoch"), None).await.unwrap();
    none().await;
    assert!(cache.lookup(&request("5@1")).await.unwrap().hit().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sliding_expiry_begins_an_entry_s_own_time_anew() {
    use inferkit_semcache::CacheControl;
    let driver = driver().await;
    let config = Config::new()
        .with_namespace(support::config().namespace)
        .with_policy(policy().with_sliding_ttl());
    let cache = support::over(Arc::clone(&driver), config).await;
    let own = CacheControl::new().ttl(Duration::from_secs(1_000)).unwrap();
    cache.store(&request("1@0").with_control(own), &answer("yes"), None).await.unwrap();
    let key = cache.key(request("1@0").tenant(), &request("1@0").id());
    let epoch = cache.epoch_key(request("1@0").tenant());
    for prompt in ["1@0", "1@1"] {
        for key in [&key, &epoch] {
            driver.query::<()>(Cmd::new("PEXPIRE").key(key).arg(50_000)).await.unwrap();
        }
        assert!(cache.lookup(&request(prompt)).await.unwrap().hit().is_some());
        for key in [&key, &epoch] {
            let left: i64 = driver.query(Cmd::new("PTTL").key(key)).await.unwrap();
            assert!((900_000..=1_000_000).contains(&left), "{prompt}: {left}");
        }
    }
}
