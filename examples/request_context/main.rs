//! What a request needs before it is answered, in one round trip for each deployment, side by side:
//! `cargo run -p inferkit-examples --example request_context`.
//!
//! Three deployments hold it: features; limits; and caches, with embeddings and results. Experiments and flags are decided
//! from a snapshot, without any round trip. It starts servers of its own, and counts what goes to them.

#![expect(clippy::print_stdout, reason = "a program that prints a report")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use inferkit::core::keys::Namespace;
use inferkit::core::{Batch, Cmd, Driver, DriverExt as _, DynDriver, Pool, Reply};
use inferkit::embcache::{
    CachedEmbedder, Embedder, EmbedderExt as _, RedisEmbeddingCache, Result as EmbResult,
};
use inferkit::featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore as _, Matrix, ModelInput, RedisFeatureStore, Row,
};
use inferkit::modelserve::{
    Experiment, Flag, ModelRouter as _, ModelRouterExt as _, Question, RedisModelRouter,
    RedisResultCache, ResultCache as _, Subject, Target, Tiers, Ttl,
};
use inferkit::ratelimit::{
    Demand, Limit, Policy, RateLimiter as _, RedisRateLimiter, Report, Subject as Limited, Tier,
    Unit,
};
use inferkit_localredis::{Flavor, Server};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

/// Counts the round trips of a deployment.
#[derive(Debug)]
struct Counted {
    driver: DynDriver,
    round_trips: Arc<AtomicUsize>,
}

#[async_trait]
impl Driver for Counted {
    async fn call(&self, cmd: Cmd) -> inferkit::core::Result<Reply> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.driver.call(cmd).await
    }

    async fn pipeline(
        &self,
        batch: Batch,
    ) -> inferkit::core::Result<Vec<inferkit::core::Result<Reply>>> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.driver.pipeline(batch).await
    }
}

/// A stand-in for a model: letters counted.
#[derive(Debug)]
struct Letters;

#[async_trait]
impl Embedder for Letters {
    fn model(&self) -> &'static str {
        "letters"
    }

    fn dimensions(&self) -> usize {
        26
    }

    async fn embed_many(&self, texts: &[&str]) -> EmbResult<Vec<Vec<f32>>> {
        let count = |text: &&str| {
            let mut counts = vec![0.01_f32; 26];
            for letter in text.bytes().map(|byte| byte.to_ascii_lowercase()) {
                let place = usize::from(letter.wrapping_sub(b'a'));
                if let Some(count) = counts.get_mut(place) {
                    *count += 1.0;
                }
            }
            counts
        };
        Ok(texts.iter().map(count).collect())
    }
}

/// One Redis of the deployment.
struct Deployment {
    driver: DynDriver,
    round_trips: Arc<AtomicUsize>,
    _server: Server,
}

impl Deployment {
    async fn start() -> Result<Self> {
        let server =
            tokio::task::spawn_blocking(|| Server::builder(Flavor::Plain).start()).await??;
        let driver = Pool::connect(server.url()).await?.into_driver();
        let round_trips = Arc::new(AtomicUsize::new(0));
        let driver: DynDriver = Arc::new(Counted { driver, round_trips: Arc::clone(&round_trips) });
        Ok(Self { driver, round_trips, _server: server })
    }

    fn take(&self) -> usize {
        self.round_trips.swap(0, Ordering::Relaxed)
    }
}

struct Service {
    features: Deployment,
    limits: Deployment,
    caches: Deployment,
    store: RedisFeatureStore,
    input: ModelInput,
    limiter: RedisRateLimiter,
    embedder: CachedEmbedder<Letters>,
    results: RedisResultCache,
    router: RedisModelRouter,
}

/// What was read for a request.
struct Context {
    matrix: Matrix,
    limits: Report,
    embedding: Option<Vec<f32>>,
    results: Tiers,
    arm: String,
    wants_reasons: bool,
}

impl Service {
    async fn start() -> Result<Self> {
        let (features, limits, caches) =
            (Deployment::start().await?, Deployment::start().await?, Deployment::start().await?);
        let none = Namespace::default();
        let store = RedisFeatureStore::new(Arc::clone(&features.driver), none.clone());
        let profile = FeatureGroup::builder("user", "profile").feature("age", DataType::F32);
        let profile = store.register(&profile.build()?).await?;
        let item = FeatureGroup::builder("item", "stats").feature("price", DataType::F32);
        let item = store.register(&item.build()?).await?;
        let now = SystemTime::now();
        store.write(&profile, &[Row::new("u-1", now, [31.0_f32])]).await?;
        store.write(&item, &[Row::new("i-7", now, [9.5_f32])]).await?;
        let input = ModelInput::builder().all(&profile).all(&item).build()?;
        let cache = RedisEmbeddingCache::new(Arc::clone(&caches.driver), none.clone());
        let embedder = CachedEmbedder::new(Letters, Arc::new(cache));
        let router = RedisModelRouter::new(Arc::clone(&limits.driver), none.clone());
        let experiment = Experiment::new("ranker", "control", Target::version("ranker", "3"));
        router
            .put_experiment(&experiment.with_arm(
                "canary",
                Target::version("ranker", "4"),
                1_000,
            )?)
            .await?;
        router.put_flag(&Flag::boolean("reasons")).await?;
        router.refresh().await?;
        let results = RedisResultCache::new(Arc::clone(&caches.driver), none);
        let limiter = RedisRateLimiter::new(Arc::clone(&limits.driver));
        Ok(Self { features, limits, caches, store, input, limiter, embedder, results, router })
    }

