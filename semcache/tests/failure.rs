//! Bad input and entries written behind the cache's back, on a real server.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{Cmd, DriverExt as _, DynDriver, ErrorKind};
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::{Compass, DIMENSIONS};
use inferkit_semcache::{
    Embedder, EmbedderExt as _, Error, Lookup, Miss, RedisSemanticCache, Request, SemanticCache,
    SemanticCacheExt as _, Tenant, Vector,
};
use support::{answer, request, text, with_driver};

/// Overwrites fields of a stored entry; an empty value deletes the field.
async fn tamper(
    cache: &RedisSemanticCache,
    driver: &DynDriver,
    request: &Request,
    field: &str,
    value: &[u8],
) {
    let key = cache.key(request.tenant(), &request.id());
    let cmd = match value {
        [] => Cmd::new("HDEL").key(&key).arg(field),
        value => Cmd::new("HSET").key(&key).arg(field).arg(value),
    };
    driver.query::<i64>(cmd).await.unwrap();
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_not_whole_is_never_served() {
    let other =
        Request::new(Tenant::new("other").unwrap(), "gpt-4", "1@0").unwrap().scope("compass");
    for (field, value) in [
        ("response", &b""[..]),
        ("scope", b""),
        ("scope", other.as_bytes()),
        ("scope", b"\xff\xfe"),
        ("v", b""),
        ("v", b"one"),
        ("timestamp", b""),
        ("timestamp", b"noon"),
        ("tokens_used", b"many"),
    ] {
        let (cache, driver) = with_driver().await;
        let (poisoned, good) = (request("1@0"), request("1@15"));
        cache.store(&poisoned, &answer("poison"), None).await.unwrap();
        tamper(&cache, &driver, &poisoned, field, value).await;
        for asked in ["1@0", "1@1"] {
            let lookup = cache.lookup(&request(asked)).await.unwrap();
            assert!(matches!(lookup, Lookup::Miss(_)), "{field} {value:?}: {lookup:?}");
        }
        // It does not hide a whole one behind it, and the next answer overwrites it.
        cache.store(&good, &answer("good"), None).await.unwrap();
        for asked in ["1@0", "1@1"] {
            let hit = cache.lookup(&request(asked)).await.unwrap().into_hit().unwrap();
            assert_eq!(hit.text(), Some("good"), "{field} {value:?}");
        }
        cache.store(&poisoned, &answer("new"), None).await.unwrap();
        let hit = cache.lookup(&poisoned).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some("new"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_prompt_is_not_served_for_another() {
    let (cache, driver) = with_driver().await;
    for value in [&b""[..], b"\xff\xfe"] {
        cache.store(&request("1@0"), &answer("poison"), None).await.unwrap();
        tamper(&cache, &driver, &request("1@0"), "prompt", value).await;
        assert!(cache.lookup(&request("1@1")).await.unwrap().hit().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_written_behind_our_back_are_never_served() {
    for algorithm in ["flat", "hnsw"] {
        let poisons = [
            bytes(&[0.0; DIMENSIONS]),
            bytes(&[f32::NAN; DIMENSIONS]),
            bytes(&[f32::INFINITY; DIMENSIONS]),
            bytes(&[1.0; 3]),
            b"no vector".to_vec(),
        ];
        for poison in poisons {
            let (cache, driver) = match algorithm {
                "flat" => with_driver().await,
                _ => {
                    let cache = support::on_hnsw().await;
                    let driver = Arc::clone(cache.index().driver());
                    (cache, driver)
                }
            };
            let poisoned = request("2@0 poison");
            cache.store(&poisoned, &answer("poison"), None).await.unwrap();
            tamper(&cache, &driver, &poisoned, "embedding", &poison).await;
            for asked in ["2@0", "1@0", "1@90"] {
                let lookup = cache.lookup(&request(asked)).await.unwrap();
                assert!(lookup.hit().is_none(), "{algorithm}: {lookup:?}");
            }
            cache.store(&request("1@0 good"), &answer("good"), None).await.unwrap();
            // A poisoned graph may find nothing any more; the exact tier does not ask it.
            let exact = cache.lookup(&request("1@0 good")).await.unwrap();
            assert!(
                matches!(&exact, Lookup::Exact(hit) if hit.text() == Some("good")),
                "{exact:?}"
            );
            if algorithm == "flat" {
                let hit = cache.lookup(&request("1@3")).await.unwrap().into_hit().unwrap();
                assert_eq!(hit.text(), Some("good"));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_under_a_stranger_s_key_is_never_served() {
    let (cache, driver) = with_driver().await;
    let ours = request("1@0");
    let vector = Compass::default().embed("1@0").await.unwrap();
    cache.store(&request("5@0"), &answer("the tenant has an epoch"), None).await.unwrap();
    let epoch = text(&driver, Cmd::new("GET").key(cache.epoch_key(ours.tenant()))).await;
    let stranger = Tenant::new("stranger").unwrap();
    let under_theirs = cache.key(&stranger, &ours.id());
    let nested = format!("{}:more", cache.key(ours.tenant(), &ours.id()));
    for key in [under_theirs.as_str(), &nested] {
        let cmd = Cmd::new("HSET")
            .key(key)
            .args([
                "v",
                "1",
                "scope",
                &cache.scope(&ours, &epoch),
                "prompt",
                "p",
                "response",
                "poison",
            ])
            .args(["timestamp", "1706140800", "embedding"])
            .arg(bytes(&vector));
        driver.query::<i64>(cmd).await.unwrap();
        driver.query::<()>(Cmd::new("PEXPIRE").key(key).arg(60_000)).await.unwrap();
    }
    assert!(cache.lookup(&ours).await.unwrap().hit().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_later_release_is_an_error_that_says_so() {
    let (cache, driver) = with_driver().await;
    cache.store(&request("1@0"), &answer("later"), None).await.unwrap();
    tamper(&cache, &driver, &request("1@0"), "v", b"2").await;
    for asked in ["1@0", "1@1"] {
        let error = cache.lookup(&request(asked)).await.unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { found: 2, known: 1, .. }), "{error:?}");
        assert!(error.to_string().contains("upgrade"), "{error}");
    }
    // Where it would not be the answer it is in nobody's way.
    assert!(cache.lookup(&request("1@80")).await.unwrap().hit().is_none());
    cache.store(&request("1@80"), &answer("ours"), None).await.unwrap();
    let hit = cache.lookup(&request("1@85")).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.text(), Some("ours"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_is_an_error_and_not_overwritten_by_reading() {
    let (cache, driver) = with_driver().await;
    let key = cache.key(request("1@0").tenant(), &request("1@0").id());
    driver.query::<()>(Cmd::new("SET").key(&key).arg("x").arg("PX").arg(60_000)).await.unwrap();
    let error = cache.lookup(&request("1@0")).await.unwrap_err();
    assert!(matches!(&error, Error::Backend(error) if error.code() == Some("WRONGTYPE")));
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    assert!(cache.lookup(&request("1@0")).await.unwrap().hit().is_some());
}

/// An embedder of three dimensions.
#[derive(Debug)]
struct Other;

#[async_trait]
impl Embedder for Other {
    fn model(&self) -> &str {
        "other"
    }

    fn dimensions(&self) -> usize {
        3
    }

    async fn embed_many(&self, texts: &[&str]) -> inferkit_embcache::Result<Vec<Vec<f32>>> {
        Ok(vec![vec![1.0, 0.0, 0.0]; texts.len()])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_another_schema_is_an_error_that_says_what_to_do() {
    use inferkit_semcache::inferkit_vectorsearch::Error as Search;
    let (cache, driver) = with_driver().await;
    let other = RedisSemanticCache::new(driver, Arc::new(Other), cache.config().clone()).unwrap();
    let error = other.ensure_index().await.unwrap_err();
    assert!(matches!(error, Error::Search(Search::SchemaMismatch { .. })), "{error:?}");
    assert!(error.to_string().contains("drop_index"), "{error}");
    assert!(!cache.ensure_index().await.unwrap(), "it is unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_candidates_than_a_search_takes_are_refused() {
    use inferkit_semcache::inferkit_vectorsearch::MAX_K;
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let with = |candidates| {
        let config = support::config().with_candidates(candidates);
        RedisSemanticCache::new(Arc::clone(&driver), Arc::new(Compass::default()), config)
    };
    let error = with(MAX_K + 1).unwrap_err();
    let expected = matches!(error, Error::TooManyCandidates { got: 10_001, max: MAX_K, .. });
    assert!(expected, "{error:?}");
    let cache = with(MAX_K).unwrap();
    cache.ensure_index().await.unwrap();
    assert!(cache.lookup(&request("1@0")).await.unwrap().hit().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_index_the_error_says_what_to_call() {
    use inferkit_semcache::inferkit_vectorsearch::Error as Search;
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let compass = Arc::new(Compass::default());
    let cache = RedisSemanticCache::new(driver, compass, support::config()).unwrap();
    let error = cache.lookup(&request("1@0")).await.unwrap_err();
    assert!(matches!(error, Error::Search(Search::IndexMissing { .. })), "{error:?}");
    assert!(error.to_string().contains("ensure_index"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_search_still_answers_the_exact_tier() {
    use inferkit_semcache::inferkit_vectorsearch::Error as Search;
    let server = Server::builder(Flavor::Plain).config("maxmemory", "0").start().unwrap();
    assert!(!server.supports_search());
    let compass = Arc::new(Compass::default());
    let cache =
        RedisSemanticCache::new(support::pool(server.url()).await, compass, support::config())
            .unwrap();
    let error = cache.ensure_index().await.unwrap_err();
    assert!(matches!(error, Error::Search(Search::SearchUnavailable { .. })), "{error:?}");
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    assert!(matches!(cache.lookup(&request("1@0")).await.unwrap(), Lookup::Exact(_)));
    assert!(cache.lookup(&request("1@1")).await.is_err());
}

/// A cache on a server that removes expired keys only when they are read.
async fn without_active_expiry() -> (Server, RedisSemanticCache, DynDriver) {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let cmd = Cmd::new("DEBUG").args(["SET-ACTIVE-EXPIRE", "0"]);
    driver.query::<()>(cmd).await.unwrap();
    let cache = support::over(Arc::clone(&driver), support::config()).await;
    (server, cache, driver)
}

/// How many searches the server has seen.
async fn searches(driver: &DynDriver) -> u64 {
    let stats: String = driver.query(Cmd::new("INFO").arg("commandstats")).await.unwrap();
    let calls = stats.lines().find_map(|line| {
        let (name, rest) = line.split_once(":calls=")?;
        name.eq_ignore_ascii_case("cmdstat_FT.SEARCH").then(|| rest.split(',').next())?
    });
    calls.map_or(0, |calls| calls.parse().unwrap())
}

/// Stores entries nearer to `1@0` than any other, which are gone but not removed.
async fn expire(cache: &RedisSemanticCache, driver: &DynDriver, count: usize) {
    for number in 0..count {
        let nearest = request(&format!("1@0 {number}"));
        cache.store(&nearest, &answer("gone"), None).await.unwrap();
        let key = cache.key(nearest.tenant(), &nearest.id());
        driver.query::<()>(Cmd::new("PEXPIRE").key(key).arg(1)).await.unwrap();
    }
    std::thread::sleep(Duration::from_millis(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_entries_do_not_hide_a_living_one() {
    let (_server, cache, driver) = without_active_expiry().await;
    let k = cache.config().candidates;
    for (expired, expected) in [(k - 1, 1), (k, 2), (3 * k, 2)] {
        driver.query::<()>(Cmd::new("FLUSHALL")).await.unwrap();
        cache.ensure_index().await.unwrap();
        cache.store(&request("1@15"), &answer("lives"), None).await.unwrap();
        expire(&cache, &driver, expired).await;
        let size: usize = driver.query(Cmd::new("DBSIZE")).await.unwrap();
        assert_eq!(size, expired + 2, "the server has removed what expired");
        let before = searches(&driver).await;
        let hit = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some("lives"), "behind {expired} expired ones");
        assert_eq!(searches(&driver).await - before, expected, "behind {expired} expired ones");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_entries_do_not_hide_a_whole_one() {
    let (cache, driver) = with_driver().await;
    cache.store(&request("1@15"), &answer("whole"), None).await.unwrap();
    for number in 0..cache.config().candidates + 1 {
        let damaged = request(&format!("1@0 {number}"));
        cache.store(&damaged, &answer("poison"), None).await.unwrap();
        tamper(&cache, &driver, &damaged, "response", b"").await;
    }
    let hit = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.text(), Some("whole"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_miss_behind_expired_entries_is_a_miss_after_two_searches() {
    let (_server, cache, driver) = without_active_expiry().await;
    expire(&cache, &driver, 5).await;
    let before = searches(&driver).await;
    let miss = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap_err();
    assert_eq!((miss.nearest, miss.partial), (None, false));
    assert_eq!(searches(&driver).await - before, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_a_transient_error() {
    let server = Server::start(Flavor::Redis).unwrap();
    let cache = support::over(support::pool(server.url()).await, support::config()).await;
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    drop(server);
    let error = cache.lookup(&request("1@0")).await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(matches!(
        &error,
        Error::Backend(error) if matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout)
    ));
    assert!(cache.forget(&request("1@0")).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_survive_a_flush() {
    let server = Server::start(Flavor::Redis).unwrap();
    let driver = support::pool(server.url()).await;
    let cache = support::over(Arc::clone(&driver), support::config()).await;
    for prompt in ["1@0", "1@0", "2@0"] {
        cache.store(&request(prompt), &answer("yes"), None).await.unwrap();
        driver.query::<()>(Cmd::new("SCRIPT").arg("FLUSH")).await.unwrap();
    }
    let big = Bytes::from(vec![b'x'; 1_000_000]);
    let given = Vector::new(vec![1.0; DIMENSIONS]).unwrap();
    let answer = inferkit_semcache::Answer::new(big.clone()).unwrap();
    let given = Miss::new(&request("3@0"), Some(given));
    cache.store(&request("3@0"), &answer, Some(given)).await.unwrap();
    let hit = cache.lookup(&request("3@0")).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.response, big);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_server_refuses_a_store_and_keeps_the_old_entry() {
    for flavor in [Flavor::Redis, Flavor::Valkey] {
        let server = Server::builder(flavor)
            .config("maxmemory", "64mb")
            .config("maxmemory-policy", "noeviction")
            .start()
            .unwrap();
        let driver = support::pool(server.url()).await;
        let cache = support::over(Arc::clone(&driver), support::config()).await;
        cache.store(&request("1@0"), &answer("old"), None).await.unwrap();
        let maxmemory = async |size: &str| {
            let cmd = Cmd::new("CONFIG").args(["SET", "maxmemory", size]);
            driver.query::<()>(cmd).await.unwrap();
        };
        // Less than an empty server takes: it is full.
        maxmemory("1mb").await;
        let error = cache.store(&request("1@0"), &answer("new"), None).await.unwrap_err();
        let Error::Backend(backend) = &error else { panic!("{flavor:?}: {error:?}") };
        assert_eq!(backend.kind(), ErrorKind::OutOfMemory, "{flavor:?}: {error:?}");
        assert!(!error.maybe_applied(), "{error:?}");
        for asked in ["1@0", "1@1"] {
            let hit = cache.lookup(&request(asked)).await.unwrap().into_hit().unwrap();
            assert_eq!(hit.text(), Some("old"), "{flavor:?}");
        }
        maxmemory("64mb").await;
        cache.store(&request("1@0"), &answer("new"), None).await.unwrap();
        let hit = cache.lookup(&request("1@0")).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some("new"), "{flavor:?}");
    }
}
