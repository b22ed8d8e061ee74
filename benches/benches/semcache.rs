//! Lookups and stores with prepared vectors, in a cache of 2000 entries.

#![expect(clippy::unwrap_used, reason = "a benchmark ends where something fails")]

use std::sync::atomic::{AtomicUsize, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use inferkit::core::{Cmd, DriverExt as _};
use inferkit::semcache::{Answer, Request, SemanticCache as _};
use inferkit_benches::{Fixture, answer_text};

fn semcache(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let fixture = runtime.block_on(Fixture::new(2000)).unwrap();
    let turn = AtomicUsize::new(0);
    let next = |requests: &[Request]| {
        let turn = turn.fetch_add(1, Ordering::Relaxed);
        requests.get(turn % requests.len()).unwrap().clone()
    };

    let mut group = criterion.benchmark_group("semcache");
    group.bench_function("ping", |bench| {
        bench.to_async(&runtime).iter(|| async {
            fixture.driver.query::<()>(Cmd::new("PING").readonly()).await.unwrap();
        });
    });
    group.bench_function("exact hit", |bench| {
        bench
            .to_async(&runtime)
            .iter(|| async { fixture.cache.lookup(&next(&fixture.stored)).await.unwrap() });
    });
    group.bench_function("semantic hit", |bench| {
        bench
            .to_async(&runtime)
            .iter(|| async { fixture.cache.lookup(&next(&fixture.similar)).await.unwrap() });
    });
    group.bench_function("store", |bench| {
        let answer = Answer::new(answer_text(0)).unwrap().with_tokens_used(250);
        bench.to_async(&runtime).iter(|| async {
            fixture.cache.store(&next(&fixture.stored), &answer, None).await.unwrap()
        });
    });
    group.finish();
}

criterion_group!(benches, semcache);
criterion_main!(benches);
