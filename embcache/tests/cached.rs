//! The cached embedder, on memory and on a real server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, ErrorKind, ManualClock};
use inferkit_embcache::{
    CachedEmbedder, Embedder, EmbedderExt as _, EmbeddingCache, EmbeddingKey, Error, KEYS,
    MemoryEmbeddingCache, OnCacheError, Pace, Precision, RedisEmbeddingCache, Result, encode,
};
use inferkit_localredis::{Flavor, Server};
use support::{Counting, vector_of};

async fn caches() -> [Arc<dyn EmbeddingCache>; 2] {
    [Arc::new(MemoryEmbeddingCache::default()), Arc::new(support::on_pool(Flavor::Plain).await)]
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_missing_is_embedded_and_only_once() {
    for cache in caches().await {
        let inner = Counting::default();
        let embedder = CachedEmbedder::new(inner.clone(), cache);
        let first = embedder.embed_many(&["bb", "a", "bb"]).await.unwrap();
        assert_eq!(first, [vector_of("bb"), vector_of("a"), vector_of("bb")]);
        let second = embedder.embed_many(&["ccc", "a", "", "bb", "ccc"]).await.unwrap();
        assert_eq!(second, ["ccc", "a", "", "bb", "ccc"].map(vector_of));
        assert_eq!(embedder.embed("").await.unwrap(), vector_of(""));
        assert!(embedder.embed_many(&[]).await.unwrap().is_empty());
        assert_eq!(inner.calls(), [vec!["bb", "a"], vec!["ccc", ""]]);
    }
}

#[tokio::test]
async fn versions_and_models_do_not_mix() {
    let cache: Arc<dyn EmbeddingCache> = Arc::new(MemoryEmbeddingCache::default());
    let inner = Counting::default();
    for version in [1, 2, 1] {
        let embedder = CachedEmbedder::new(inner.clone(), Arc::clone(&cache)).with_version(version);
        embedder.embed("a").await.unwrap();
    }
    assert_eq!(inner.calls().len(), 2);
}

#[tokio::test]
async fn entries_last_as_long_as_set() {
    let clock = Arc::new(ManualClock::default());
    let inner = Counting::default();
    let cache = Arc::new(MemoryEmbeddingCache::new(Arc::<ManualClock>::clone(&clock)));
    let embedder =
        CachedEmbedder::new(inner.clone(), cache).with_ttl(Duration::from_secs(60)).unwrap();
    embedder.embed("a").await.unwrap();
    clock.advance(Duration::from_secs(59));
    embedder.embed("a").await.unwrap();
    assert_eq!(inner.calls().len(), 1);
    clock.advance(Duration::from_secs(1));
    embedder.embed("a").await.unwrap();
    assert_eq!(inner.calls().len(), 2);
    let century = Duration::from_secs(36_525 * 24 * 60 * 60);
    let embedder = embedder.with_ttl(century).unwrap();
    let over = century + Duration::from_millis(1);
    assert!(matches!(embedder.clone().with_ttl(over), Err(Error::Config(_))));
    assert!(matches!(embedder.with_ttl(Duration::ZERO), Err(Error::Config(_))));
}

/// Returns whatever it is told to.
#[derive(Debug)]
struct Wrong(Vec<Vec<f32>>);

#[async_trait]
impl Embedder for Wrong {
    fn model(&self) -> &str {
        "wrong"
    }

    fn dimensions(&self) -> usize {
        2
    }

    async fn embed_many(&self, _: &[&str]) -> Result<Vec<Vec<f32>>> {
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn what_an_embedder_must_not_return_is_an_error_and_not_stored() {
    let ask = async |vectors: &[&[f32]]| {
        let cache = Arc::new(MemoryEmbeddingCache::default());
        let wrong = Wrong(vectors.iter().map(|vector| vector.to_vec()).collect());
        let embedder = CachedEmbedder::new(wrong, Arc::<MemoryEmbeddingCache>::clone(&cache));
        let error = embedder.embed_many(&["a", "b"]).await.unwrap_err();
        let keys = ["a", "b"].map(|text| EmbeddingKey::new(1, "wrong", text));
        assert_eq!(cache.get_many(&keys).await.unwrap(), [None, None]);
        error
    };
    let error = ask(&[&[1.0, 1.0]]).await;
    assert!(matches!(error, Error::CountMismatch { expected: 2, got: 1, .. }));
    let error = ask(&[&[1.0, 1.0], &[1.0]]).await;
    assert!(matches!(error, Error::DimensionMismatch { expected: 2, got: 1, .. }));
    let error = ask(&[&[1.0, 1.0], &[1.0, f32::INFINITY]]).await;
    assert!(matches!(error, Error::NotFinite { index: 1, .. }));
    let error = ask(&[&[1.0, 1.0], &[0.0, -0.0]]).await;
    assert!(matches!(error, Error::ZeroVector), "{error:?}");
    assert!(error.to_string().contains("the embedder returned a zero vector"), "{error}");
    let wrong = CachedEmbedder::new(Wrong(Vec::new()), Arc::clone(&caches().await[0]));
    let error = wrong.embed("a").await.unwrap_err();
    assert!(matches!(error, Error::CountMismatch { expected: 1, got: 0, .. }));
}

#[tokio::test]
async fn damaged_entries_are_embedded_anew_and_those_of_a_later_release_are_refused() {
    let good = encode(&vector_of("a")).unwrap();
    for cache in caches().await {
        let key = EmbeddingKey::new(1, "count:{ing}", "a");
        let damaged = [
            Bytes::new(),
            Bytes::from_static(&[1]),
            good.slice(..good.len() - 1),
            encode(&[1.0]).unwrap(),
            Bytes::from([&[1, 1, 3, 0][..], &[0xff; 12]].concat()),
            Bytes::from([&[1, 1, 3, 0][..], &[0; 12]].concat()),
        ];
        for bytes in damaged {
            let inner = Counting::default();
            let embedder = CachedEmbedder::new(inner.clone(), Arc::clone(&cache));
            cache.put_many(&[(key.clone(), bytes)], Duration::from_secs(60)).await.unwrap();
            assert_eq!(embedder.embed("a").await.unwrap(), vector_of("a"));
            assert_eq!(embedder.embed("a").await.unwrap(), vector_of("a"));
            assert_eq!(inner.calls().len(), 1);
        }
        let mut later = good.to_vec();
        later[0] = 2;
        let later = Bytes::from(later);
        cache.put_many(&[(key.clone(), later.clone())], Duration::from_secs(60)).await.unwrap();
        let inner = Counting::default();
        let embedder = CachedEmbedder::new(inner.clone(), Arc::clone(&cache));
        let error = embedder.embed("a").await.unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { found: 2, known: 1, .. }));
        assert!(error.to_string().contains("with_version"), "{error}");
        assert!(inner.calls().is_empty());
        assert_eq!(cache.get_many(&[key]).await.unwrap(), [Some(later)]);
        assert_eq!(embedder.with_version(2).embed("a").await.unwrap(), vector_of("a"));
    }
}

#[derive(Debug)]
struct Down;

#[async_trait]
impl EmbeddingCache for Down {
    async fn get_many(&self, _: &[EmbeddingKey]) -> Result<Vec<Option<Bytes>>> {
        Err(inferkit_core::Error::new(ErrorKind::Connection, "down").into())
    }

    async fn put_many(&self, _: &[(EmbeddingKey, Bytes)], _: Duration) -> Result<()> {
        Err(inferkit_core::Error::new(ErrorKind::Connection, "down").into())
    }
}

#[tokio::test]
async fn a_cache_that_is_down_fails_only_who_wants_it() {
    let inner = Counting::default();
    let embedder = CachedEmbedder::new(inner.clone(), Arc::new(Down));
    assert_eq!(embedder.embed_many(&["a", "a"]).await.unwrap(), ["a", "a"].map(vector_of));
    assert_eq!(inner.calls(), [vec!["a"]]);
    let error = embedder.with_on_cache_error(OnCacheError::Fail).embed("a").await.unwrap_err();
    assert!(matches!(&error, Error::Backend(error) if error.kind() == ErrorKind::Connection));
    assert!(error.is_transient());
    assert_eq!(inner.calls().len(), 1);
}

async fn keys_of(driver: &DynDriver, pattern: &str) -> Vec<String> {
    driver.query(Cmd::new("KEYS").arg(pattern)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_is_in_the_table_and_expires() {
    let server = Server::start(Flavor::Plain).unwrap();
    let driver = support::pool(server.url()).await;
    let cache = RedisEmbeddingCache::new(Arc::clone(&driver), support::namespace());
    let embedder = CachedEmbedder::new(Counting::default(), Arc::new(cache));
    embedder.embed_many(&["a", "naïve:{}*"]).await.unwrap();
    let keys = keys_of(&driver, "*").await;
    assert_eq!(keys.len(), 2);
    assert_eq!(KEYS.len(), 1);
    for key in keys {
        let parts: Vec<&str> = key.split(':').collect();
        let [_, family, version, model, digest] = parts[..] else { panic!("{key}") };
        assert_eq!((family, version, model), (KEYS[0].family, "v1", "count%3A%7Bing%7D"));
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let kind: String = driver.query(Cmd::new("TYPE").key(&key)).await.unwrap();
        assert_eq!(kind, KEYS[0].kind);
        let left: i64 = driver.query(Cmd::new("PTTL").key(&key)).await.unwrap();
        let week = 7 * 24 * 60 * 60 * 1000;
        assert!((week - 60_000..=week).contains(&left), "{left}");
    }
}

async fn calls(driver: &DynDriver) -> Vec<(String, u64)> {
    let stats: String = driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
    stats
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        })
        .filter(|(name, _)| ["mget", "set", "get"].contains(&name.as_str()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_one_mget_and_one_pipeline() {
    let server = Server::start(Flavor::Plain).unwrap();
    let driver = support::pool(server.url()).await;
    let cache = RedisEmbeddingCache::new(Arc::clone(&driver), support::namespace());
    let embedder = CachedEmbedder::new(Counting::default(), Arc::new(cache));
    driver.query::<()>(Cmd::new("CONFIG").arg("RESETSTAT")).await.unwrap();
    embedder.embed_many(&["a", "b", "c", "a"]).await.unwrap();
    let mut found = calls(&driver).await;
    found.sort();
    assert_eq!(found, [("mget".to_owned(), 1), ("set".to_owned(), 3)]);
    embedder.embed_many(&["a", "b", "c"]).await.unwrap();
    embedder.embed_many(&[]).await.unwrap();
    let mut found = calls(&driver).await;
    found.sort();
    assert_eq!(found, [("mget".to_owned(), 2), ("set".to_owned(), 3)]);
}

#[test]
fn the_key_table_of_the_readme_is_the_crate_s() {
    let readme = include_str!("../README.md");
    assert!(readme.contains(&inferkit_core::keys::markdown(KEYS)));
}

/// An embedder that takes a while, and counts.
#[derive(Clone, Debug, Default)]
struct Slow {
    inner: Counting,
    fail_first: Arc<std::sync::atomic::AtomicBool>,
}

#[async_trait]
impl Embedder for Slow {
    fn model(&self) -> &str {
        self.inner.model()
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if self.fail_first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Err(Error::embedder("once"));
        }
        self.inner.embed_many(texts).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_of_one_process_embed_a_text_once() {
    for cache in caches().await {
        let slow = Slow::default();
        let embedder = CachedEmbedder::new(slow.clone(), cache);
        let calls = (0..32).map(|n| {
            let embedder = embedder.clone();
            tokio::spawn(async move {
                let own = format!("own {}", n % 4);
                embedder.embed_many(&["all", &own]).await.unwrap()
            })
        });
        for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
            let own = format!("own {}", n % 4);
            assert_eq!(call.await.unwrap(), [vector_of("all"), vector_of(&own)]);
        }
        let mut embedded = slow.inner.calls().concat();
        embedded.sort();
        assert_eq!(embedded, ["all", "own 0", "own 1", "own 2", "own 3"]);
        let stats = embedder.stats();
        assert_eq!(stats.misses - stats.shared, 5, "{stats:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_call_that_fails_or_is_dropped_embeds_the_text_itself() {
    let slow = Slow::default();
    slow.fail_first.store(true, std::sync::atomic::Ordering::SeqCst);
    let embedder = CachedEmbedder::new(slow.clone(), Arc::new(MemoryEmbeddingCache::default()));
    let both = tokio::join!(embedder.embed("a"), embedder.embed("a"));
    assert!(both.0.is_err());
    assert_eq!(both.1.unwrap(), vector_of("a"));

    let first = tokio::spawn({
        let embedder = embedder.clone();
        async move { embedder.embed("b").await }
    });
    tokio::time::sleep(Duration::from_millis(10)).await;
    let second = tokio::spawn(async move { embedder.embed("b").await });
    tokio::time::sleep(Duration::from_millis(10)).await;
    first.abort();
    assert_eq!(second.await.unwrap().unwrap(), vector_of("b"));
    assert_eq!(slow.inner.calls(), [["a"], ["b"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_tell_what_was_saved() {
    let cache = Arc::new(MemoryEmbeddingCache::default());
    let embedder = CachedEmbedder::new(Counting::default(), cache);
    embedder.embed_many(&["four", "four", "sevenxx"]).await.unwrap();
    embedder.embed_many(&["four", "new"]).await.unwrap();
    let stats = embedder.stats();
    assert_eq!((stats.hits, stats.misses, stats.duplicates, stats.shared), (1, 3, 1, 0));
    assert_eq!(stats.saved_bytes, 4);
    assert!((stats.hit_rate() - 0.25).abs() < 1e-9);
    assert!((stats.saved_money(2.0).unwrap() - 2e-6).abs() < 1e-12);
    for price in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(stats.saved_money(price), Err(Error::Config(_))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_has_one_vector_in_every_precision() {
    for cache in caches().await {
        for (version, precision) in [(1, Precision::F32), (2, Precision::F16), (3, Precision::I8)] {
            let embedder = CachedEmbedder::new(Counting::default(), Arc::clone(&cache));
            let embedder = embedder.with_version(version).with_precision(precision);
            let first = embedder.embed("some text").await.unwrap();
            assert_eq!(embedder.embed("some text").await.unwrap(), first);
            assert_eq!(embedder.stats().hits, 1);
            // Another setting reads what is there.
            let other = CachedEmbedder::new(Counting::default(), Arc::clone(&cache));
            assert_eq!(other.with_version(version).embed("some text").await.unwrap(), first);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_model_takes_the_texts_of_the_old_one() {
    let cache = support::on_pool(Flavor::Plain).await;
    let shared: Arc<dyn EmbeddingCache> = Arc::new(cache.clone());
    let old = CachedEmbedder::new(Counting::default(), Arc::clone(&shared)).with_kept_texts();
    let texts: Vec<String> = (0..250).map(|n| format!("text {n} {{*}} é")).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    old.embed_many(&texts).await.unwrap();
    let bare = CachedEmbedder::new(Counting::default(), Arc::clone(&shared));
    bare.embed_many(&["without its text"]).await.unwrap();
    let damaged = EmbeddingKey::new(1, old.model(), "damaged");
    shared
        .put_many(&[(damaged, Bytes::from_static(b"??"))], Duration::from_secs(60))
        .await
        .unwrap();

    let counting = Counting::default();
    let new = CachedEmbedder::new(counting.clone(), Arc::clone(&shared)).with_version(2);
    let same = cache.migrate(1, new.model(), &old, Pace::default(), |_| {}).await;
    assert!(matches!(same, Err(Error::Config(_))));
    // Stopped half-way, and called again.
    let stopped = tokio::time::timeout(
        Duration::from_millis(60),
        cache.migrate(1, new.model(), &new, Pace::batches_of(10).at_most(1_000.0).unwrap(), |_| {}),
    );
    assert!(stopped.await.is_err());
    let half = counting.calls().concat().len();
    assert!(0 < half && half < 250, "{half}");
    let mut looks = Vec::new();
    let pace = Pace::batches_of(10);
    let migrated = cache.migrate(1, new.model(), &new, pace, |m| looks.push(m.done)).await.unwrap();
    assert_eq!((migrated.seen, migrated.done), (252, 250));
    assert_eq!((migrated.without_text, migrated.unreadable), (1, 1));
    assert!(looks.is_sorted() && 10 < looks.len());
    assert_eq!(counting.calls().concat().len(), 250, "nothing is embedded twice");

    let stats = new.stats();
    new.embed_many(&texts).await.unwrap();
    assert_eq!(new.stats().hits - stats.hits, 250);
    let usage = cache.usage().await.unwrap();
    let found: Vec<(u32, u64)> = usage.iter().map(|model| (model.version, model.entries)).collect();
    assert_eq!(found, [(1, 252), (2, 250)]);
    assert!(
        usage.iter().all(|model| model.model == new.model() && 50 * model.entries < model.bytes)
    );
    for rate in [0.0, -1.0, f64::NAN] {
        assert!(matches!(pace.at_most(rate), Err(Error::Config(_))));
    }
}
