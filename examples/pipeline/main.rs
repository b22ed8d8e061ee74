//! A training pipeline over one topic: trainer, evaluator, deployer and monitor as four services, one of which crashes;
//! and a bridge that turns events into features: `cargo run -p inferkit-examples --example pipeline`.
//!
//! It starts a server of its own, or uses `INFERKIT_REDIS_URL`, and writes under a prefix of its own.

#![expect(clippy::print_stdout, reason = "a program that prints a report")]

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use inferkit::core::keys::Namespace;
use inferkit::core::{Pool, PoolConfig};
use inferkit::featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore as _, FeatureStoreExt as _, Group,
    RedisFeatureStore, Row, Value,
};
use inferkit::mlevents::{
    Consumer, ConsumerConfig, Event, EventBus, Failure, RedisEventBus, Topic, Trim, handler,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use serde::{Deserialize, Serialize};

type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

const EPOCHS: u32 = 5;

#[derive(Debug, Deserialize, Serialize)]
enum Training {
    #[serde(rename = "dataset_ready")]
    Dataset { rows: u64 },
    #[serde(rename = "training_start")]
    Started { epochs: u32 },
    #[serde(rename = "epoch_complete")]
    Epoch { epoch: u32, loss: f64 },
    #[serde(rename = "model_evaluated")]
    Evaluated { epoch: u32, accuracy: f64 },
    #[serde(rename = "deploy_start")]
    Deploy { version: String },
}

struct Services {
    bus: Arc<dyn EventBus>,
    topic: Topic,
}

impl Services {
    fn consumer(&self, group: &str) -> Consumer {
        let config = ConsumerConfig::new(group)
            .look_every(Duration::from_millis(50))
            .claim_after(Duration::from_millis(500))
            .backoff(Duration::from_millis(100), Duration::from_secs(1))
            .max_attempts(3);
        Consumer::new(Arc::clone(&self.bus), self.topic.clone(), config)
    }

    async fn publish(&self, source: &str, event: &Training) -> Result<()> {
        let event = Event::of(source, event)?.about("ranker")?;
        self.bus.publish(&self.topic, &[event]).await?;
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?).await?;
    let namespace = Namespace::new(&unique_prefix())?;
    let bus = RedisEventBus::new(pool.clone().into_driver(), namespace.clone());
    let bus: Arc<dyn EventBus> = Arc::new(bus.with_connect(Arc::new(pool.clone())));
    let topic = Topic::new("training")?.with_partitions(2)?;
    let services = Arc::new(Services { bus: Arc::clone(&bus), topic: topic.clone() });
    let store = RedisFeatureStore::new(pool.into_driver(), namespace);

    let deployed = Arc::new(AtomicBool::new(false));
    let evaluator = tokio::spawn(evaluator(Arc::clone(&services), Arc::clone(&deployed)));
    let deployer = tokio::spawn(deployer(Arc::clone(&services), Arc::clone(&deployed)));
    let bridge = tokio::spawn(bridge(Arc::clone(&services), store.clone()));
    train(&services).await?;
    evaluator.await??;
    deployer.await??;

    println!("\nthe monitor came late, and reads everything from the beginning:");
    monitor(&services).await?;
    // Its last batch was written by now.
    tokio::time::sleep(Duration::from_millis(300)).await;
    bridge.abort();
    let group = store.register(&features()?).await?;
    let record = store.record(&group, &Entity::new("ranker")).await?;
    let values = record.iter().flat_map(|record| record.iter());
    println!("\nfeatures of the ranker, made of its events: {:?}", values.collect::<Vec<_>>());

    println!(
        "\n| partition | events | dead letters | group | lag | pending |\n|---|---|---|---|---|---|"
    );
    for (partition, status) in bus.status(&topic).await?.iter().enumerate() {
        for (name, group) in &status.groups {
            let (length, dead) = (status.length, status.dead);
            println!(
                "| {partition} | {length} | {dead} | {name} | {} | {} |",
                group.lag, group.pending
            );
        }
    }
    for partition in 0..topic.partitions() {
        for letter in bus.dead_letters(&topic, partition, None, 10).await? {
            println!(
                "dead letter of {} after {} attempts: {}",
                letter.group, letter.attempts, letter.reason
            );
        }
    }
    let trimmed = bus.trim(&topic, Trim::new().longer_than(3)).await?;
    println!("trimmed: {} events removed, held by {:?}", trimmed.removed, trimmed.held_by);
    Ok(())
}

async fn train(services: &Services) -> Result<()> {
    services.publish("dataset", &Training::Dataset { rows: 1_000_000 }).await?;
    services.publish("trainer", &Training::Started { epochs: EPOCHS }).await?;
    for epoch in 1..=EPOCHS {
        tokio::time::sleep(Duration::from_millis(120)).await;
        let loss = 1.0 / f64::from(epoch + 1);
        println!("trainer: epoch {epoch}, loss {loss:.3}");
        services.publish("trainer", &Training::Epoch { epoch, loss }).await?;
    }
    Ok(())
}

/// Evaluates each epoch; its process dies in the middle of the third one, and another takes over.
async fn evaluator(services: Arc<Services>, deployed: Arc<AtomicBool>) -> Result<()> {
    let crashed = Arc::new(AtomicBool::new(false));
    let evaluated = Arc::new(AtomicU32::new(0));
    let evaluate = handler({
        let (services, crashed) = (Arc::clone(&services), Arc::clone(&crashed));
        let evaluated = Arc::clone(&evaluated);
        move |delivery| {
            let (services, crashed) = (Arc::clone(&services), Arc::clone(&crashed));
            let evaluated = Arc::clone(&evaluated);
            async move {
                let event = delivery.event.map_err(Failure::reject)?;
                let Training::Epoch { epoch, loss } = event.to_enum().map_err(Failure::reject)?
                else {
                    return Ok(());
                };
                if epoch == 3 && !crashed.swap(true, Ordering::SeqCst) {
                    println!("evaluator: crashes on epoch {epoch}");
                    std::future::pending::<()>().await;
                }
                let accuracy = 1.0 - loss / 2.0;
                let attempt = delivery.attempt;
                println!(
                    "evaluator: epoch {epoch} has accuracy {accuracy:.3} (delivery {attempt})"
                );
                services.publish("evaluator", &Training::Evaluated { epoch, accuracy }).await?;
                evaluated.fetch_add(1, Ordering::SeqCst);
                Ok(())
            }
        }
    });
    let first = services.consumer("evaluator");
    tokio::select! {
        ran = first.run(&evaluate, std::future::pending()) => return Err(format!("it ended: {ran:?}").into()),
        () = until(|| crashed.load(Ordering::SeqCst)) => {}
    }
    let second = services.consumer("evaluator");
    let is_over = || deployed.load(Ordering::SeqCst) && evaluated.load(Ordering::SeqCst) == EPOCHS;
    second.run(&evaluate, until(is_over)).await?;
    Ok(())
}

/// Deploys the last epoch; the first evaluation is one that it cannot read, and gives up.
async fn deployer(services: Arc<Services>, deployed: Arc<AtomicBool>) -> Result<()> {
    let tries = Arc::new(AtomicU32::new(0));
    let deploy = handler({
        let (services, deployed) = (Arc::clone(&services), Arc::clone(&deployed));
        move |delivery| {
            let (services, deployed, tries) =
                (Arc::clone(&services), Arc::clone(&deployed), Arc::clone(&tries));
            async move {
                let event = delivery.event.map_err(Failure::reject)?;
                let Training::Evaluated { epoch, accuracy } =
                    event.to_enum().map_err(Failure::reject)?
                else {
                    return Ok(());
                };
                if epoch == 1 {
                    return Err(Failure::reject("no model is deployed after one epoch"));
                }
                if epoch < EPOCHS {
                    return Ok(());
                }
                if tries.fetch_add(1, Ordering::SeqCst) == 0 {
                    return Err("the registry does not answer".into());
                }
                let version = format!("ranker-{epoch}");
                println!(
                    "deployer: {version} with accuracy {accuracy:.3}, at attempt {}",
                    delivery.attempt
                );
                services.publish("deployer", &Training::Deploy { version }).await?;
                deployed.store(true, Ordering::SeqCst);
                Ok(())
            }
        }
    });
    let consumer = services.consumer("deployer");
    consumer.run(&deploy, until(|| deployed.load(Ordering::SeqCst))).await?;
    Ok(())
}

/// A group of its own: every event, in the order of its model.
async fn monitor(services: &Services) -> Result<()> {
    let seen = Arc::new(AtomicBool::new(false));
    let watch = handler({
        let seen = Arc::clone(&seen);
        move |delivery| {
            let seen = Arc::clone(&seen);
            async move {
                let event = delivery.event.map_err(Failure::reject)?;
                println!("monitor: {} of {}", event.kind(), event.subject().unwrap_or("nothing"));
                seen.fetch_or(event.kind() == "deploy_start", Ordering::SeqCst);
                Ok(())
            }
        }
    });
    let consumer = services.consumer("monitor");
    consumer.run(&watch, until(|| seen.load(Ordering::SeqCst))).await?;
    Ok(())
}

fn features() -> Result<FeatureGroup> {
    let group = FeatureGroup::builder("model", "training");
    Ok(group.feature("epoch", DataType::I64).feature("loss", DataType::F64).build()?)
}

/// Turns epochs into features; an event is acknowledged once its row is stored, and a newer row is never replaced.
async fn bridge(services: Arc<Services>, store: RedisFeatureStore) -> Result<()> {
    let group: Group = store.register(&features()?).await?;
    let write = handler(move |delivery| {
        let (store, group) = (store.clone(), group.clone());
        async move {
            let event = delivery.event.map_err(Failure::reject)?;
            let Ok(Training::Epoch { epoch, loss }) = event.to_enum() else { return Ok(()) };
            let values = [Value::from(epoch), Value::from(loss)];
            let row = Row::new(event.subject().unwrap_or_default(), event.time(), values);
            store.write(&group, &[row]).await?;
            Ok(())
        }
    });
    services.consumer("bridge").run(&write, std::future::pending()).await?;
    Ok(())
}

async fn until(holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() && start.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::{Event, Training};

    #[test]
    fn variants_are_types() {
        let event = Event::of("t", &Training::Deploy { version: "1".to_owned() }).unwrap();
        assert_eq!(event.kind(), "deploy_start");
    }
}
