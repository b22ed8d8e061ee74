//! What makes other semantic caches lose data, leak or lie: one test for each, on Redis and on Valkey with RediSearch.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use inferkit_semcache::conformance::{Compass, DIMENSIONS};
use inferkit_semcache::{
    CacheControl, Category, Config, Embedder, Error, Feedback, Guard, Lookup, Miss, Policy,
    RedisSemanticCache, Rejection, Request, Selection, SemanticCache, SemanticCacheExt as _,
    Tenant, Vector, Verification,
};
use support::{answer, of, request};

macro_rules! on_both {
    ($($case:ident)*) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Flavor::Redis).await;
            })*
        }
        mod valkey {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $case() {
                super::$case(super::Flavor::Valkey).await;
            })*
        }
    };
}

on_both! {
    p4_1_zero_nan_and_infinite_vectors_poison_nothing
    p4_2_expired_entries_hide_no_living_one
    p4_2_feedback_does_not_bring_an_expired_entry_back
    p4_3_tenants_and_tags_are_taken_to_the_letter
    p4_4_a_threshold_is_a_similarity_and_noise_makes_no_difference
    p4_5_prompts_that_vectors_cannot_tell_apart_are_verified
    p4_5_contentless_and_cut_prompts_share_no_answers
    p4_6_an_update_leaves_nothing_old_and_a_hit_changes_no_time
    p4_6_models_and_categories_do_not_take_each_other_s_answers
    p4_7_many_may_create_the_index_and_none_destroys_it
    p4_7_an_index_made_late_takes_in_what_is_there
    p4_7_another_dimension_is_an_error_and_not_a_silent_loss
    p4_8_texts_are_not_indexed
    p4_10_names_that_begin_alike_do_not_overlap
}

/// A cache on a server that others use too, and its driver.
async fn shared(flavor: Flavor) -> (RedisSemanticCache, DynDriver) {
    let driver = support::pool(Server::shared(flavor).unwrap().url()).await;
    (support::over(Arc::clone(&driver), support::config()).await, driver)
}

fn bytes(vector: &[f32]) -> Vec<u8> {
    vector.iter().flat_map(|component| component.to_le_bytes()).collect()
}

async fn p4_1_zero_nan_and_infinite_vectors_poison_nothing(flavor: Flavor) {
    let (cache, driver) = shared(flavor).await;
    // The first entry of the index is the most harmful place.
    let poisoned = request("7@0 poison");
    cache.store(&poisoned, &answer("poison"), None).await.unwrap();
    for poison in [[0.0; DIMENSIONS], [f32::NAN; DIMENSIONS], [f32::INFINITY; DIMENSIONS]] {
        let key = cache.key(poisoned.tenant(), &poisoned.id());
        let cmd = Cmd::new("HSET").key(key).arg("embedding").arg(bytes(&poison));
        driver.query::<i64>(cmd).await.unwrap();
        for angle in (0..60).step_by(20) {
            let good = request(&format!("1@{angle}"));
            cache.store(&good, &answer(&angle.to_string()), None).await.unwrap();
            let asked = request(&format!("1@{} again", angle + 1));
            let hit = cache.lookup(&asked).await.unwrap().into_hit().unwrap();
            assert_eq!(hit.text(), Some(&*angle.to_string()), "{poison:?}");
        }
        let far = cache.lookup(&request("3@0")).await.unwrap();
        assert!(far.hit().is_none(), "{poison:?} {far:?}");
    }
    for prompt in ["zero", "nan", "infinite"] {
        let asked = cache.lookup(&request(prompt)).await.unwrap_err();
        let stored = cache.store(&request(prompt), &answer("no"), None).await.unwrap_err();
        for error in [asked, stored] {
            assert!(matches!(error, Error::InvalidEmbedding { .. }), "{prompt}: {error:?}");
        }
    }
}

/// A server that removes expired keys only when they are read.
async fn lazy(flavor: Flavor) -> (Server, RedisSemanticCache, DynDriver) {
    let server = Server::start(flavor).unwrap();
    let driver = support::pool(server.url()).await;
    driver.query::<()>(Cmd::new("DEBUG").args(["SET-ACTIVE-EXPIRE", "0"])).await.unwrap();
    let cache = support::over(Arc::clone(&driver), support::config()).await;
    (server, cache, driver)
}

