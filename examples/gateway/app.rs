//! The gateway's parts, put together: one driver for each deployment, one crate for each task.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use inferkit::chatsession::{Config as SessionConfig, Janitor, RedisSessionStore, SessionStore};
use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, Connect, Deployment, DriverExt as _, PoolConfig, Pools, Topology};
use inferkit::embcache::{CachedEmbedder, RedisEmbeddingCache};
use inferkit::featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore as _, Group, Layout, RedisFeatureStore, Value,
};
use inferkit::mlevents::{
    Consumer, ConsumerConfig, Event, EventBus as _, Failure, RedisEventBus, Topic, Trim, handler,
};
use inferkit::modelserve::{
    Experiment, ModelRouter as _, OutcomeRecorder, RedisModelRouter, RedisOutcomes, Target,
};
use inferkit::ratelimit::{Instances, RedisRateLimiter, TokenEstimator};
use inferkit::semcache::{
    Coalescer, Config as CacheConfig, Policy, RedisFlights, RedisSemanticCache,
};
use inferkit_examples::answerer::Offline;
use inferkit_examples::embedder::MiniLmEmbedder;
use inferkit_examples::minilm::MiniLm;
use inferkit_examples::prices::Price;
use inferkit_examples::{Result, model_folder};
use inferkit_localredis::{Flavor, Server};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use crate::config::{Config, Key};
use crate::limits::Limits;
use crate::live::{Live, Served};
use crate::recommend::{Places, Recommender};
use crate::upstream::Upstream;

/// Where the requests are told of.
pub(crate) const TOPIC: &str = "requests";
/// The model of the shipped answers.
const OFFLINE: &str = "offline-answers";
/// A call of Redis that takes longer counts as failed, so that the gateway goes on without.
const REDIS_TIMEOUT: Duration = Duration::from_millis(300);

/// A model that callers may name.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) upstreams: Vec<(String, Upstream)>,
    pub(crate) requests_per_minute: Option<u64>,
    pub(crate) price: Price,
    /// The experiment that chooses among several upstreams.
    pub(crate) experiment: Option<String>,
}

/// Everything that a request needs.
pub(crate) struct App {
    pub(crate) config: Config,
    pools: Pools,
    pub(crate) models: BTreeMap<String, Model>,
    keys: HashMap<[u8; 32], Key>,
    pub(crate) limits: Limits,
    pub(crate) estimator: TokenEstimator,
    pub(crate) coalescer: Coalescer,
    pub(crate) embedder: Arc<CachedEmbedder<MiniLmEmbedder>>,
    pub(crate) minilm: MiniLm,
    pub(crate) sessions: Arc<RedisSessionStore>,
    pub(crate) router: RedisModelRouter,
    pub(crate) outcomes: OutcomeRecorder,
    pub(crate) counted: Arc<RedisOutcomes>,
    pub(crate) recommender: Recommender,
    pub(crate) usage: Usage,
    pub(crate) bus: Arc<RedisEventBus>,
    pub(crate) topic: Topic,
    pub(crate) live: Live,
    pub(crate) started: Instant,
    /// The server that was started for this run; it ends with this value.
    _server: Option<Server>,
}

/// What each caller did, as features that a consumer of the events keeps.
#[derive(Clone, Debug)]
pub(crate) struct Usage {
    pub(crate) store: RedisFeatureStore,
    pub(crate) group: Group,
}

