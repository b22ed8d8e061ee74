//! Whether trouble in one deployment reaches another: `cargo run --release -p inferkit-benches --bin isolation`.
//!
//! On five servers, a storm of evictions in the caches and a spike of vector searches run beside reads of features and
//! decisions of limits.
//! The report has the latency of both, calm and in the storm, and the same storm on one server for all; and it fails if a
//! feature or a limit was lost on five.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool};
use inferkit::featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore as _, Matrix, ModelInput, RedisFeatureStore, Row,
};
use inferkit::ratelimit::{
    Decision, Demand, Limit, Policy, RateLimiter as _, RedisRateLimiter, Subject, Tier, Unit,
};
use inferkit::vectorsearch::{
    Document, Filter, Knn, RedisVectorIndex, Schema, Vector, VectorField, VectorIndexExt as _,
};
use inferkit_benches::{Result, unit_vectors};
use inferkit_localredis::{Deployments, Flavor, Server};

const USERS: usize = 2_000;
const DIMENSIONS: usize = 384;
const DOCUMENTS: usize = 10_000;
const CALLS: usize = 4_000;
/// No more than this is admitted in an hour, so that a limit that was forgotten would show.
const LIMIT: u64 = 6_000;

#[tokio::main]
async fn main() -> ExitCode {
    match report().await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("isolation: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn report() -> Result<bool> {
    let five = tokio::task::spawn_blocking(|| Deployments::start_with_maxmemory("96mb")).await??;
    let url = |name: &str| -> Result<String> { Ok(five.get(name)?.url().to_owned()) };
    let urls = [url("caches")?, url("features")?, url("search")?, url("coordination")?];
    println!("five servers");
    let kept = Platform::open(urls.each_ref().map(String::as_str)).await?.run().await?;
    drop(five);
    let one = tokio::task::spawn_blocking(|| {
        Server::builder(Flavor::Redis)
            .config("maxmemory", "96mb")
            .config("maxmemory-policy", "allkeys-lfu")
            .start()
    });
    let one = one.await??;
    println!("\none server with allkeys-lfu, for comparison");
    Platform::open([one.url(); 4]).await?.run().await?;
    Ok(kept)
}

struct Platform {
    caches: DynDriver,
    features: RedisFeatureStore,
    input: ModelInput,
    search: RedisVectorIndex,
    limiter: RedisRateLimiter,
    policy: Policy,
}

impl Platform {
    async fn open([caches, features, search, coordination]: [&str; 4]) -> Result<Self> {
        let driver =
            async |url: &str| -> Result<DynDriver> { Ok(Pool::connect(url).await?.into_driver()) };
        let features = RedisFeatureStore::new(driver(features).await?, Namespace::default());
        let names: Vec<String> = (0..50).map(|number| format!("f{number}")).collect();
        let group = FeatureGroup::builder("user", "profile").features(names, DataType::F32);
        let group = features.register(&group.build()?).await?;
        let now = SystemTime::now();
        let rows: Vec<Row> = (0..USERS)
            .map(|user| Row::new(format!("u-{user}"), now, (0..50).map(|x| x as f32 + 1.0)))
            .collect();
        features.write(&group, &rows).await?;
        let input = ModelInput::builder().all(&group).build()?;
        let field = VectorField::flat("v", DIMENSIONS);
        let schema = Schema::builder("documents", "document:", field).build()?;
        let search = RedisVectorIndex::new(driver(search).await?, schema);
        search.ensure_index().await?;
        let documents = unit_vectors(DOCUMENTS, DIMENSIONS).into_iter().enumerate();
        let mut made = Vec::with_capacity(DOCUMENTS);
        for (number, vector) in documents {
            made.push(Document::new(format!("{number}")).with("v", Vector::new(vector)?));
        }
        search.load(made, |_| {}).await?;
        let limiter = RedisRateLimiter::new(driver(coordination).await?);
        let hour = Limit::fixed_window(LIMIT, Duration::from_secs(3600), Unit::Requests)?;
        let policy =
            Policy::new("api")?.with_tier(Tier::new("hour", Subject::api_key("a")?, hour)?)?;
        Ok(Self { caches: driver(caches).await?, features, input, search, limiter, policy })
    }

    /// Measures calm, then in the storm; returns whether nothing was lost.
    async fn run(self) -> Result<bool> {
        let mut admitted = 0;
        let calm = self.measure(&mut admitted).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let (evicted, searches) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let storm = self.storm(&stop, &evicted);
        let spike = self.spike(&stop, &searches)?;
        // Until the caches are full.
        let begun = Instant::now();
        while evicted.load(Ordering::Relaxed) == 0 && begun.elapsed() < Duration::from_secs(60) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let stormy = self.measure(&mut admitted).await?;
        stop.store(true, Ordering::Relaxed);
        storm.await?;
        for task in spike {
            task.await?;
        }
        println!(
            "  storm: {} keys evicted, {} searches over {DOCUMENTS} vectors",
            evicted.load(Ordering::Relaxed),
            searches.load(Ordering::Relaxed)
        );
        println!("  {:<20} {:>9} {:>9} {:>7}", "", "calm", "storm", "ratio");
        for (name, calm, stormy) in [
            ("features p50 (us)", calm.features[0], stormy.features[0]),
            ("features p99 (us)", calm.features[1], stormy.features[1]),
            ("limits p50 (us)", calm.limits[0], stormy.limits[0]),
            ("limits p99 (us)", calm.limits[1], stormy.limits[1]),
        ] {
            println!("  {name:<20} {calm:>9.0} {stormy:>9.0} {:>7.2}", stormy / calm);
        }
        let lost = calm.missing + stormy.missing;
        // Twice as many calls as the limit: exactly the limit passes, unless it was forgotten.
        let asked = 2 * CALLS as u64;
        let expected = LIMIT.min(asked);
        println!(
            "  features lost: {lost} of {asked} reads; admitted {admitted} of {asked}, {expected} expected"
        );
        Ok(lost == 0 && admitted == expected)
    }

    async fn measure(&self, admitted: &mut u64) -> Result<Measured> {
        let (mut features, mut limits) = (Vec::new(), Vec::new());
        let (mut missing, mut matrix) = (0, Matrix::new());
        for call in 0..CALLS {
            let user = Entity::new(format!("u-{}", call * 7919 % USERS));
            let start = Instant::now();
            self.features.read_into(&self.input, &[user], &mut matrix).await?;
            features.push(start.elapsed().as_secs_f64() * 1e6);
            missing += u64::from(matrix.row(0).iter().any(|value| value.is_nan()));
            let demand = Demand::new().with(Unit::Requests, 1);
            let start = Instant::now();
            let decision = self.limiter.acquire(&self.policy, &demand).await?;
            limits.push(start.elapsed().as_secs_f64() * 1e6);
            *admitted += u64::from(matches!(decision, Decision::Admitted(_)));
        }
        Ok(Measured { features: quantiles(features), limits: quantiles(limits), missing })
    }

    /// Writes to the caches until they evict, and goes on.
    fn storm(
        &self,
        stop: &Arc<AtomicBool>,
        evicted: &Arc<AtomicU64>,
    ) -> tokio::task::JoinHandle<()> {
        let (driver, stop) = (Arc::clone(&self.caches), Arc::clone(stop));
        let evicted = Arc::clone(evicted);
        tokio::spawn(async move {
            let value = bytes::Bytes::from(vec![b'x'; 8_192]);
            let mut number = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let mut batch = inferkit::core::Batch::new();
                for _ in 0..64 {
                    number += 1;
                    let cmd = Cmd::new("SET").key(format!("cache:{number}")).arg(value.clone());
                    batch.push::<inferkit::core::Reply>(cmd);
                }
                // A full server that refuses is part of the storm.
                let _ = driver.run(batch).await;
                if number.is_multiple_of(4096)
                    && let Ok(info) = driver.query::<String>(Cmd::new("INFO").arg("stats")).await
                    && let Some(count) =
                        info.lines().find_map(|line| line.strip_prefix("evicted_keys:"))
                {
                    evicted.store(count.trim().parse().unwrap_or(0), Ordering::Relaxed);
                }
            }
        })
    }

    fn spike(
        &self,
        stop: &Arc<AtomicBool>,
        searches: &Arc<AtomicU64>,
    ) -> Result<Vec<tokio::task::JoinHandle<()>>> {
        let mut tasks = Vec::new();
        for vector in unit_vectors(4, DIMENSIONS) {
            let knn = Knn::new("v", Vector::new(vector)?, 10, Filter::all())?;
            let (index, stop) = (self.search.clone(), Arc::clone(stop));
            let searches = Arc::clone(searches);
            tasks.push(tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    if index.knn(&knn).await.is_ok() {
                        searches.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }));
        }
        Ok(tasks)
    }
}

struct Measured {
    /// The median and the 99th percentile, in microseconds.
    features: [f64; 2],
    limits: [f64; 2],
    /// Reads in which a feature was not there.
    missing: u64,
}

fn quantiles(mut times: Vec<f64>) -> [f64; 2] {
    times.sort_by(f64::total_cmp);
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or(0.0);
    [at(50), at(99)]
}
