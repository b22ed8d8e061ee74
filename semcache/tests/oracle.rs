//! Redis against memory: the same calls have the same outcomes.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{
    Lookup, MemorySemanticCache, Near, Request, SemanticCache, SemanticCacheExt as _, Tenant,
};
use proptest::prelude::*;
use support::answer;

#[derive(Clone, Debug)]
enum Call {
    Lookup(Request),
    Flush(Request),
    Remove(Request),
    Store(Request, u32),
}

fn any_request() -> impl Strategy<Value = Request> {
    let tenant = prop::sample::select(vec!["a", "A", "a,b", "a|b", "*", "\"{}\""]);
    let model = prop::sample::select(vec!["m", "M"]);
    let context = prop::option::of(prop::sample::select(vec!["", "x"]));
    // Irregular angles: no two pairs are equally far apart, and none lies at the threshold's 18.19 degrees.
    let angle = prop::sample::select(vec!["0", "3", "10", "21.3", "33", "46.1", "70"]);
    (tenant, model, context, 0..2_u8, angle, 0..2_u8).prop_map(
        |(tenant, model, context, topic, angle, word)| {
            let prompt = format!("{topic}@{angle} word{word}");
            let request = Request::new(Tenant::new(tenant).unwrap(), model, prompt).unwrap();
            match context {
                Some(context) => request.with_context(context),
                None => request,
            }
        },
    )
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => any_request().prop_map(Call::Lookup),
        1 => any_request().prop_map(Call::Remove),
        1 => any_request().prop_map(Call::Flush),
        3 => (any_request(), any::<u32>()).prop_map(|(request, number)| Call::Store(request, number)),
    ]
}

/// Compares all but which of several equally similar entries was taken.
fn compare(redis: &Lookup, memory: &Lookup) {
    assert_eq!(redis.outcome(), memory.outcome());
    match (redis, memory) {
        (Lookup::Exact(redis), Lookup::Exact(memory)) => {
            assert_eq!((redis.id, &redis.response), (memory.id, &memory.response));
            assert_eq!(redis.tokens_used, memory.tokens_used);
        }
        (Lookup::Semantic(redis), Lookup::Semantic(memory)) => {
            let apart = (redis.similarity.as_f64() - memory.similarity.as_f64()).abs();
            assert!(apart < 1e-5, "{redis:?} {memory:?}");
            let angle = |prompt: &str| prompt.split(' ').next().unwrap().to_owned();
            assert_eq!(angle(&redis.prompt), angle(&memory.prompt));
        }
        (Lookup::Near(redis), Lookup::Near(memory)) => {
            assert_eq!(redis.reason, memory.reason);
            let of = |near: &Near| near.candidate.similarity.as_f64();
            assert!((of(redis) - of(memory)).abs() < 1e-5, "{redis:?} {memory:?}");
        }
        (Lookup::Miss(redis), Lookup::Miss(memory)) => {
            assert_eq!(redis.nearest.is_some(), memory.nearest.is_some());
            if let Some((redis, memory)) = redis.nearest.zip(memory.nearest) {
                let apart = (redis.similarity.as_f64() - memory.similarity.as_f64()).abs();
                assert!(apart < 1e-5, "{redis:?} {memory:?}");
            }
        }
        _ => unreachable!("the outcomes are equal"),
    }
}

async fn run(calls: Vec<Call>) {
    let (redis, _) = support::with_driver().await;
    let memory = MemorySemanticCache::new(Arc::new(Compass::default()), policy());
    let (mut stored, mut flushed) = (BTreeSet::new(), BTreeSet::new());
    for call in calls {
        match call {
            Call::Lookup(request) => {
                let found = redis.lookup(&request).await.unwrap();
                compare(&found, &memory.lookup(&request).await.unwrap());
            }
            Call::Flush(request) => {
                redis.flush(request.tenant()).await.unwrap();
                memory.flush(request.tenant()).await.unwrap();
                flushed.append(&mut stored);
            }
            Call::Remove(request) => {
                let removed = redis.forget(&request).await.unwrap();
                // What was flushed is gone from memory, and lies unused on the server until it expires.
                let there = memory.forget(&request).await.unwrap();
                assert!(removed == there || removed && flushed.contains(&request.id()));
                flushed.remove(&request.id());
                stored.remove(&request.id());
            }
            Call::Store(request, number) => {
                let mut answer = answer(&number.to_string());
                if number % 2 == 0 {
                    answer = answer.with_tokens_used(u64::from(number));
                }
                redis.store(&request, &answer, None).await.unwrap();
                memory.store(&request, &answer, None).await.unwrap();
                stored.insert(request.id());
            }
        }
    }
    redis.index().drop_index().await.unwrap();
}

#[test]
fn redis_and_memory_agree() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    proptest!(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() }, |(calls in prop::collection::vec(any_call(), 1..60))| {
        runtime.block_on(run(calls));
    });
}