impl App {
    /// Connects, makes what is missing in Redis, and starts what works in the background.
    pub(crate) async fn start(config: Config) -> Result<Arc<Self>> {
        let started = Instant::now();
        let (topology, server) = topology(&config).await?;
        let pools = topology.pools();
        let place = |deployment| pools.get(deployment).clone();
        let driver = |deployment| place(deployment).into_driver();
        for (_, pool) in pools.places() {
            tokio::spawn(pool.clone().watch());
        }
        let namespace = Namespace::new(&config.namespace)?;

        let (minilm, offline) = tokio::task::spawn_blocking(|| -> Result<_> {
            let folder = model_folder()?;
            let model = MiniLm::load(&folder)?;
            let offline = Offline::new(model.clone(), folder.parent())?;
            Ok((model, Arc::new(offline)))
        })
        .await??;

        let embeddings = RedisEmbeddingCache::new(driver(Deployment::Caches), namespace.clone());
        let embedder = MiniLmEmbedder::new(minilm.clone());
        let embedder = Arc::new(CachedEmbedder::new(embedder, Arc::new(embeddings)));
        let policy = Policy::default()
            .with_threshold(config.cache.threshold)?
            .with_max_prompt_bytes(config.cache.max_prompt_bytes);
        let cache_config = CacheConfig::new().with_namespace(namespace.clone()).with_policy(policy);
        let shared = Arc::<CachedEmbedder<_>>::clone(&embedder);
        let cache = RedisSemanticCache::new(driver(Deployment::Caches), shared, cache_config)?;
        cache.ensure_index().await?;
        let connect: Arc<dyn Connect> = Arc::new(place(Deployment::Caches));
        let flights = RedisFlights::new(driver(Deployment::Caches), connect, namespace.clone());
        let coalescer = Coalescer::new(Arc::new(cache)).across(flights);
        tokio::spawn(coalescer.run());

        let limiter =
            RedisRateLimiter::with_namespace(driver(Deployment::Coordination), namespace.clone());
        tokio::spawn(limiter.run());
        let instances =
            Instances::counted(driver(Deployment::Coordination), &namespace, "gateway")?;
        tokio::spawn(instances.run());
        let limits = Limits::new(limiter, instances, &config);

        let session_config = SessionConfig::new().with_namespace(namespace.clone());
        let sessions =
            Arc::new(RedisSessionStore::new(driver(Deployment::Coordination), session_config)?);
        let store: Arc<dyn SessionStore> = Arc::<RedisSessionStore>::clone(&sessions);
        tokio::spawn(Janitor::new(store).run());

        let router = RedisModelRouter::new(driver(Deployment::Coordination), namespace.clone());
        let counted =
            Arc::new(RedisOutcomes::new(driver(Deployment::Coordination), namespace.clone()));
        let outcomes = OutcomeRecorder::new(Arc::<RedisOutcomes>::clone(&counted));
        let models = models(&config, &router, offline).await?;
        let places = Places {
            features: driver(Deployment::Features),
            search: driver(Deployment::Search),
            caches: driver(Deployment::Caches),
        };
        let recommender = Recommender::open(
            places,
            &namespace,
            router.clone(),
            outcomes.clone(),
            config.scorer.clone(),
        )
        .await?;
        router.refresh().await?;
        let connect: Arc<dyn Connect> = Arc::new(place(Deployment::Coordination));
        tokio::spawn(router.clone().run(connect, Duration::from_secs(5)));
        tokio::spawn(outcomes.clone().run(Duration::from_secs(1)));

        let store = RedisFeatureStore::new(driver(Deployment::Features), namespace.clone());
        let group = FeatureGroup::builder("caller", "usage")
            .features(["requests", "hits", "tokens", "saved_micros"], DataType::I64)
            .layout(Layout::Hash)
            .build()?;
        let usage = Usage { group: store.register(&group).await?, store };

        let bus = RedisEventBus::new(driver(Deployment::Events), namespace);
        let bus = Arc::new(bus.with_connect(Arc::new(place(Deployment::Events))));
        let topic = Topic::new(TOPIC)?;
        let (live, events) = Live::new();
        let keys = config
            .keys
            .iter()
            .map(|key| (Sha256::digest(&key.key.0).into(), key.clone()))
            .collect();
        let estimator = TokenEstimator::new(config.limits.expected_tokens);
        let app = Arc::new(Self {
            config,
            pools,
            models,
            keys,
            limits,
            estimator,
            coalescer,
            embedder,
            minilm,
            sessions,
            router,
            outcomes,
            counted,
            recommender,
            usage,
            bus,
            topic,
            live,
            started,
            _server: server,
        });
        tokio::spawn(publish(Arc::clone(&app), events));
        tokio::spawn(consume(Arc::clone(&app)));
        tokio::spawn(trim(Arc::clone(&app)));
        Ok(app)
    }

    /// Returns the caller whose key this is.
    pub(crate) fn caller(&self, key: &str) -> Option<&Key> {
        // Digests are compared, so that the time of a comparison tells nothing about a key.
        self.keys.get(&<[u8; 32]>::from(Sha256::digest(key)))
    }

    /// Returns which deployments answer.
    pub(crate) async fn health(&self) -> Vec<(Deployment, bool)> {
        let places = self.pools.places().map(|(deployments, pool)| async move {
            let answers = pool.query::<String>(Cmd::new("PING")).await.is_ok();
            deployments.into_iter().map(move |one| (one, answers)).collect::<Vec<_>>()
        });
        let mut health: Vec<_> = join_all(places).await.into_iter().flatten().collect();
        health.sort_unstable();
        health
    }
}

