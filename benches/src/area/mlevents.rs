use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit::mlevents::{Event, EventBus as _, Reader, RedisEventBus, Start, Topic};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::{Effort, Line, Promise, Result, raw_connection};

/// How many commands go into one pipeline, and events into one read, on both sides.
const CHUNK: usize = 512;
const READ: usize = 100;

/// Events in and out, beside the bare commands that move the same entries.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = PoolConfig::single(server.url())?.with_connections(1);
    let driver = Pool::connect_with(pool).await?.into_driver();
    let raw = raw_connection(&server).await?;
    let bench = Bench { driver, raw };
    Ok(vec![bench.publish(effort).await?, bench.consume(effort).await?])
}

type Fields = Vec<(Vec<u8>, Vec<u8>)>;

struct Bench {
    driver: DynDriver,
    raw: MultiplexedConnection,
}

fn events(count: usize) -> Result<Vec<Event>> {
    let data = serde_json::json!({"epoch": 12, "loss": 0.031_25, "note": "x".repeat(120)});
    let event = |_| Ok(Event::new("epoch_complete", "trainer/7", &data)?.about("ranker")?);
    (0..count).map(event).collect()
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn rate(count: usize, start: Instant) -> f64 {
    count as f64 / start.elapsed().as_secs_f64()
}

impl Bench {
    /// The fields of an entry that was published, so that the bare side writes the same.
    async fn fields(&self, stream: &str) -> Result<Fields> {
        let mut raw = self.raw.clone();
        let mut cmd = redis::cmd("XRANGE");
        cmd.arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
        let entries: Vec<(String, Fields)> = cmd.query_async(&mut raw).await?;
        Ok(entries.into_iter().next().ok_or("there is no entry")?.1)
    }

    async fn publish(&self, effort: Effort) -> Result<Line> {
        let prefix = unique_prefix();
        let bus = RedisEventBus::new(Arc::clone(&self.driver), Namespace::new(&prefix)?);
        let topic = Topic::new("t")?;
        let count = 20_480 / effort.divisor;
        let events = events(count)?;
        bus.publish(&topic, events.get(..1).unwrap_or_default()).await?;
        let stream = format!("{prefix}:ml:events:{{t:0}}");
        let fields = self.fields(&stream).await?;
        let bare = format!("{prefix}:bare");
        let clear = async |key: &str| -> Result<()> {
            Ok(self.driver.query::<u64>(Cmd::new("UNLINK").key(key)).await.map(|_| ())?)
        };
        Promise::at_least("mlevents", "publish_batch", 0.90, "events/s")
            .measure(
                effort,
                async || {
                    clear(&stream).await?;
                    let start = Instant::now();
                    let entries = bus.publish(&topic, &events).await?;
                    let rate = rate(count, start);
                    if entries.len() == count {
                        Ok(rate)
                    } else {
                        Err("an event is missing".into())
                    }
                },
                async || {
                    clear(&bare).await?;
                    let mut raw = self.raw.clone();
                    let start = Instant::now();
                    let mut sent = 0;
                    while sent < count {
                        let mut pipeline = redis::pipe();
                        for _ in 0..CHUNK.min(count - sent) {
                            let cmd = pipeline.cmd("XADD").arg(&bare).arg("*");
                            for (name, value) in &fields {
                                cmd.arg(name).arg(value);
                            }
                        }
                        let ids: Vec<String> = pipeline.query_async(&mut raw).await?;
                        sent += ids.len();
                    }
                    Ok(rate(count, start))
                },
            )
            .await
    }

    async fn consume(&self, effort: Effort) -> Result<Line> {
        let prefix = unique_prefix();
        let bus = RedisEventBus::new(Arc::clone(&self.driver), Namespace::new(&prefix)?);
        let topic = Topic::new("t")?;
        let count = 20_000 / effort.divisor;
        bus.publish(&topic, &events(count)?).await?;
        let stream = format!("{prefix}:ml:events:{{t:0}}");
        let mut group = 0;
        let mut bare_group = 0;
        Promise::at_least("mlevents", "consume_ack", 0.85, "events/s")
            .measure(
                effort,
                async || {
                    group += 1;
                    let group = format!("ours-{group}");
                    bus.create_group(&topic, &group, Start::Beginning).await?;
                    let reader = Reader::new(&topic, 0, &group, "c");
                    let start = Instant::now();
                    let mut done = 0;
                    while done < count {
                        let read = bus.read(reader, READ, Duration::ZERO).await?;
                        let entries: Vec<_> = read.iter().map(|delivery| delivery.entry).collect();
                        if entries.is_empty() || read.iter().any(|delivery| delivery.event.is_err())
                        {
                            return Err("an event is missing".into());
                        }
                        bus.ack(reader, &entries).await?;
                        done += entries.len();
                    }
                    let rate = rate(count, start);
                    self.destroy(&stream, &group).await?;
                    Ok(rate)
                },
                async || {
                    bare_group += 1;
                    let group = format!("bare-{bare_group}");
                    let mut raw = self.raw.clone();
                    let mut create = redis::cmd("XGROUP");
                    create.arg("CREATE").arg(&stream).arg(&group).arg("0");
                    create.query_async::<()>(&mut raw).await?;
                    let start = Instant::now();
                    let mut done = 0;
                    while done < count {
                        let mut read = redis::cmd("XREADGROUP");
                        read.arg("GROUP").arg(&group).arg("c").arg("COUNT").arg(READ);
                        read.arg("STREAMS").arg(&stream).arg(">");
                        let read: redis::streams::StreamReadReply =
                            read.query_async(&mut raw).await?;
                        let mut ack = redis::cmd("XACK");
                        ack.arg(&stream).arg(&group);
                        let mut entries = 0;
                        for entry in read.keys.iter().flat_map(|key| &key.ids) {
                            ack.arg(&entry.id);
                            entries += 1;
                        }
                        if entries == 0 {
                            return Err("an event is missing".into());
                        }
                        let acked: usize = ack.query_async(&mut raw).await?;
                        done += acked;
                    }
                    let rate = rate(count, start);
                    self.destroy(&stream, &group).await?;
                    Ok(rate)
                },
            )
            .await
    }

    async fn destroy(&self, stream: &str, group: &str) -> Result<()> {
        let cmd = Cmd::new("XGROUP").arg("DESTROY").key(stream).arg(group);
        Ok(self.driver.query::<u64>(cmd).await.map(|_| ())?)
    }
}
