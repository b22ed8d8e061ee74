//! What entries take in a server's memory, for sizing: `cargo run --release -p inferkit-benches --bin sizes`.
//!
//! Each line writes entries to an empty server and divides what its used memory grew by.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program that prints a report")]
#![expect(clippy::cast_precision_loss, reason = "a report")]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use inferkit::chatsession::{
    Append, Config as SessionConfig, Message, NewSession, RedisSessionStore, SessionId,
    SessionStore as _, UserId,
};
use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool};
use inferkit::embcache::{
    CachedEmbedder, Embedder, RedisEmbeddingCache, Result as EmbeddingResult,
};
use inferkit::featurestore::{
    DataType, FeatureGroup, FeatureStore as _, Layout, RedisFeatureStore, Row,
};
use inferkit::mlevents::{Event, EventBus as _, RedisEventBus, Topic};
use inferkit::modelserve::{Question, RedisResultCache, ResultCache as _, Ttl};
use inferkit::ratelimit::{
    Demand, Limit, Plan, Policy, RateLimiter as _, RedisRateLimiter, Subject, Tier, Unit,
};
use inferkit::semcache::{
    Answer, Config as CacheConfig, Policy as CachePolicy, RedisSemanticCache, Request,
    SemanticCache as _, Tenant,
};
use inferkit_benches::{Result, unit_vectors};
use inferkit_localredis::{Flavor, Server};