/// Where the deployments are; a server is started if no address is given.
async fn topology(config: &Config) -> Result<(Topology, Option<Server>)> {
    let place = |url: &str| -> Result<PoolConfig> {
        Ok(PoolConfig::single(url)?.with_timeout(REDIS_TIMEOUT))
    };
    let (mut topology, server) = match &config.redis.url {
        Some(url) => (Topology::single(place(&url.0)?), None),
        None => {
            let start = || Server::builder(Flavor::Redis).durable().start();
            let server = tokio::task::spawn_blocking(start).await??;
            (Topology::single(place(server.url())?), Some(server))
        }
    };
    for (name, url) in &config.redis.deployments {
        let deployment = Deployment::of_name(name).ok_or_else(|| {
            let known: Vec<_> = Deployment::ALL.iter().map(|one| one.name()).collect();
            format!("[redis] has no {name:?}: take url, {}", known.join(", "))
        })?;
        topology = topology.with(deployment, place(&url.0)?);
    }
    Ok((topology, server))
}

/// Makes the upstreams of each model, and an experiment where there are several.
async fn models(
    config: &Config,
    router: &RedisModelRouter,
    offline: Arc<Offline>,
) -> Result<BTreeMap<String, Model>> {
    let mut models = BTreeMap::new();
    for model in &config.models {
        let mut upstreams = Vec::with_capacity(model.upstreams.len());
        for upstream in &model.upstreams {
            upstreams.push((upstream.name.clone(), Upstream::new(upstream)?));
        }
        let name = format!("model.{}", model.name);
        let experiment = match &model.upstreams[..] {
            [first, others @ ..] if !others.is_empty() => {
                let target = |upstream: &str| Target::version(model.name.as_str(), upstream);
                let mut experiment =
                    Experiment::new(&*name, &*first.name, target(&first.name)).with_unit("caller");
                for other in others {
                    experiment =
                        experiment.with_arm(&*other.name, target(&other.name), other.share)?;
                }
                // One that is there may have been changed by an operator, and stays.
                if router.experiment(&name).await?.is_none() {
                    router.put_experiment(&experiment).await?;
                }
                Some(name)
            }
            _ => None,
        };
        let price = match model.prices {
            Some(dollars) => Price::per_1k(dollars)?,
            None => Price::of(&model.name, None)?,
        };
        let rate = model.requests_per_minute;
        models.insert(
            model.name.clone(),
            Model { upstreams, requests_per_minute: rate, price, experiment },
        );
    }
    if models.is_empty() {
        let upstreams = vec![("shipped".to_owned(), Upstream::Offline(offline))];
        let price = Price::of(OFFLINE, None)?;
        let model = Model { upstreams, requests_per_minute: Some(6_000), price, experiment: None };
        models.insert(OFFLINE.to_owned(), model);
    }
    Ok(models)
}

/// Publishes what happened, many at once; what cannot be published is counted.
async fn publish(app: Arc<App>, mut events: mpsc::Receiver<Served>) {
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, 256).await != 0 {
        let made: Result<Vec<Event>, _> = batch
            .iter()
            .map(|served| {
                Event::new("gateway", "request_served", served)?.about(served.caller.as_str())
            })
            .collect();
        let sent = match made {
            Ok(events) => app.bus.publish(&app.topic, &events).await.map(drop),
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            app.live.lost(batch.len());
            tracing::warn!(%error, "{} events are lost", batch.len());
        }
        batch.clear();
    }
}

/// Turns events into features of the callers.
async fn consume(app: Arc<App>) {
    let bus = Arc::<RedisEventBus>::clone(&app.bus);
    let consumer = Consumer::new(bus, app.topic.clone(), ConsumerConfig::new("usage"));
    let usage = app.usage.clone();
    let count = handler(move |delivery: inferkit::mlevents::Delivery| {
        let usage = usage.clone();
        async move {
            let event = delivery.event.map_err(Failure::reject)?;
            let served: Served = event.data().map_err(Failure::reject)?;
            let hit = matches!(&*served.outcome, "exact" | "semantic" | "shared");
            let caller = Entity::new(&*served.caller);
            let number = |value: u64| Value::from(i64::try_from(value).unwrap_or(i64::MAX));
            for (feature, by) in [
                ("requests", 1),
                ("hits", u64::from(hit)),
                ("tokens", served.tokens),
                ("saved_micros", served.saved_micros),
            ] {
                if by != 0 {
                    usage
                        .store
                        .increment(&usage.group, &caller, feature, &number(by), event.time())
                        .await?;
                }
            }
            Ok(())
        }
    });
    loop {
        if let Err(error) = consumer.run(&count, std::future::pending()).await {
            tracing::warn!(%error, "events are not read: again in a second");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Removes events that everybody has read.
async fn trim(app: Arc<App>) {
    loop {
        tokio::time::sleep(Duration::from_secs(60)).await;
        if let Err(error) = app.bus.trim(&app.topic, Trim::new().longer_than(100_000)).await {
            tracing::debug!(%error, "events are not trimmed");
        }
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("config", &self.config).finish_non_exhaustive()
    }
}
