//! Writers at once: the newest event stays, and nothing lives longer than it should.
#![expect(clippy::cast_possible_wrap, clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use inferkit_core::keys::Namespace;
use inferkit_core::{Cmd, DriverExt as _, DynDriver};
use inferkit_featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore as _, FeatureStoreExt as _, Layout, ModelInput,
    RedisFeatureStore, Row,
};
use inferkit_localredis::Flavor;

const ENTITIES: usize = 2_000;
const EVENTS: u64 = 6;
const WRITERS: u64 = 4;

/// Every writer sends every event of every entity, each in an order of its own, in batches.
async fn newest_stays(driver: DynDriver, layout: Layout) {
    let store = RedisFeatureStore::new(driver, support::namespace());
    let group = FeatureGroup::builder("user", "race")
        .layout(layout)
        .features(["event", "same"], DataType::I64)
        .build()
        .unwrap();
    let group = store.register(&group).await.unwrap();
    let mut tasks = Vec::new();
    for writer in 0..WRITERS {
        let (store, group) = (store.clone(), group.clone());
        tasks.push(tokio::spawn(async move {
            let (mut applied, mut older) = (0, 0);
            for step in 0..EVENTS {
                let event = (step * 5 + writer) % EVENTS;
                let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000 + event);
                let rows: Vec<Row> = (0..ENTITIES)
                    .map(|id| Row::new(id as i64, at, [event as i64, event as i64]))
                    .collect();
                let written = store.write(&group, &rows).await.unwrap();
                applied += written.applied;
                older += written.older;
            }
            (applied, older)
        }));
    }
    let mut counted = 0;
    for task in tasks {
        let (applied, older) = task.await.unwrap();
        counted += applied + older;
    }
    assert_eq!(counted, WRITERS * EVENTS * ENTITIES as u64);
    let entities: Vec<Entity> = (0..ENTITIES).map(|id| Entity::new(id as i64)).collect();
    let input = ModelInput::builder().all(&group).build().unwrap();
    let matrix = store.read(&input, &entities).await.unwrap();
    let last = (EVENTS - 1) as f32;
    let wrong = (0..ENTITIES).filter(|row| matrix.row(*row) != [last, last]).count();
    assert_eq!(wrong, 0, "of {ENTITIES}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_event_stays_in_packed_rows() {
    newest_stays(support::shared(Flavor::Plain).await, Layout::Packed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_event_stays_in_hashes() {
    newest_stays(support::shared(Flavor::Plain).await, Layout::Hash).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_event_stays_on_a_cluster() {
    newest_stays(support::cluster().await, Layout::Packed).await;
}

/// Whatever writes to a row that ended gives it its TTL again.
#[tokio::test(flavor = "multi_thread")]
async fn no_write_revives_a_row_without_its_ttl() {
    let driver = support::shared(Flavor::Plain).await;
    let prefix = inferkit_localredis::unique_prefix();
    let store =
        RedisFeatureStore::new(std::sync::Arc::clone(&driver), Namespace::new(&prefix).unwrap());
    for (name, layout) in [("packed", Layout::Packed), ("hash", Layout::Hash)] {
        let group = FeatureGroup::builder("user", name)
            .layout(layout)
            .feature("n", DataType::I64)
            .ttl(Duration::from_secs(60));
        let group = store.register(&group.build().unwrap()).await.unwrap();
        let key = format!("{prefix}:feature:user:{{u}}:{name}");
        let left = async || driver.query::<i64>(Cmd::new("PTTL").key(&key)).await.unwrap();
        for step in 0..4 {
            // An event that is newer, one that is older than what ended, one without a look, and an addition.
            let row =
                [Row::new("u", SystemTime::now() - Duration::from_secs(step * 1_000), [1_i64])];
            match step {
                2 => store.write_unguarded(&group, &row).await.unwrap(),
                3 if layout == Layout::Hash => {
                    let by = 1_i64.into();
                    store
                        .increment(&group, &Entity::new("u"), "n", &by, SystemTime::now())
                        .await
                        .unwrap();
                }
                _ => assert_eq!(store.write(&group, &row).await.unwrap().applied, 1),
            }
            assert!((50_000..=60_000).contains(&left().await), "{name}, step {step}");
            assert!(store.record(&group, &Entity::new("u")).await.unwrap().is_some());
            driver.query::<u64>(Cmd::new("DEL").key(&key)).await.unwrap();
        }
    }
}
