use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, DriverExt as _, Pool, PoolConfig};
use inferkit::modelserve::{
    Experiment, MemoryModelRouter, ModelRouter as _, Place, Question, RedisResultCache,
    ResultCache as _, Subject, Target, Ttl,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::{Better, Effort, Line, Promise, Result, median_micros, raw_connection};

const USERS: usize = 1_000;

/// Results in tiers, read in one round trip, beside the bare reads of the same values; and decisions without any.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    Ok(vec![tiered_read(effort).await?, route(effort).await?])
}

async fn tiered_read(effort: Effort) -> Result<Line> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let driver = pool.into_driver();
    let raw = raw_connection(&server).await?;
    let prefix = unique_prefix();
    let cache = RedisResultCache::new(Arc::clone(&driver), Namespace::new(&prefix)?);
    let result = Bytes::from(vec![b'x'; 1_000]);
    let mut questions = Vec::with_capacity(USERS);
    for user in 0..USERS {
        let user = format!("user-{user}");
        let question = Question::new(user.as_str(), "home")?.or_popular("books", 20)?;
        cache.put(&question.place(), Some(&result), Ttl::PRECOMPUTED).await?;
        cache.put(&Place::Precomputed { user: &user }, Some(&result), Ttl::PRECOMPUTED).await?;
        questions.push(question);
    }
    let items: Vec<(String, f64)> = (0..100).map(|n| (format!("item-{n}"), f64::from(n))).collect();
    cache.put_popular("books", &items, Duration::from_secs(3_600)).await?;
    let mut keys = Vec::with_capacity(USERS);
    for user in 0..USERS {
        let of = |last: &str| format!("{prefix}:rec:user:{{user-{user}}}:{last}");
        keys.push([
            of("context:home"),
            of("precomputed"),
            format!("{prefix}:rec:popular:{{books}}"),
        ]);
    }
    // The keys are those that the cache reads.
    for key in keys.first().into_iter().flatten() {
        if !driver.query::<bool>(Cmd::new("EXISTS").key(key)).await? {
            return Err(format!("there is no key {key}").into());
        }
    }
    let calls = 4_000 / effort.divisor;
    Promise::at_most("modelserve", "tiered_read", 1.10, "us")
        .measure(
            effort,
            async || {
                let mut times = Vec::with_capacity(calls);
                for question in questions.iter().cycle().take(calls) {
                    let start = Instant::now();
                    let tiers = cache.read(question).await?;
                    times.push(start.elapsed().as_secs_f64());
                    if tiers.exact.is_none()
                        || tiers.precomputed.is_none()
                        || tiers.popular.len() != 20
                    {
                        return Err("a tier is empty".into());
                    }
                }
                Ok(median_micros(times))
            },
            async || bare(&raw, &keys, calls).await,
        )
        .await
}

async fn bare(raw: &MultiplexedConnection, keys: &[[String; 3]], calls: usize) -> Result<f64> {
    let mut raw = raw.clone();
    let mut times = Vec::with_capacity(calls);
    for [exact, precomputed, popular] in keys.iter().cycle().take(calls) {
        let start = Instant::now();
        let mut pipeline = redis::pipe();
        pipeline.get(exact).get(precomputed).zrevrange(popular, 0, 19);
        let (a, b, items): (Option<Vec<u8>>, Option<Vec<u8>>, Vec<String>) =
            pipeline.query_async(&mut raw).await?;
        times.push(start.elapsed().as_secs_f64());
        if a.is_none() || b.is_none() || items.len() != 20 {
            return Err("a tier is empty".into());
        }
    }
    Ok(median_micros(times))
}

/// Million decisions a second on one core, beside one.
async fn route(effort: Effort) -> Result<Line> {
    let router = MemoryModelRouter::new();
    let experiment = Experiment::new("rec-canary", "control", Target::version("rec", "3"))
        .with_arm("canary", Target::version("rec", "4"), 1_000)?
        .with_eligible(5_000);
    router.put_experiment(&experiment).await?;
    let snapshot = router.refresh().await?;
    let subjects: Vec<Subject> = (0..10_000).map(|n| Subject::new(format!("user-{n}"))).collect();
    let calls = 2_000_000 / effort.divisor;
    Promise { better: Better::Higher, ..Promise::at_least("modelserve", "route_mps", 1.0, "M/s") }
        .measure(
            effort,
            async || {
                let start = Instant::now();
                let mut assigned = 0_u64;
                for subject in subjects.iter().cycle().take(calls) {
                    assigned += u64::from(snapshot.route("rec-canary", subject)?.is_assigned());
                }
                if assigned == 0 {
                    return Err("nobody was assigned".into());
                }
                #[expect(clippy::cast_precision_loss, reason = "a rate")]
                Ok(calls as f64 / start.elapsed().as_secs_f64() / 1e6)
            },
            async || Ok(1.0),
        )
        .await
}
