//! No entry is ever seen by another tenant, whatever tenants and prompts are called.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;

use inferkit_localredis::Flavor;
use inferkit_semcache::{RedisSemanticCache, Selection, SemanticCache, Tenant};
use proptest::prelude::*;
use support::{answer, of};

/// Pieces of which names and prompts are made: syntax of queries, patterns and protocols, and letters that look alike.
const PIECES: &[&str] = &[
    "a", "A", "b", " ", ",", "|", "\"", "'", "{", "}", "(", ")", "[", "]", "*", "?", "\\", "@",
    ":", "$", "%", "-", "=>", "\n", "\r\n", "\0", "\u{1f}", "é", "e\u{301}", "Ａ", "ı", "日本",
    "🙂", "scope:", "epoch", "shared", "..", "/",
];

fn hostile() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(PIECES), 1..6)
        .prop_map(|pieces| pieces.concat())
        .prop_filter("a tenant has a name", |text| !text.trim().is_empty())
}

async fn check(cache: &RedisSemanticCache, names: Vec<String>, words: &str) {
    let mut names = names;
    names.sort();
    names.dedup();
    let (last, owners) = names.split_last().unwrap();
    let stranger = Tenant::new(last).unwrap();
    // An earlier case may have flushed this tenant: what is flushed is gone, but takes memory until it expires.
    cache.invalidate(&Selection::of_tenant(&stranger)).await.unwrap();
    // The same topic for all: only the tenant tells them apart.
    let stored = format!("1@0 {words}");
    let mut owned = BTreeMap::new();
    for (number, name) in owners.iter().enumerate() {
        let own = format!("{number} {words}");
        cache.store(&of(name, &stored), &answer(&own), None).await.unwrap();
        owned.insert(name, own);
    }
    for prompt in [stored.clone(), format!("1@2 {words}")] {
        for (name, own) in &owned {
            let hit = cache.lookup(&of(name, &prompt)).await.unwrap().into_hit().unwrap();
            assert_eq!(
                (hit.text(), &*hit.prompt),
                (Some(own.as_str()), stored.as_str()),
                "{name:?}"
            );
        }
        let lookup = cache.lookup(&of(last, &prompt)).await.unwrap();
        assert!(lookup.miss().is_some_and(|miss| miss.nearest.is_none()), "{last:?} {lookup:?}");
    }
    // Nor does anybody remove what is another's.
    for name in owned.keys() {
        assert!(!cache.remove(&stranger, &of(name, &stored).id()).await.unwrap());
    }
    assert_eq!(cache.invalidate(&Selection::of_tenant(&stranger)).await.unwrap(), 0);
    cache.flush(&stranger).await.unwrap();
    for name in owned.keys() {
        assert!(cache.lookup(&of(name, &stored)).await.unwrap().hit().is_some(), "{name:?}");
        cache.flush(&Tenant::new(name).unwrap()).await.unwrap();
    }
}

fn run(flavor: Flavor) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let cache = runtime.block_on(support::on_pool(flavor));
    let cases = (prop::collection::vec(hostile(), 2..7), hostile());
    proptest!(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() }, |((names, words) in cases)| {
        runtime.block_on(check(&cache, names, &words));
    });
}

#[test]
fn on_redis() {
    run(Flavor::Redis);
}

#[test]
fn on_valkey() {
    run(Flavor::Valkey);
}