async fn expire(cache: &RedisSemanticCache, driver: &DynDriver, request: &Request) {
    let key = cache.key(request.tenant(), &request.id());
    driver.query::<()>(Cmd::new("PEXPIRE").key(key).arg(1)).await.unwrap();
    std::thread::sleep(Duration::from_millis(5));
}

async fn p4_2_expired_entries_hide_no_living_one(flavor: Flavor) {
    let (_server, cache, driver) = lazy(flavor).await;
    cache.store(&request("1@10"), &answer("lives"), None).await.unwrap();
    for number in 0..10 {
        let nearer = request(&format!("1@0 {number}"));
        cache.store(&nearer, &answer("gone"), None).await.unwrap();
        expire(&cache, &driver, &nearer).await;
        let hit = cache.lookup(&request("1@1")).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some("lives"), "behind {}", number + 1);
    }
}

async fn p4_2_feedback_does_not_bring_an_expired_entry_back(flavor: Flavor) {
    let (_server, cache, driver) = lazy(flavor).await;
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    let hit = cache.lookup(&request("1@5")).await.unwrap().into_hit().unwrap();
    expire(&cache, &driver, &request("1@0")).await;
    assert!(!cache.report(&request("1@5"), &hit, Feedback::Wrong).await.unwrap());
    let key = cache.key(request("1@0").tenant(), &request("1@0").id());
    assert!(!driver.query::<bool>(Cmd::new("EXISTS").key(key)).await.unwrap());
}

async fn p4_3_tenants_and_tags_are_taken_to_the_letter(flavor: Flavor) {
    let (cache, _) = shared(flavor).await;
    let names =
        ["a", "A", " a", "a,b", "b", "a|b", "a\\|b", "*", "{a}", "a\n", "a:b", "$f0", "@scope:{a}"];
    for name in names {
        let tagged = answer(name).with_tag("a,b").unwrap();
        cache.store(&of(name, "1@0"), &tagged, None).await.unwrap();
    }
    for name in names {
        let hit = cache.lookup(&of(name, "1@1")).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some(name), "{name:?}");
    }
    for name in ["a,b ", "B", "mallory|a", "a*"] {
        let lookup = cache.lookup(&of(name, "1@0")).await.unwrap();
        assert!(lookup.miss().is_some_and(|miss| miss.nearest.is_none()), "{name:?}: {lookup:?}");
    }
    assert!(matches!(Tenant::new(""), Err(Error::EmptyTenant)));
    let of_a = Selection::of_tenant(&Tenant::new("a").unwrap());
    for tag in ["a", "b", "A,B", "*"] {
        assert_eq!(cache.invalidate(&of_a.clone().with_tag(tag)).await.unwrap(), 0, "{tag}");
    }
    assert_eq!(cache.invalidate(&of_a.with_tag("a,b")).await.unwrap(), 1);
}

async fn p4_4_a_threshold_is_a_similarity_and_noise_makes_no_difference(flavor: Flavor) {
    for wrong in [95.0, 1.1, -0.1, f64::NAN] {
        assert!(matches!(
            Policy::default().with_threshold(wrong),
            Err(Error::ThresholdOutOfRange { .. })
        ));
    }
    let (cache, _) = shared(flavor).await;
    // The server's distance of a vector to itself is noise around 0, above and below.
    let all = CacheControl::new().threshold(1.0).unwrap();
    for number in 0..40 {
        let request = request(&format!("any words {number}")).with_control(all);
        cache.store(&request, &answer("same"), None).await.unwrap();
        let lookup = cache.lookup(&request).await.unwrap();
        assert!(matches!(lookup, Lookup::Exact(_)), "{number}: {lookup:?}");
    }
    cache.store(&request("1@0"), &answer("yes"), None).await.unwrap();
    let hit = cache.lookup(&request("1@0 again")).await.unwrap().into_hit().unwrap();
    assert!((0.999..=1.0).contains(&hit.similarity.as_f64()), "{hit:?}");
}

/// An embedder for which all prompts mean the same, as models nearly do with such pairs.
#[derive(Debug)]
struct Blind;

#[async_trait]
impl Embedder for Blind {
    fn model(&self) -> &str {
        "blind"
    }

    fn dimensions(&self) -> usize {
        2
    }

    async fn embed_many(&self, texts: &[&str]) -> inferkit_embcache::Result<Vec<Vec<f32>>> {
        Ok(texts.iter().map(|_| vec![1.0, 1.0]).collect())
    }
}

