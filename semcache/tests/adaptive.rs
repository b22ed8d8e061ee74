//! The adaptive policy: the suite on memory and on servers, and streams of questions that keep to the bound.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_localredis::{Flavor, Server};
use inferkit_semcache::conformance::{Compass, adaptive_policy};
use inferkit_semcache::{
    Coalescer, Config, Feedback, Lookup, MemorySemanticCache, RedisSemanticCache, SameAnswer,
    SemanticCache, Source, adaptive_conformance,
};
use support::{answer, request};

fn config() -> Config {
    support::config().with_policy(adaptive_policy())
}

async fn on(flavor: Flavor) -> RedisSemanticCache {
    support::over(support::pool(Server::shared(flavor).unwrap().url()).await, config()).await
}

mod memory {
    use super::*;
    async fn make() -> MemorySemanticCache {
        MemorySemanticCache::new(Arc::new(Compass::default()), adaptive_policy())
    }
    adaptive_conformance!(make);
}

mod redis {
    use super::*;
    async fn make() -> RedisSemanticCache {
        on(Flavor::Redis).await
    }
    adaptive_conformance!(make);
}

mod valkey {
    use super::*;
    async fn make() -> RedisSemanticCache {
        on(Flavor::Valkey).await
    }
    adaptive_conformance!(make);
}

/// Questions whose right answer changes every 30 degrees of 8 topics.
struct Stream(u64);

impl Stream {
    fn next(&mut self) -> (String, String) {
        let mut below = |limit: u64| {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (self.0 >> 33) % limit
        };
        let (topic, angle, word) = (below(8), below(1_800), below(1 << 30));
        let prompt = format!("{topic}@{}.{} q{word}", angle / 10, angle % 10);
        (prompt, format!("{topic}/{}", angle / 300))
    }
}

/// Asks so many questions; returns how many were hits, and how many hits were wrong.
async fn ask(cache: Arc<dyn SemanticCache>, seed: u64, questions: usize) -> (usize, usize) {
    let coalescer = Coalescer::new(cache).with_judge(Arc::new(SameAnswer::default()));
    let (mut stream, mut hits, mut wrong) = (Stream(seed), 0, 0);
    for _ in 0..questions {
        let (prompt, right) = stream.next();
        let generate = || async { Ok::<_, std::io::Error>(answer(&right)) };
        let served = coalescer.get_or_generate(&request(&prompt), generate).await.unwrap();
        if matches!(served.source, Source::Semantic(_)) {
            hits += 1;
            wrong += usize::from(served.answer.text() != Some(&right));
        }
    }
    (hits, wrong)
}

/// The bound is one of the mean, 2 in 100: a single short stream may be worse.
fn assert_bounded(wrong: usize, lookups: usize) {
    assert!(wrong * 100 <= lookups * 5, "{wrong} wrong answers to {lookups} questions");
}

#[tokio::test(flavor = "multi_thread")]
async fn in_the_mean_the_bound_is_kept() {
    let mut wrong = 0;
    for seed in 10..20 {
        let cache = MemorySemanticCache::new(Arc::new(Compass::default()), adaptive_policy());
        wrong += ask(Arc::new(cache), seed, 800).await.1;
    }
    assert!(wrong * 100 <= 8_000 * 2, "{wrong} wrong answers to 8000 questions");
}

async fn instance(driver: &DynDriver, config: &Config) -> Arc<dyn SemanticCache> {
    Arc::new(support::cache(Arc::clone(driver), config.clone()).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_goes_on_with_what_was_learned() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let config = config();
    let (first, wrong) = ask(instance(&driver, &config).await, 1, 800).await;
    assert_bounded(wrong, 800);
    let (second, again) = ask(instance(&driver, &config).await, 2, 800).await;
    assert_bounded(again, 800);
    assert!(first < second, "{first} hits, then {second}");
    println!("first {first} hits, {wrong} wrong; then {second} hits, {again} wrong of 800 each");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_learn_at_once() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let config = config();
    let (one, two) = (instance(&driver, &config).await, instance(&driver, &config).await);
    let (one, two) = tokio::join!(ask(one, 3, 600), ask(two, 4, 600));
    assert_bounded(one.1 + two.1, 1_200);
    println!("two instances: {one:?} and {two:?} (hits, wrong) of 600 each");
}

#[tokio::test(flavor = "multi_thread")]
async fn expiring_entries_keep_the_bound() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let brief = Duration::from_millis(300);
    let policy = adaptive_policy().with_model_ttl("gpt-4", brief).unwrap();
    let cache = instance(&driver, &config().with_policy(policy)).await;
    let (hits, wrong) = ask(cache, 5, 800).await;
    println!("expiring: {hits} hits, {wrong} wrong of 800");
    assert_bounded(wrong, 800);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_observation_is_lost() {
    let driver = support::pool(Server::shared(Flavor::Redis).unwrap().url()).await;
    let cache = support::over(Arc::clone(&driver), config()).await;
    let other = support::cache(Arc::clone(&driver), cache.config().clone()).await;
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    let Lookup::Near(near) = cache.lookup(&request("1@20")).await.unwrap() else { panic!() };
    let reports = (0..50).map(|number| {
        let cache = [&cache, &other][number % 2].clone();
        let candidate = near.candidate.clone();
        tokio::spawn(async move {
            let feedback = if number < 20 { Feedback::Wrong } else { Feedback::Right };
            cache.report(&request(&format!("1@20 q{number}")), &candidate, feedback).await.unwrap()
        })
    });
    for report in reports.collect::<Vec<_>>() {
        assert!(report.await.unwrap());
    }
    let pool: Vec<u8> =
        driver.query::<bytes::Bytes>(Cmd::new("GET").key(cache.pool_key())).await.unwrap().to_vec();
    let counts: Vec<u16> = pool
        .as_chunks::<2>()
        .0
        .iter()
        .map(|pair| u16::from_be_bytes(*pair))
        .filter(|count| *count != 0)
        .collect();
    assert_eq!(counts, [30, 20], "right, wrong");
    let key = cache.key(request("1@0").tenant(), &request("1@0").id());
    let seen: String = driver.query(Cmd::new("HGET").key(&key).arg("observations")).await.unwrap();
    assert_eq!(seen.len(), 32 * 4, "the newest 32");
    let left: i64 = driver.query(Cmd::new("PTTL").key(cache.pool_key())).await.unwrap();
    assert!(0 < left);
}
