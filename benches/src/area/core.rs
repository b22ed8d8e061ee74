use std::sync::Arc;

use bytes::Bytes;
use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::{Effort, Line, Promise, Result, raw_connection, user_cpu};

const TASKS: usize = 64;

/// What a `GET` through the pool costs in user CPU, beside the same `GET` through bare redis-rs.
///
/// Both have one multiplexed connection, RESP3, no delay of small packets and a response time-out of a second.
/// The kernel samples user time at its clock tick, so a round takes about a second for each side.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let driver = pool.into_driver();
    let raw = raw_connection(&server).await?;
    let mut lines = Vec::new();
    for (name, size, calls) in [("get64_cpu", 64, 2800), ("get6k_cpu", 6 * 1024, 1600)] {
        let key: Arc<str> = unique_prefix().into();
        driver.query::<()>(Cmd::new("SET").key(&*key).arg(vec![b'v'; size])).await?;
        let calls = calls / effort.divisor;
        let line = Promise::at_most("core", name, 1.10, "us of user CPU")
            .measure(
                effort,
                async || ours(&driver, &key, calls).await,
                async || baseline(&raw, &key, calls).await,
            )
            .await?;
        lines.push(line);
    }
    Ok(lines)
}

async fn ours(driver: &DynDriver, key: &Arc<str>, calls: usize) -> Result<f64> {
    per_call(calls, || {
        let (driver, key) = (Arc::clone(driver), Arc::clone(key));
        async move {
            for _ in 0..calls {
                let cmd = Cmd::new("GET").key(&*key).readonly();
                driver.query::<Option<Bytes>>(cmd).await?.ok_or("the key is gone")?;
            }
            Ok(())
        }
    })
    .await
}

async fn baseline(raw: &MultiplexedConnection, key: &Arc<str>, calls: usize) -> Result<f64> {
    per_call(calls, || {
        let (mut raw, key) = (raw.clone(), Arc::clone(key));
        async move {
            for _ in 0..calls {
                let value: Option<Vec<u8>> =
                    redis::cmd("GET").arg(&*key).query_async(&mut raw).await?;
                value.ok_or("the key is gone")?;
            }
            Ok(())
        }
    })
    .await
}

/// Runs the work in 64 tasks of `calls` calls and returns microseconds of user CPU per call.
async fn per_call<F>(calls: usize, work: impl Fn() -> F) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let before = user_cpu()?;
    let tasks: Vec<_> = (0..TASKS).map(|_| tokio::spawn(work())).collect();
    for task in tasks {
        task.await??;
    }
    let spent = user_cpu()?.saturating_sub(before);
    #[expect(clippy::cast_precision_loss, reason = "a number of calls")]
    let calls = (TASKS * calls) as f64;
    Ok(spent.as_secs_f64() * 1e6 / calls)
}