/// A cache with the default policy, for which all prompts mean the same.
async fn blind(flavor: Flavor, policy: Policy) -> RedisSemanticCache {
    let driver = support::pool(Server::shared(flavor).unwrap().url()).await;
    let config = support::config().with_policy(policy);
    let cache = RedisSemanticCache::new(driver, Arc::new(Blind), config).unwrap();
    cache.ensure_index().await.unwrap();
    cache
}

async fn p4_5_prompts_that_vectors_cannot_tell_apart_are_verified(flavor: Flavor) {
    let cache = blind(flavor, Policy::default()).await;
    for (index, (stored, asked)) in [
        ("Is it safe to mix bleach and ammonia?", "Is it unsafe to mix bleach and ammonia?"),
        ("convert 100 USD to EUR", "convert 100 EUR to USD"),
        ("Who was CEO of Twitter in 2019?", "Who was CEO of Twitter in 2024?"),
        ("What is 17*23?", "What is 17*24?"),
        ("How do I enable 2FA?", "How do I disable 2FA?"),
        ("How do I sort a list in Python 2?", "How do I sort a list in Python 3?"),
    ]
    .into_iter()
    .enumerate()
    {
        let tenant = format!("t{index}");
        cache.store(&of(&tenant, stored), &answer("stored"), None).await.unwrap();
        let Lookup::Near(near) = cache.lookup(&of(&tenant, asked)).await.unwrap() else {
            panic!("{asked} was answered")
        };
        assert_eq!(near.reason, Rejection::Verifier);
    }
    cache.store(&of("f", "What is the capital of France?"), &answer("Paris"), None).await.unwrap();
    let hit = cache.lookup(&of("f", "what's the capital of france")).await.unwrap().into_hit();
    assert_eq!(hit.unwrap().text(), Some("Paris"));
}

async fn p4_5_contentless_and_cut_prompts_share_no_answers(flavor: Flavor) {
    let policy = Policy::default()
        .with_max_prompt_bytes(100)
        .with_verification(Verification::new(Arc::new(Guard::default())));
    let cache = blind(flavor, policy).await;
    let long = "the same beginning ".repeat(10);
    let ends = [format!("{long} one"), format!("{long} two")];
    let history = |turn: &str| of("t", "continue").with_history([("user", turn)]);
    let all = [
        (of("t", "continue"), "a"),
        (of("t", "yes"), "b"),
        (of("t", ""), "c"),
        (of("t", &ends[0]), "d"),
        (of("t", &ends[1]), "e"),
        (history("a poem"), "f"),
        (history("a proof"), "g"),
    ];
    for (request, own) in &all {
        let lookup = cache.lookup(request).await.unwrap();
        assert!(
            matches!(&lookup, Lookup::Miss(miss) if miss.nearest.is_none()),
            "{own}: {lookup:?}"
        );
        cache.store(request, &answer(own), None).await.unwrap();
    }
    for (request, own) in &all {
        let hit = cache.lookup(request).await.unwrap().into_hit().unwrap();
        assert_eq!(hit.text(), Some(*own));
    }
}

async fn p4_6_an_update_leaves_nothing_old_and_a_hit_changes_no_time(flavor: Flavor) {
    let (cache, driver) = shared(flavor).await;
    let request = request("1@0");
    let key = cache.key(request.tenant(), &request.id());
    let left = async || driver.query::<i64>(Cmd::new("PTTL").key(&key)).await.unwrap();
    let brief = CacheControl::new().ttl(Duration::from_secs(100)).unwrap();
    let tagged = answer("old").with_usage(1, 2).with_tag("doc").unwrap();
    cache.store(&request.clone().with_control(brief), &tagged, None).await.unwrap();
    for prompt in ["1@0", "1@1"] {
        cache.lookup(&support::request(prompt)).await.unwrap().into_hit().unwrap();
        assert!((1..=100_000).contains(&left().await), "a hit made it live longer");
    }
    cache.store(&request, &answer("new"), None).await.unwrap();
    assert!(100_000 < left().await, "the update kept the old time");
    let hit = cache.lookup(&request).await.unwrap().into_hit().unwrap();
    assert_eq!((hit.text(), hit.tokens_used, hit.completion_tokens), (Some("new"), None, None));
    let tag = Selection::of_tenant(request.tenant()).with_tag("doc");
    assert_eq!(cache.invalidate(&tag).await.unwrap(), 0, "the update kept the old tag");
    assert_eq!(cache.index().info().await.unwrap().documents, 1, "an update is no second entry");
}

