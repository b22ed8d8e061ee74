//! Experiments, a ramp-up and a guarded rollout on a real Redis: `cargo run -p inferkit-examples --example routing`.
//!
//! It starts a server of its own, or uses `INFERKIT_REDIS_URL`, and writes under a prefix of its own.

#![expect(clippy::print_stdout, reason = "a program that prints a report")]

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::core::keys::Namespace;
use inferkit::core::{Pool, PoolConfig};
use inferkit::modelserve::{
    AliasChange, Decision, Experiment, Guard, ModelRegistry, ModelRouter, ModelRouterExt as _,
    ModelVersion, OutcomeRecorder, Outcomes, RedisModelRegistry, RedisModelRouter, RedisOutcomes,
    Rollout, Step, Subject, Target,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const USERS: u32 = 20_000;
const STAGES: [u32; 3] = [500, 2_500, 10_000];

struct Serving {
    registry: Arc<RedisModelRegistry>,
    router: Arc<RedisModelRouter>,
    outcomes: Arc<dyn Outcomes>,
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let driver = Pool::connect_with(PoolConfig::single(server.url())?).await?.into_driver();
    let namespace = Namespace::new(&unique_prefix())?;
    let serving = Serving {
        registry: Arc::new(RedisModelRegistry::new(Arc::clone(&driver), namespace.clone())),
        router: Arc::new(RedisModelRouter::new(Arc::clone(&driver), namespace.clone())),
        outcomes: Arc::new(RedisOutcomes::new(driver, namespace)),
    };
    for version in ["3.0.0", "4.0.0", "4.1.0"] {
        let endpoint = format!("http://models:8501/v1/models/rec/{version}");
        let version = ModelVersion::new("rec", version, endpoint).with_features(["profile"]);
        serving.registry.publish(&version).await?;
    }
    serving.registry.move_alias(&AliasChange::new("rec", "champion", "3.0.0")).await?;

    assignments(&serving).await?;
    rollout(&serving, "4.0.0", |decision| &*decision.arm == "canary").await?;
    rollout(&serving, "4.1.0", |_| false).await?;
    let champion = serving.registry.resolve("rec", "champion").await?;
    println!("\nchampion is {} at {}", champion.version, champion.endpoint);
    for entry in serving.registry.audit("rec", 10).await? {
        println!(
            "  {} {}: {:?} -> {:?} by {:?}",
            entry.action, entry.subject, entry.from, entry.to, entry.actor
        );
    }
    Ok(())
}

/// Who gets what while an arm grows: whoever was in it stays.
async fn assignments(serving: &Serving) -> Result<()> {
    println!("ramp-up of one arm, {USERS} users");
    println!(
        "{:>7}  {:>8}  {:>10}  {:>6}  {:>6}",
        "share", "control", "treatment", "joined", "left"
    );
    let mut experiment = Experiment::new("homepage", "control", Target::alias("rec", "champion"))
        .with_arm("treatment", Target::version("rec", "4.1.0"), 0)?;
    let mut before = vec![false; USERS as usize];
    for share in [100, 1_000, 5_000, 10_000] {
        experiment.ramp("treatment", share)?;
        serving.router.put_experiment(&experiment).await?;
        experiment = serving.router.experiment("homepage").await?.ok_or("it was just stored")?;
        serving.router.refresh().await?;
        let mut now = Vec::with_capacity(before.len());
        for user in 0..USERS {
            let decision =
                serving.router.route("homepage", &Subject::new(format!("user-{user}")))?;
            now.push(&*decision.arm == "treatment");
        }
        let count = |wanted: fn(bool, bool) -> bool| {
            before.iter().zip(&now).filter(|(before, now)| wanted(**before, **now)).count()
        };
        println!(
            "{:>6}%  {:>8}  {:>10}  {:>6}  {:>6}",
            f64::from(share) / 100.0,
            count(|_, now| !now),
            count(|_, now| now),
            count(|before, now| now && !before),
            count(|before, now| before && !now),
        );
        before = now;
    }
    let (subject, start) = (Subject::new("user-1"), Instant::now());
    for _ in 0..100_000 {
        serving.router.route("homepage", &subject)?;
    }
    println!(
        "a decision takes {:.0} ns and no round trip\n",
        start.elapsed().as_nanos() as f64 / 1e5
    );
    Ok(())
}

/// A canary that goes through its stages, or is taken back.
async fn rollout(serving: &Serving, version: &str, fails: fn(&Decision) -> bool) -> Result<()> {
    let name = format!("canary-{version}");
    let canary = Experiment::new(&*name, "control", Target::alias("rec", "champion")).with_arm(
        "canary",
        Target::version("rec", version),
        0,
    )?;
    serving.router.put_experiment(&canary).await?;
    let router: Arc<dyn ModelRouter> = Arc::<RedisModelRouter>::clone(&serving.router);
    let registry: Arc<dyn ModelRegistry> = Arc::<RedisModelRegistry>::clone(&serving.registry);
    let guard = Guard::default().with_min_calls(200).with_min_time(Duration::ZERO);
    let rollout = Rollout::new(router, Arc::clone(&serving.outcomes), &*name, "canary", &STAGES)?
        .with_guard(guard)
        .with_promotion(registry);
    println!("rollout of {version}");
    loop {
        let step = rollout.step().await?;
        println!("  {step:?}");
        if matches!(step, Step::Promoted | Step::RolledBack(_) | Step::Done) {
            return Ok(());
        }
        serving.router.refresh().await?;
        let recorder = OutcomeRecorder::new(Arc::clone(&serving.outcomes));
        let mut calls: BTreeMap<String, u32> = BTreeMap::new();
        for user in 0..USERS {
            let decision = serving.router.route(&name, &Subject::new(format!("user-{user}")))?;
            *calls.entry(decision.arm.to_string()).or_default() += 1;
            // One call in a hundred fails everywhere; those of a bad version fail every fourth time.
            let failed = user.is_multiple_of(100) || (fails(&decision) && user.is_multiple_of(4));
            recorder.record(&decision, !failed, Duration::from_millis(40));
        }
        recorder.flush().await?;
        println!("  served {calls:?}");
    }
}