const ENTRIES: usize = 2_000;
const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::main]
async fn main() -> ExitCode {
    match report().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sizes: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn report() -> Result<()> {
    println!("{:<62} {:>8}", "entry", "bytes");
    for dimensions in [384, 1536] {
        let (driver, _server) = server().await?;
        let config = CacheConfig::new().with_policy(CachePolicy::default().without_verification());
        let embedder = Arc::new(Vectors(dimensions));
        let cache = RedisSemanticCache::new(Arc::clone(&driver), embedder, config)?;
        cache.ensure_index().await?;
        let mut answers = Vec::with_capacity(ENTRIES);
        for number in 0..ENTRIES {
            let prompt = format!("What does the number {number:>6} mean in this long old story?");
            let request = Request::new(Tenant::shared(), "gpt-4o-mini", &*prompt)?;
            answers.push((request, Answer::new(vec![b'x'; 500])?.with_usage(20, 100)));
        }
        let what =
            format!("cached answer of 500 B, prompt of 60 B, {dimensions} dimensions, index");
        let bytes = grown(&driver, async || {
            cache.store_many(&answers).await?;
            Ok(())
        });
        line(&what, bytes.await?);

        let (driver, _server) = server().await?;
        let embeddings = RedisEmbeddingCache::new(Arc::clone(&driver), Namespace::default());
        let embedder = CachedEmbedder::new(Vectors(dimensions), Arc::new(embeddings));
        let texts: Vec<String> = (0..ENTRIES).map(|number| format!("text {number}")).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let bytes = grown(&driver, async || {
            embedder.embed_many(&texts).await?;
            Ok(())
        });
        line(&format!("embedding of {dimensions} dimensions"), bytes.await?);
    }
    features().await?;
    sessions().await?;
    limits().await?;
    results().await?;
    events().await
}

async fn features() -> Result<()> {
    for layout in [Layout::Packed, Layout::Hash] {
        let (driver, _server) = server().await?;
        let store = RedisFeatureStore::new(Arc::clone(&driver), Namespace::default());
        let names: Vec<String> = (0..50).map(|number| format!("feature_{number}")).collect();
        let group = FeatureGroup::builder("user", "profile").features(names, DataType::F32);
        let group = store.register(&group.layout(layout).ttl(DAY).build()?).await?;
        let now = SystemTime::now();
        let values = |user: usize| (0..50).map(move |number| (user * 50 + number) as f32 / 7.0);
        let rows: Vec<Row> =
            (0..ENTRIES).map(|user| Row::new(format!("u-{user}"), now, values(user))).collect();
        let bytes = grown(&driver, async || {
            store.write(&group, &rows).await?;
            Ok(())
        });
        line(&format!("50 float features, {layout:?} layout"), bytes.await?);
    }
    Ok(())
}

async fn sessions() -> Result<()> {
    for messages in [2, 20] {
        let (driver, _server) = server().await?;
        let store = RedisSessionStore::new(Arc::clone(&driver), SessionConfig::new())?;
        let bytes = grown(&driver, async || {
            for number in 0..ENTRIES / 10 {
                let id = SessionId::new(format!("session-{number}"))?;
                let user = UserId::new(format!("user-{number}"))?;
                store.create(&NewSession::new(id.clone(), user)).await?;
                let said = (0..messages).map(|_| Message::user("x".repeat(400)));
                let _ids = store.append(&id, &Append::new(said)).await?;
            }
            Ok(())
        });
        let what = format!("session of {messages} messages of 400 B, with its user's index");
        line(&what, bytes.await? * 10.0);
    }
    Ok(())
}

async fn limits() -> Result<()> {
    let (driver, _server) = server().await?;
    let limiter = RedisRateLimiter::new(Arc::clone(&driver));
    let bytes = grown(&driver, async || {
        for number in 0..ENTRIES {
            let policy = Plan::PRO.limit(Policy::new("api")?, &format!("key-{number}"))?;
            let hour = Limit::new(1_000_000, Duration::from_secs(3600), Unit::NanoDollars)?;
            let subject = Subject::api_key(&format!("key-{number}"))?;
            let policy = policy.with_tier(Tier::new("dollars", subject, hour)?)?;
            let demand = Demand::new().with(Unit::Requests, 1).with_tokens(50_000);
            limiter.acquire(&policy, &demand.with(Unit::NanoDollars, 500_000)).await?;
        }
        Ok(())
    });
    line("limits of a key: requests, tokens and dollars", bytes.await?);
    let (driver, _server) = server().await?;
    let limiter = RedisRateLimiter::new(Arc::clone(&driver));
    let slots = Tier::new("gpu", Subject::global(), Limit::slots(ENTRIES as u64)?)?;
    let policy = Policy::new("api")?.with_tier(slots)?;
    let mut permits = Vec::with_capacity(ENTRIES);
    let bytes = grown(&driver, async || {
        for _ in 0..ENTRIES {
            permits.push(limiter.acquire(&policy, &Demand::new()).await?);
        }
        Ok(())
    });
    line("GPU slot that is held", bytes.await?);
    Ok(())
}

async fn results() -> Result<()> {
    let (driver, _server) = server().await?;
    let cache = RedisResultCache::new(Arc::clone(&driver), Namespace::default());
    let result = bytes::Bytes::from(vec![b'x'; 500]);
    let bytes = grown(&driver, async || {
        for number in 0..ENTRIES {
            let question = Question::new(format!("user-{number}"), "home")?;
            cache.put(&question.place(), Some(&result), Ttl::EXACT).await?;
        }
        Ok(())
    });
    line("result of 500 B", bytes.await?);
    Ok(())
}

async fn events() -> Result<()> {
    let (driver, _server) = server().await?;
    let bus = RedisEventBus::new(Arc::clone(&driver), Namespace::default());
    let topic = Topic::new("training")?;
    let data = "x".repeat(168);
    let mut events = Vec::with_capacity(ENTRIES);
    for _ in 0..ENTRIES {
        events.push(Event::new("trainer/7", "epoch_complete", &data)?.about("ranker")?);
    }
    let bytes = grown(&driver, async || {
        bus.publish(&topic, &events).await?;
        Ok(())
    });
    line("event with 170 B of data", bytes.await?);
    Ok(())
}

fn line(what: &str, bytes: f64) {
    println!("{what:<62} {bytes:>8.0}");
}

async fn server() -> Result<(DynDriver, Server)> {
    let server = tokio::task::spawn_blocking(|| Server::builder(Flavor::Redis).start()).await??;
    Ok((Pool::connect(server.url()).await?.into_driver(), server))
}

/// What each of the entries takes that `write` writes.
async fn grown(driver: &DynDriver, write: impl AsyncFnOnce() -> Result<()>) -> Result<f64> {
    let before = used(driver).await?;
    write().await?;
    Ok((used(driver).await? - before) / ENTRIES as f64)
}

async fn used(driver: &DynDriver) -> Result<f64> {
    let info: String = driver.query(Cmd::new("INFO").arg("memory")).await?;
    let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
    Ok(line.ok_or("INFO has no used_memory")?.trim().parse()?)
}

/// Vectors as a model makes them: of unit length, and another for each text.
#[derive(Debug)]
struct Vectors(usize);

#[async_trait]
impl Embedder for Vectors {
    fn model(&self) -> &'static str {
        "vectors"
    }

    fn dimensions(&self) -> usize {
        self.0
    }

    async fn embed_many(&self, texts: &[&str]) -> EmbeddingResult<Vec<Vec<f32>>> {
        Ok(unit_vectors(texts.len(), self.0))
    }
}