async fn p4_6_models_and_categories_do_not_take_each_other_s_answers(flavor: Flavor) {
    let (cache, _) = shared(flavor).await;
    let tenant = || Tenant::new("t").unwrap();
    let ask = |model: &str, version: &str, prompt: &str| {
        Request::new(tenant(), model, prompt).unwrap().with_model_version(version)
    };
    let all = |prompt: &str| {
        [
            ask("gpt-4", "1", prompt),
            ask("claude", "1", prompt),
            ask("gpt-4", "2", prompt),
            ask("gpt-4", "1", prompt).with_category(Category::new("legal").unwrap()),
            ask("gpt-4", "1", prompt).with_category(Category::new("faq").unwrap()),
        ]
    };
    for (number, request) in all("1@0").iter().enumerate() {
        cache.store(request, &answer(&number.to_string()), None).await.unwrap();
    }
    for prompt in ["1@0", "1@1"] {
        for (number, request) in all(prompt).iter().enumerate() {
            let hit = cache.lookup(request).await.unwrap().into_hit().unwrap();
            assert_eq!(hit.text(), Some(&*number.to_string()));
        }
    }
}

async fn p4_7_many_may_create_the_index_and_none_destroys_it(flavor: Flavor) {
    let driver = support::pool(Server::shared(flavor).unwrap().url()).await;
    let config = support::config();
    let make = || {
        let (driver, config) = (Arc::clone(&driver), config.clone());
        tokio::spawn(async move {
            let cache =
                RedisSemanticCache::new(driver, Arc::new(Compass::default()), config).unwrap();
            (cache.ensure_index().await.unwrap(), cache)
        })
    };
    let makers: Vec<_> = (0..20).map(|_| make()).collect();
    let mut created = 0;
    let mut caches = Vec::new();
    for maker in makers {
        let (first, cache) = maker.await.unwrap();
        created += usize::from(first);
        caches.push(cache);
    }
    assert_eq!(created, 1);
    caches[0].store(&request("1@0"), &answer("yes"), None).await.unwrap();
    for cache in &caches {
        assert!(!cache.ensure_index().await.unwrap());
        assert!(cache.lookup(&request("1@1")).await.unwrap().hit().is_some());
    }
}

async fn p4_7_an_index_made_late_takes_in_what_is_there(flavor: Flavor) {
    let (cache, _) = shared(flavor).await;
    let many = (0..300).map(|number| (request(&format!("{}@0 {number}", number % 8)), answer("w")));
    cache.warm_up(many, |_| {}).await.unwrap();
    assert!(cache.index().drop_index().await.unwrap());
    assert!(matches!(cache.lookup(&request("1@0 1")).await.unwrap(), Lookup::Exact(_)));
    assert!(cache.ensure_index().await.unwrap());
    let info = cache.index().wait_until_indexed(Duration::from_secs(20)).await.unwrap();
    assert_eq!((info.documents, info.failures), (300, 0));
    assert!(cache.lookup(&request("1@1")).await.unwrap().hit().is_some());
}

async fn p4_7_another_dimension_is_an_error_and_not_a_silent_loss(flavor: Flavor) {
    let (cache, driver) = shared(flavor).await;
    let config = Config::new().with_namespace(cache.config().namespace.clone());
    let other = RedisSemanticCache::new(driver, Arc::new(Blind), config).unwrap();
    let error = other.ensure_index().await.unwrap_err();
    assert!(error.to_string().contains("another schema"), "{error}");
    let short = Miss::new(&request("1@0"), Some(Vector::new(vec![1.0, 1.0]).unwrap()));
    let error = cache.store(&request("1@0"), &answer("no"), Some(short)).await.unwrap_err();
    assert!(
        matches!(error, Error::DimensionMismatch { expected: DIMENSIONS, got: 2, .. }),
        "{error:?}"
    );
    assert_eq!(cache.index().info().await.unwrap().failures, 0);
}

async fn p4_8_texts_are_not_indexed(flavor: Flavor) {
    let (cache, _) = shared(flavor).await;
    let index = cache.index();
    let fields: BTreeSet<&str> = index.schema().fields().iter().map(|field| field.name()).collect();
    assert_eq!(fields, BTreeSet::from(["embedding", "labels", "scope", "timestamp"]));
    // The server agrees: the schema fits, and a long answer costs the index nothing.
    let long = "many different words make an inverted index grow ".repeat(200);
    cache.store(&request("1@0"), &answer(&long), None).await.unwrap();
    assert!(!cache.ensure_index().await.unwrap());
    assert_eq!(cache.index().info().await.unwrap().documents, 1);
}