    fn policy() -> Result<Policy> {
        let limit = Limit::new(60, Duration::from_secs(60), Unit::Requests)?;
        Ok(Policy::new("api")?.with_tier(Tier::new("requests", Limited::user("u-1")?, limit)?)?)
    }

    /// One pipeline to each deployment, all at once.
    async fn context(&self, query: &str) -> Result<Context> {
        let question = Question::new("u-1", "home")?;
        let (policy, demand) = (Self::policy()?, Demand::new().with(Unit::Requests, 1));

        let mut features = Batch::new();
        let row = self.store.push(
            &mut features,
            &self.input,
            &[Entity::new("u-1"), Entity::new("i-7")],
        )?;
        let mut limits = Batch::new();
        let state = self.limiter.push_peek(&mut limits, &policy, &demand)?;
        let mut caches = Batch::new();
        let tiers = self.results.push(&mut caches, &question);
        let vector = self.embedder.cached_read(query).map(|cmd| caches.push(cmd));

        let (features, limits, caches) = tokio::join!(
            self.features.driver.run(features),
            self.limits.driver.run(limits),
            self.caches.driver.run(caches),
        );
        let (mut features, mut limits, mut caches) = (features?, limits?, caches?);

        let mut matrix = Matrix::new();
        self.store.take(&mut features, row, &self.input, &mut matrix)?;
        let limits = self.limiter.take_peek(&mut limits, state, &policy, &demand)?;
        let results = self.results.take(&mut caches, tiers)?;
        let stored = vector.map(|slot| caches.take(slot)).transpose()?.flatten();
        let embedding = self.embedder.cached_vector(query, stored)?;

        // No round trip: the snapshot is here.
        let user = Subject::new("u-1");
        let arm = self.router.route("ranker", &user)?.arm.to_string();
        let wants_reasons = self.router.flag("reasons", &user)?.value.as_bool().unwrap_or(false);
        Ok(Context { matrix, limits, embedding, results, arm, wants_reasons })
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let service = Service::start().await?;
    let query = "red shoes";
    service.embedder.embed(query).await?;
    let question = Question::new("u-1", "home")?;
    let kept = bytes::Bytes::from_static(b"[\"i-7\"]");
    service.results.put(&question.place(), Some(&kept), Ttl::EXACT).await?;
    service.limiter.acquire(&Service::policy()?, &Demand::new().with(Unit::Requests, 1)).await?;
    // The server learns the script of the limits from the first call.
    service.context(query).await?;
    for deployment in [&service.features, &service.limits, &service.caches] {
        deployment.take();
    }
    let start = Instant::now();
    let context = service.context(query).await?;
    let elapsed = start.elapsed();
    println!("features    {:?}", context.matrix.values());
    println!("limits      {:?}", context.limits);
    println!("embedding   {} floats", context.embedding.as_ref().map_or(0, Vec::len));
    println!("results     {:?}", context.results.exact.as_ref().map(|kept| &kept.result));
    println!("experiment  arm {}, reasons {}", context.arm, context.wants_reasons);
    let round_trips = [&service.features, &service.limits, &service.caches].map(Deployment::take);
    println!("\n{elapsed:.2?}, round trips to features, limits and caches: {round_trips:?}");
    let mut times = Vec::new();
    for _ in 0..1_000 {
        let start = Instant::now();
        service.context(query).await?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    let median = times.get(500).copied().unwrap_or(Duration::ZERO);
    println!("median of 1000 requests: {median:.2?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_request_costs_one_round_trip_for_each_deployment() {
        let service = Service::start().await.unwrap();
        let query = "red shoes";
        let cold = service.context(query).await.unwrap();
        assert!(cold.embedding.is_none() && cold.results.exact.is_none());
        let embedding = service.embedder.embed(query).await.unwrap();
        let question = Question::new("u-1", "home").unwrap();
        let kept = bytes::Bytes::from_static(b"x");
        service.results.put(&question.place(), Some(&kept), Ttl::EXACT).await.unwrap();
        let deployments = [&service.features, &service.limits, &service.caches];
        assert_eq!(deployments.map(Deployment::take).len(), 3);
        let context = service.context(query).await.unwrap();
        assert_eq!(deployments.map(Deployment::take), [1, 1, 1]);
        assert_eq!(context.matrix.values(), [31.0, 9.5]);
        assert_eq!(context.embedding, Some(embedding));
        assert_eq!(context.results.exact.unwrap().result, Some(kept));
        assert!(["control", "canary"].contains(&context.arm.as_str()));
    }
}
