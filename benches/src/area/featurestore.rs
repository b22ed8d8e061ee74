use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit::featurestore::{
    DataType, Entity, FeatureGroup, FeatureStore as _, Group, Layout, Matrix, ModelInput,
    RedisFeatureStore, Row, Status,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::{Effort, Line, Promise, Result, median_micros, raw_connection};

const GROUPS: usize = 3;
const FEATURES: usize = 50;
const ENTITIES: usize = 1_000;
/// How many commands go into one pipeline, on both sides.
const CHUNK: usize = 512;

/// Reads and writes of features, beside the bare commands that move the same bytes.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let bench = Bench::new().await?;
    Ok(vec![
        bench.read(effort, Layout::Hash).await?,
        bench.read(effort, Layout::Packed).await?,
        bench.packed_over_hash(effort).await?,
        bench.load(effort, false).await?,
        bench.load(effort, true).await?,
        bench.memory().await?,
    ])
}

struct Bench {
    // Stops when dropped.
    _server: Server,
    driver: DynDriver,
    raw: MultiplexedConnection,
    store: RedisFeatureStore,
    prefix: String,
}

impl Bench {
    async fn new() -> Result<Self> {
        let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
        let pool = PoolConfig::single(server.url())?.with_connections(1);
        let driver = Pool::connect_with(pool).await?.into_driver();
        let raw = raw_connection(&server).await?;
        let prefix = unique_prefix();
        let store = RedisFeatureStore::new(Arc::clone(&driver), Namespace::new(&prefix)?);
        Ok(Self { _server: server, driver, raw, store, prefix })
    }

    async fn group(&self, name: &str, features: usize, layout: Layout) -> Result<Group> {
        let names = (0..features).map(|number| format!("feature_{number:03}"));
        let group = FeatureGroup::builder("user", name).features(names, DataType::F32);
        Ok(self.store.register(&group.layout(layout).build()?).await?)
    }

    async fn fill(&self, group: &Group, entities: usize) -> Result<()> {
        let rows = rows(group, 0..entities);
        self.store.write_unguarded(group, &rows).await?;
        Ok(())
    }

    /// Three groups of one entity, as a matrix, beside the bare read of them.
    async fn read(&self, effort: Effort, layout: Layout) -> Result<Line> {
        let is_hash = layout == Layout::Hash;
        let mut input = ModelInput::builder();
        let mut names = Vec::new();
        for number in 0..GROUPS {
            let name = format!("{}_{number}", if is_hash { "hash" } else { "packed" });
            let group = self.group(&name, FEATURES, layout).await?;
            self.fill(&group, ENTITIES).await?;
            input = input.all(&group);
            names.push(name);
        }
        let input = input.build()?;
        let keys: Vec<Vec<String>> = (0..ENTITIES)
            .map(|id| {
                names
                    .iter()
                    .map(|name| format!("{}:feature:user:{{{id}}}:{name}", self.prefix))
                    .collect()
            })
            .collect();
        for key in keys.iter().flatten() {
            if !self.driver.query::<bool>(Cmd::new("EXISTS").key(key)).await? {
                return Err(format!("there is no key {key}").into());
            }
        }
        let entities = entities(0..ENTITIES);
        let calls = 3_000 / effort.divisor;
        let promise = if is_hash {
            Promise::at_most("featurestore", "read3x50", 1.0, "us")
        } else {
            Promise::at_most("featurestore", "packed_read", 1.15, "us")
        };
        let mut matrix = Matrix::new();
        promise
            .measure(
                effort,
                async || {
                    let mut times = Vec::with_capacity(calls);
                    for entity in entities.iter().cycle().take(calls) {
                        let start = Instant::now();
                        let one = std::slice::from_ref(entity);
                        self.store.read_into(&input, one, &mut matrix).await?;
                        times.push(start.elapsed().as_secs_f64());
                        check(&matrix, 1, GROUPS * FEATURES)?;
                    }
                    Ok(median_micros(times))
                },
                async || {
                    let mut raw = self.raw.clone();
                    let mut times = Vec::with_capacity(calls);
                    for keys in keys.iter().cycle().take(calls) {
                        let start = Instant::now();
                        let whole = if is_hash {
                            let mut pipeline = redis::pipe();
                            for key in keys {
                                pipeline.hgetall(key);
                            }
                            let groups: Vec<Vec<(Vec<u8>, Vec<u8>)>> =
                                pipeline.query_async(&mut raw).await?;
                            groups.iter().all(|group| group.len() == FEATURES + 1)
                        } else {
                            let rows: Vec<Vec<u8>> =
                                redis::cmd("MGET").arg(keys).query_async(&mut raw).await?;
                            rows.iter().all(|row| row.len() == 220)
                        };
                        times.push(start.elapsed().as_secs_f64());
                        if !whole {
                            return Err("a feature is missing".into());
                        }
                    }
                    Ok(median_micros(times))
                },
            )
            .await
    }