async fn p4_10_names_that_begin_alike_do_not_overlap(flavor: Flavor) {
    let driver = support::pool(Server::shared(flavor).unwrap().url()).await;
    let prefix = unique_prefix();
    let named = async |name: String| {
        let namespace = Namespace::new(&name).unwrap();
        support::over(Arc::clone(&driver), support::config().with_namespace(namespace)).await
    };
    let short = named(prefix.clone()).await;
    let long = named(format!("{prefix}2")).await;
    let below = named(format!("{prefix}:cache2")).await;
    long.store(&request("1@0"), &answer("long"), None).await.unwrap();
    below.store(&request("1@0"), &answer("below"), None).await.unwrap();
    for asked in ["1@0", "1@1"] {
        let lookup = short.lookup(&request(asked)).await.unwrap();
        assert!(matches!(&lookup, Lookup::Miss(miss) if miss.nearest.is_none()), "{lookup:?}");
    }
    assert_eq!(short.index().info().await.unwrap().documents, 0);
    assert_eq!(short.invalidate(&Selection::of_all_tenants()).await.unwrap(), 0);
    assert!(long.lookup(&request("1@0")).await.unwrap().hit().is_some());
    for glob in ["a*", "a?", "[a]", "a\\b", "a{b}", "a b"] {
        assert!(Namespace::new(glob).is_err(), "{glob}");
    }
}

/// On a plain cluster there is no search, and the exact tier, storing, flushing and removing work over all nodes.
#[tokio::test(flavor = "multi_thread")]
async fn p4_9_on_a_cluster_entries_spread_and_nothing_crosses_slots() {
    use inferkit_core::{Pool, PoolConfig};
    use inferkit_localredis::Cluster;
    let urls = Cluster::shared().unwrap().urls();
    let config = PoolConfig::cluster(&urls[..1]).unwrap().with_timeout(Duration::from_secs(10));
    let driver = Pool::connect_with(config).await.unwrap().into_driver();
    // The exact tier only: a plain cluster has no search.
    let policy = Policy::default().with_rules(inferkit_semcache::Rules::exact_only());
    let config = support::config().with_policy(policy.with_sliding_ttl());
    let cache = RedisSemanticCache::new(driver, Arc::new(Compass::default()), config).unwrap();
    let all: Vec<Request> = (0..20).map(|number| request(&format!("question {number}"))).collect();
    let slots: BTreeSet<u16> = all
        .iter()
        .map(|request| {
            let key = cache.key(request.tenant(), &request.id());
            inferkit_core::keys::slot(key.as_bytes())
        })
        .collect();
    assert!(10 < slots.len(), "one tenant's entries are on all nodes");
    let early = cache.lookup(&all[0]).await.unwrap().into_hit().unwrap_err();
    cache.store(&all[0], &answer("first"), Some(early)).await.unwrap();
    let pairs: Vec<_> = all.iter().map(|request| (request.clone(), answer("yes"))).collect();
    assert!(cache.store_many(&pairs).await.unwrap().iter().all(|stored| stored.id().is_some()));
    for request in &all {
        assert!(matches!(cache.lookup(request).await.unwrap(), Lookup::Exact(_)));
    }
    let old =
        request("question 1").with_control(CacheControl::new().max_age(Duration::from_secs(60)));
    assert!(matches!(cache.lookup(&old).await.unwrap(), Lookup::Exact(_)));
    assert!(cache.forget(&all[3]).await.unwrap());
    let early = cache.lookup(&all[3]).await.unwrap().into_hit().unwrap_err();
    cache.flush(all[0].tenant()).await.unwrap();
    for request in &all {
        assert!(cache.lookup(request).await.unwrap().hit().is_none());
    }
    let stale = cache.store(&all[3], &answer("stale"), Some(early)).await.unwrap();
    assert_eq!(stale.outcome(), "flushed");
    cache.store(&all[3], &answer("fresh"), None).await.unwrap();
    let hit = cache.lookup(&all[3]).await.unwrap().into_hit().unwrap();
    assert_eq!(hit.text(), Some("fresh"));
}
