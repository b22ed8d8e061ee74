//! Single calls and batches through the pool, beside a bare `PING` of the same run.

#![expect(clippy::unwrap_used, reason = "a benchmark ends where something fails")]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use inferkit::core::{Batch, Cmd, DriverExt as _, Pool, Script};
use inferkit_benches::raw_connection;
use inferkit_localredis::{Flavor, Server, unique_prefix};

static GET: Script = Script::new("return redis.call('GET', KEYS[1])");

fn core(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = Server::start(Flavor::Plain).unwrap();
    let (pool, raw) = runtime.block_on(async {
        (Pool::connect(server.url()).await.unwrap(), raw_connection(&server).await.unwrap())
    });
    let (small, large) = (unique_prefix(), unique_prefix());
    runtime.block_on(async {
        for (key, size) in [(&small, 64), (&large, 6 * 1024)] {
            pool.query::<()>(Cmd::new("SET").key(key).arg(vec![b'v'; size])).await.unwrap();
        }
    });

    let mut group = criterion.benchmark_group("core");
    group.bench_function("ping, bare redis-rs", |bench| {
        bench.to_async(&runtime).iter(|| {
            let mut raw = raw.clone();
            async move { redis::cmd("PING").query_async::<()>(&mut raw).await.unwrap() }
        });
    });
    group.bench_function("ping", |bench| {
        bench.to_async(&runtime).iter(|| async {
            pool.query::<()>(Cmd::new("PING").readonly()).await.unwrap();
        });
    });
    for (name, key) in [("get 64 B", &small), ("get 6 KB", &large)] {
        group.bench_function(name, |bench| {
            bench.to_async(&runtime).iter(|| async {
                pool.query::<Bytes>(Cmd::new("GET").key(key).readonly()).await.unwrap()
            });
        });
    }
    group.bench_function("script", |bench| {
        bench.to_async(&runtime).iter(|| async {
            pool.query::<Bytes>(Cmd::eval(&GET, &[&small]).readonly()).await.unwrap()
        });
    });
    group.throughput(Throughput::Elements(100));
    group.bench_function("pipeline of 100 get 64 B", |bench| {
        bench.to_async(&runtime).iter(|| async {
            let mut batch = Batch::new();
            let slots: Vec<_> = (0..100)
                .map(|_| batch.push::<Bytes>(Cmd::new("GET").key(&small).readonly()))
                .collect();
            let mut answers = pool.run(batch).await.unwrap();
            for slot in slots {
                answers.take(slot).unwrap();
            }
        });
    });
    group.finish();
}

criterion_group!(benches, core);
criterion_main!(benches);
