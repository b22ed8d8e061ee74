//! Fraud scoring over three groups of features while a writer updates them, on a real Redis:
//! `cargo run -p inferkit-examples --example features`.
//!
//! It starts a server of its own, or uses `INFERKIT_REDIS_URL`, and writes under a prefix of its own.

#![expect(clippy::print_stdout, reason = "a program that prints a report")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use inferkit::core::keys::Namespace;
use inferkit::core::{Pool, PoolConfig};
use inferkit::featurestore::{
    Column, DataType, Entity, FeatureGroup, FeatureStore as _, Group, Layout, Load, Matrix,
    ModelInput, OnStale, RedisFeatureStore, Row, Value,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const USERS: i64 = 20_000;
const EMBEDDING: u16 = 32;

struct Groups {
    /// Filled from the warehouse once a day.
    profile: Group,
    /// Counted by the payments as they happen.
    realtime: Group,
    /// What a model made of the user's history.
    embedding: Group,
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let driver = Pool::connect_with(PoolConfig::single(server.url())?).await?.into_driver();
    let store = RedisFeatureStore::new(driver, Namespace::new(&unique_prefix())?);
    let groups = register(&store).await?;
    fill(&store, &groups).await?;

    // The order of the model's training, and what stands in for what is not there.
    let input = ModelInput::builder()
        .features(&groups.profile, ["account_age_days", "chargebacks", "country_risk"])
        .column(Column::feature(&groups.realtime, "payments_10m").or(0.0))
        .column(Column::feature(&groups.realtime, "amount_10m").or(0.0).on_stale(OnStale::Fill))
        .column(Column::event_age(&groups.realtime).or(86_400.0))
        .features(&groups.embedding, ["taste"])
        .build()?;
    let names = input.columns().iter().map(|column| column.name.as_str());
    println!("the model takes {} floats: {}", input.width(), names.collect::<Vec<_>>().join(", "));

    let is_over = Arc::new(AtomicBool::new(false));
    let payments = Arc::new(AtomicU64::new(0));
    let writer = tokio::spawn(pay(
        store.clone(),
        groups.realtime.clone(),
        Arc::clone(&is_over),
        Arc::clone(&payments),
    ));
    println!("\n| request | p50 ms | p99 ms | p999 ms | rows/s |\n|---|---|---|---|---|");
    for batch in [1, 10, 100] {
        score(&store, &input, batch).await?;
    }
    is_over.store(true, Ordering::Relaxed);
    writer.await??;
    println!("\n{} payments were counted meanwhile", payments.load(Ordering::Relaxed));
    freshness(&store, &groups.realtime).await
}

async fn register(store: &RedisFeatureStore) -> Result<Groups> {
    let day = Duration::from_secs(24 * 3_600);
    let profile = FeatureGroup::builder("user", "profile")
        .feature("account_age_days", DataType::F32)
        .feature_or("chargebacks", DataType::I32, 0.0)
        .feature_or("country_risk", DataType::F32, 0.5)
        .ttl(7 * day)
        .build()?;
    let realtime = FeatureGroup::builder("user", "realtime")
        .layout(Layout::Hash)
        .feature("payments_10m", DataType::I64)
        .feature("amount_10m", DataType::F64)
        .ttl(day)
        .fresh_for(Duration::from_secs(600))
        .build()?;
    let embedding = FeatureGroup::builder("user", "embedding")
        .feature("taste", DataType::Vector(EMBEDDING))
        .ttl(30 * day)
        .build()?;
    Ok(Groups {
        profile: store.register(&profile).await?,
        realtime: store.register(&realtime).await?,
        embedding: store.register(&embedding).await?,
    })
}

async fn fill(store: &RedisFeatureStore, groups: &Groups) -> Result<()> {
    let now = SystemTime::now();
    let profile = |id: i64| {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let age = (id * 37 % 3_000) as f32;
        let chargebacks = Value::from(id % 11 / 10);
        let risk = if id % 5 == 0 { Value::Null } else { Value::from(0.25_f32) };
        Row::new(id, now, [Value::from(age), chargebacks, risk])
    };
    let embedding = |id: i64| {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let taste = (0..EMBEDDING).map(|n| (id as f32 * f32::from(n)).sin()).collect::<Vec<f32>>();
        Row::new(id, now, [taste])
    };
    let start = Instant::now();
    let mut rows = 0;
    for (group, row) in [
        (&groups.profile, &profile as &(dyn Fn(i64) -> Row + Sync)),
        (&groups.embedding, &embedding),
    ] {
        let batches = (0..USERS / 2_000).map(|batch| {
            let ids = batch * 2_000..(batch + 1) * 2_000;
            Ok::<_, inferkit::featurestore::Error>(ids.map(row).collect::<Vec<Row>>())
        });
        let batches = futures_util::stream::iter(batches);
        rows += Load::default().run(store, group, batches).await?.written.applied;
    }
    println!("{rows} rows of {USERS} users were loaded in {:.2?}", start.elapsed());
    Ok(())
}

/// Payments of random users: two numbers are added to for each.
async fn pay(
    store: RedisFeatureStore,
    realtime: Group,
    is_over: Arc<AtomicBool>,
    payments: Arc<AtomicU64>,
) -> Result<()> {
    let mut id = 1_i64;
    while !is_over.load(Ordering::Relaxed) {
        id = id * 48_271 % 2_147_483_647;
        let user = Entity::new(id % USERS);
        let now = SystemTime::now();
        store.increment(&realtime, &user, "payments_10m", &Value::from(1_i64), now).await?;
        let amount = Value::from(f64::from(u8::try_from(id % 200)?) + 0.99);
        store.increment(&realtime, &user, "amount_10m", &amount, now).await?;
        payments.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Reads matrices and scores their rows; prints how long the reads took.
async fn score(store: &RedisFeatureStore, input: &ModelInput, batch: i64) -> Result<()> {
    let mut matrix = Matrix::new();
    let calls = 3_000 / batch.clamp(1, 10);
    let mut times = Vec::new();
    let mut suspicious = 0;
    let started = Instant::now();
    for call in 0..calls {
        let ids = (0..batch).map(|n| Entity::new((call * 7_919 + n * 101) % USERS));
        let users: Vec<Entity> = ids.collect();
        let start = Instant::now();
        store.read_into(input, &users, &mut matrix).await?;
        times.push(start.elapsed());
        suspicious += (0..matrix.rows()).filter(|row| 0.9 < fraud(matrix.row(*row))).count();
    }
    let elapsed = started.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |per_mille: usize| {
        let place = (times.len() * per_mille / 1_000).min(times.len() - 1);
        times.get(place).map_or(0.0, Duration::as_secs_f64) * 1e3
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = (calls * batch) as f64 / elapsed;
    let (p50, p99, p999) = (at(500), at(990), at(999));
    println!("| {batch} users | {p50:.3} | {p99:.3} | {p999:.3} | {rate:.0} |");
    if suspicious == 0 {
        println!("(nobody was suspicious)");
    }
    Ok(())
}

/// A small logistic model.
fn fraud(features: &[f32]) -> f32 {
    let [account_age, chargebacks, country_risk, payments, amount, quiet_for, taste @ ..] =
        features
    else {
        return 0.0;
    };
    let habit: f32 = taste.iter().take(4).sum();
    let sum = 2.0 * chargebacks + country_risk + 0.2 * payments + 0.004 * amount
        - 0.001 * account_age
        - 0.000_01 * quiet_for
        + 0.5 * habit;
    1.0 / (1.0 + (-sum).exp())
}

/// How soon an event can be read.
async fn freshness(store: &RedisFeatureStore, realtime: &Group) -> Result<()> {
    let input = ModelInput::builder()
        .features(realtime, ["payments_10m"])
        .column(Column::event_age(realtime))
        .build()?;
    let user = Entity::new(-1);
    let start = Instant::now();
    store
        .increment(realtime, &user, "payments_10m", &Value::from(1_i64), SystemTime::now())
        .await?;
    let mut matrix = Matrix::new();
    store.read_into(&input, std::slice::from_ref(&user), &mut matrix).await?;
    println!(
        "a payment is a feature {:.2?} after it happened: {:?}",
        start.elapsed(),
        matrix.row(0)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::fraud;

    #[test]
    fn chargebacks_are_suspicious() {
        assert!(
            fraud(&[10.0, 0.0, 0.2, 0.0, 0.0, 0.0]) < fraud(&[10.0, 2.0, 0.2, 9.0, 900.0, 0.0])
        );
        assert!(fraud(&[]).abs() < f32::EPSILON);
    }
}