    /// Matrices of 100 entities x 200 features a second, packed beside hashes.
    async fn packed_over_hash(&self, effort: Effort) -> Result<Line> {
        let batch = 100;
        let entities = entities(0..batch);
        let mut inputs = Vec::new();
        for (name, layout) in [("wide_packed", Layout::Packed), ("wide_hash", Layout::Hash)] {
            let group = self.group(name, 200, layout).await?;
            self.fill(&group, batch).await?;
            inputs.push(ModelInput::builder().all(&group).build()?);
        }
        let [packed, hash] = &inputs[..] else { return Err("two inputs".into()) };
        let rate = async |input: &ModelInput, calls: usize| -> Result<f64> {
            let mut matrix = Matrix::new();
            let start = Instant::now();
            for _ in 0..calls {
                self.store.read_into(input, &entities, &mut matrix).await?;
                check(&matrix, batch, 200)?;
            }
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            Ok((calls * batch) as f64 / start.elapsed().as_secs_f64())
        };
        let (many, few) = (400 / effort.divisor, 40 / effort.divisor);
        Promise::at_least("featurestore", "packed_over_hash", 5.0, "entities/s")
            .measure(effort, async || rate(packed, many).await, async || rate(hash, few).await)
            .await
    }

    /// Rows a second into packed strings, beside the bare pipeline with the same bytes.
    async fn load(&self, effort: Effort, is_guarded: bool) -> Result<Line> {
        let name = if is_guarded { "guarded" } else { "loaded" };
        let group = self.group(name, FEATURES, Layout::Packed).await?;
        let count = 40_000 / effort.divisor;
        let rows = rows(&group, 0..count);
        self.store.write_unguarded(&group, rows.get(..1).unwrap_or_default()).await?;
        let key = |id: usize| format!("{}:feature:user:{{{id}}}:{name}", self.prefix);
        let stored: Vec<u8> = self.driver.query(Cmd::new("GET").key(key(0))).await?;
        let keys: Vec<String> = (0..count).map(key).collect();
        let script = include_str!("../../../featurestore/src/scripts/put.lua");
        let mut raw = self.raw.clone();
        let sha: String =
            redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut raw).await?;
        let rate = |start: Instant| {
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let rows = count as f64;
            rows / start.elapsed().as_secs_f64()
        };
        let promise = if is_guarded { "guarded_load" } else { "bulk_load" };
        Promise::at_least("featurestore", promise, 0.80, "rows/s")
            .measure(
                effort,
                async || {
                    let start = Instant::now();
                    if is_guarded {
                        let written = self.store.write(&group, &rows).await?;
                        if written.applied != count as u64 {
                            return Err("a row was left out".into());
                        }
                    } else {
                        self.store.write_unguarded(&group, &rows).await?;
                    }
                    Ok(rate(start))
                },
                async || {
                    let mut raw = self.raw.clone();
                    let start = Instant::now();
                    for keys in keys.chunks(CHUNK) {
                        let mut pipeline = redis::pipe();
                        for key in keys {
                            if is_guarded {
                                let cmd = pipeline.cmd("EVALSHA").arg(&sha).arg(1).arg(key);
                                cmd.arg(&stored).arg(0).ignore();
                            } else {
                                pipeline.set(key, &stored).ignore();
                            }
                        }
                        pipeline.query_async::<()>(&mut raw).await?;
                    }
                    Ok(rate(start))
                },
            )
            .await
    }

    /// Bytes of the server for an entity of 50 packed features with a TTL.
    async fn memory(&self) -> Result<Line> {
        let count = 20_000;
        let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
        let driver = Pool::connect(server.url()).await?.into_driver();
        let store = RedisFeatureStore::new(Arc::clone(&driver), Namespace::default());
        let names = (0..FEATURES).map(|number| format!("feature_{number:03}"));
        let group = FeatureGroup::builder("user", "profile")
            .features(names, DataType::F32)
            .ttl(Duration::from_secs(86_400))
            .build()?;
        let group = store.register(&group).await?;
        let used = async || -> Result<f64> {
            let info: String = driver.query(Cmd::new("INFO").arg("memory")).await?;
            let line = info.lines().find_map(|line| line.strip_prefix("used_memory:"));
            Ok(line.unwrap_or_default().trim().parse()?)
        };
        let before = used().await?;
        store.write(&group, &rows(&group, 10_000_000..10_000_000 + count)).await?;
        #[expect(clippy::cast_precision_loss, reason = "a count of bytes")]
        let each = (used().await? - before) / count as f64;
        Ok(Promise::at_most("featurestore", "bytes_50_floats", 345.0, "bytes").line(each))
    }
}

fn entities(ids: std::ops::Range<usize>) -> Vec<Entity> {
    ids.map(|id| Entity::new(id.to_string())).collect()
}

fn rows(group: &Group, ids: std::ops::Range<usize>) -> Vec<Row> {
    let at = SystemTime::now();
    let width = group.features().len();
    #[expect(clippy::cast_precision_loss, reason = "any numbers will do")]
    let value = |id: usize, feature: usize| ((id * 31 + feature * 7) % 1_000) as f32 * 0.001_234_5;
    ids.map(|id| Row::new(id.to_string(), at, (0..width).map(|feature| value(id, feature))))
        .collect()
}

fn check(matrix: &Matrix, rows: usize, width: usize) -> Result<()> {
    let whole = matrix.values().len() == rows * width
        && matrix.statuses(rows - 1).iter().all(|status| *status == Status::Present);
    if whole { Ok(()) } else { Err("a feature is missing".into()) }
}
