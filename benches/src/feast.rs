use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use inferkit::core::Pool;
use inferkit::core::keys::Namespace;
use inferkit::featurestore::feast::FeastStore;
use inferkit::featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore, Group, Matrix, ModelInput, RedisFeatureStore,
    Row, Value,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use tokio::sync::Mutex;

use crate::peer::Peer;
use crate::{Effort, Line, Promise, Result, median_micros};

const FEATURES: i64 = 50;
const ENTITIES: i64 = 2_000;
const BATCH: i64 = 100;

/// Each reads what the other wrote, and then 100 entities x 50 features are read by Feast, through its own layout by ours,
/// and from packed rows.
pub(crate) async fn feast(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let address = server.url().trim_start_matches("redis://").trim_end_matches('/');
    let (host, port) = address.rsplit_once(':').ok_or("an address without a port")?;
    let project = unique_prefix();
    let words = [host, port, &project];
    let peer =
        Peer::python("feast[redis]==0.67.0", include_str!("../peers/feast.py"), &words).await?;
    let peer = Mutex::new(peer);
    let driver = Pool::connect(server.url()).await?.into_driver();
    let theirs = FeastStore::new(Arc::clone(&driver), project);
    let names = || (0..FEATURES).map(|feature| format!("feature_{feature:03}"));
    let wide = FeatureGroup::builder("user", "wide").features(names(), DataType::F32).build()?;
    let wide_in_feast = theirs.register(&wide).await?;
    let packed = RedisFeatureStore::new(driver, Namespace::new("packed")?);
    let wide = packed.register(&wide).await?;
    let rows = (0..ENTITIES).map(|id| Row::new(id, event(), values(id)));
    packed.write(&wide, &rows.collect::<Vec<_>>()).await?;

    reads_what_feast_wrote(&theirs, &wide_in_feast).await?;
    writes_what_feast_reads(&theirs, &wide_in_feast, &peer).await?;

    let calls = 100 / effort.divisor;
    let read = async |store: &dyn FeatureStore, group: &Group| -> Result<f64> {
        let input = ModelInput::builder().all(group).build()?;
        let mut matrix = Matrix::new();
        let mut times = Vec::with_capacity(calls);
        for call in 0..i64::try_from(calls)? {
            let ids = (0..BATCH).map(|n| Entity::new((call * BATCH + n) % ENTITIES));
            let entities: Vec<Entity> = ids.collect();
            let start = Instant::now();
            store.read_into(&input, &entities, &mut matrix).await?;
            times.push(start.elapsed().as_secs_f64());
            if matrix.row(1) != values((call * BATCH + 1) % ENTITIES) {
                return Err("a feature has another value".into());
            }
        }
        Ok(median_micros(times))
    };
    let beside = async |name, target: f64, store: &dyn FeatureStore, group: &Group| {
        Promise::at_most("featurestore", name, 1.0 / target, "us")
            .measure(
                effort,
                async || read(store, group).await,
                async || peer.lock().await.run("read100", (20 / effort.divisor).max(3)).await,
            )
            .await
    };
    Ok(vec![
        beside("feast_packed100", 30.0, &packed, &wide).await?,
        beside("feast_codec100", 8.0, &theirs, &wide_in_feast).await?,
    ])
}

/// 2024-01-02T03:04:05.678901Z, as the peer says.
fn event() -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(1_704_164_645_678_901)
}

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn values(id: i64) -> Vec<f32> {
    (0..FEATURES).map(|feature| ((id * 31 + feature * 7) % 1_000) as f32 * 0.5).collect()
}

async fn reads_what_feast_wrote(store: &FeastStore, wide: &Group) -> Result<()> {
    let entities: Vec<Entity> = (0..ENTITIES).map(Entity::new).collect();
    let input = ModelInput::builder().all(wide).build()?;
    let mut matrix = Matrix::new();
    store.read_into(&input, &entities, &mut matrix).await?;
    for id in 0..ENTITIES {
        let row = usize::try_from(id)?;
        if matrix.row(row) != values(id) || matrix.event(row, 0) != Some(event()) {
            return Err(format!("entity {id} was read otherwise than Feast wrote it").into());
        }
    }
    Ok(())
}

async fn writes_what_feast_reads(
    store: &FeastStore,
    wide: &Group,
    peer: &Mutex<Peer>,
) -> Result<()> {
    let mixed = FeatureGroup::builder("user", "mixed")
        .feature("score", DataType::F64)
        .feature("count", DataType::I64)
        .feature("name", DataType::Str)
        .feature("flag", DataType::Bool)
        .feature("vector", DataType::Vector(3))
        .build()?;
    let mixed = store.register(&mixed).await?;
    let ids = 1_000_000..1_000_050_i64;
    let rows: Vec<Row> = ids.clone().map(|id| Row::new(id, event(), values(id))).collect();
    store.write(wide, &rows).await?;
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let row = |id: i64| {
        let values = [
            Value::from(id as f64 / 8.0),
            Value::from(-id),
            Value::from(format!("ünï {id}")),
            Value::from(id % 2 == 0),
            Value::from(vec![1.0_f32, 2.0, 0.5]),
        ];
        Row::new(id, event(), values)
    };
    store.write(&mixed, &ids.map(row).collect::<Vec<_>>()).await?;
    peer.lock().await.run("verify", 50).await?;
    Ok(())
}
