use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::core::keys::Namespace;
use inferkit::core::{Cmd, Connect, DriverExt as _, DynDriver, Pool, PoolConfig};
use inferkit::ratelimit::{
    Decision, Demand, Limit, Policy, RateLimiter, RateLimiterExt as _, RedisRateLimiter,
    RedisSlotQueue, SlotPool, SlotQueue as _, Subject, Tier, Unit, Waiter,
};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::{Effort, Line, Promise, Result, raw_connection};

/// The tasks of the promises about pipelined calls: the connection sends what they ask for together.
const TASKS: usize = 16;
const HOUR: Duration = Duration::from_secs(3600);

/// What a decision costs the server, in CPU time of its main thread, beside a plain SET; and how many come through.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let raw = raw_connection(&server).await?;
    let bench = Bench { driver: pool.clone().into_driver(), connect: Arc::new(pool), raw, server };
    let (alone, piped) = (2_000 / effort.divisor, 16_000 / effort.divisor);
    let tiers4 = Promise::at_most("ratelimit", "tiers4_cpu", 3.5, "us")
        .measure(
            effort,
            async || bench.decide(Shape::Four, true, 1, alone).await,
            async || bench.set(1, alone).await,
        )
        .await?;
    let tiers4_pipelined = Promise::at_most("ratelimit", "tiers4_pipelined_cpu", 18.0, "us")
        .measure(
            effort,
            async || bench.decide(Shape::Four, true, TASKS, piped).await,
            async || bench.set(TASKS, piped).await,
        )
        .await?;
    let tier1 = Promise::at_most("ratelimit", "tier1_pipelined_cpu", 10.0, "us")
        .measure(
            effort,
            async || bench.decide(Shape::One, true, TASKS, piped).await,
            async || bench.set(TASKS, piped).await,
        )
        .await?;
    let reject = Promise::at_most("ratelimit", "reject_over_accept", 0.7, "us")
        .measure(
            effort,
            async || bench.decide(Shape::Four, false, TASKS, piped).await,
            async || bench.decide(Shape::Four, true, TASKS, piped).await,
        )
        .await?;
    let throughput = Promise::at_least("ratelimit", "throughput64", 0.85, "1/s")
        .measure(
            effort,
            async || bench.throughput(piped).await,
            async || bench.bare_throughput(piped).await,
        )
        .await?;
    let waits = 3_200 / effort.divisor;
    let queue = Promise::at_most("ratelimit", "queue_over_acquire", 2.0, "us")
        .measure(
            effort,
            async || bench.wait_for_slots(waits).await,
            async || bench.take_slots(waits).await,
        )
        .await?;
    Ok(vec![tiers4, tiers4_pipelined, tier1, reject, throughput, queue])
}

#[derive(Clone, Copy)]
enum Shape {
    /// Requests of a key.
    One,
    /// Requests and tokens of a key, requests of a model, and a slot.
    Four,
}

struct Bench {
    server: Server,
    driver: DynDriver,
    connect: Arc<dyn Connect>,
    raw: MultiplexedConnection,
}

impl Bench {
    fn limiter(&self) -> Result<Arc<RedisRateLimiter>> {
        let namespace = Namespace::new(&unique_prefix())?;
        Ok(Arc::new(RedisRateLimiter::with_namespace(Arc::clone(&self.driver), namespace)))
    }

    /// The CPU time of a decision, in microseconds.
    async fn decide(
        &self,
        shape: Shape,
        admitted: bool,
        tasks: usize,
        calls: usize,
    ) -> Result<f64> {
        let limiter = self.limiter()?;
        let before = self.cpu(async || {
            spread(tasks, calls, |key| {
                let limiter = Arc::clone(&limiter);
                async move { one(&limiter, shape, admitted, key).await }
            })
            .await
        });
        let cpu = before.await?;
        self.driver.query::<()>(Cmd::new("FLUSHALL")).await?;
        Ok(cpu * 1e6 / f64::from(u32::try_from(calls)?))
    }

    /// The CPU time of a SET of a key of its own, in microseconds.
    async fn set(&self, tasks: usize, calls: usize) -> Result<f64> {
        let cpu = self
            .cpu(async || {
                spread(tasks, calls, |key| {
                    let mut raw = self.raw.clone();
                    async move {
                        let key = format!("set:{}", key % 10_000);
                        let cmd = redis::cmd("SET").arg(key).arg("0123456789abcdef").clone();
                        Ok(cmd.query_async::<()>(&mut raw).await?)
                    }
                })
                .await
            })
            .await?;
        self.driver.query::<()>(Cmd::new("FLUSHALL")).await?;
        Ok(cpu * 1e6 / f64::from(u32::try_from(calls)?))
    }

    /// The seconds that the server's main thread spends on `work`.
    async fn cpu(&self, work: impl AsyncFnOnce() -> Result<()>) -> Result<f64> {
        let before = self.main_thread().await?;
        work().await?;
        Ok(self.main_thread().await? - before)
    }

    async fn main_thread(&self) -> Result<f64> {
        let info: String = self.driver.query(Cmd::new("INFO").arg("cpu")).await?;
        let mut sum = 0.0;
        for name in ["used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"] {
            let line = info.lines().find_map(|line| line.strip_prefix(name));
            sum += line.ok_or("the server does not tell its main thread's time")?.parse::<f64>()?;
        }
        Ok(sum)
    }

    /// The CPU time of taking a slot that is waited for, and of giving it back, in microseconds: 16 tasks and 4 slots.
    async fn wait_for_slots(&self, calls: usize) -> Result<f64> {
        let (driver, connect) = (Arc::clone(&self.driver), Arc::clone(&self.connect));
        let pool = SlotPool::new("gpu", 4)?;
        let queue = RedisSlotQueue::new(driver, connect, &Namespace::new(&unique_prefix())?, pool);
        let run = tokio::spawn(queue.run());
        let waiter = Waiter::new("tenant")?;
        let cpu = self
            .cpu(async || {
                spread(TASKS, calls, |_| async {
                    let slot = queue.acquire(&waiter, HOUR).await?.granted().ok_or("refused")?;
                    // Others come to wait meanwhile.
                    tokio::task::yield_now().await;
                    Ok(slot.release().await?)
                })
                .await
            })
            .await?;
        run.abort();
        self.driver.query::<()>(Cmd::new("FLUSHALL")).await?;
        Ok(cpu * 1e6 / f64::from(u32::try_from(calls)?))
    }

    /// The CPU time of taking a slot that is free, and of giving it back, in microseconds.
    async fn take_slots(&self, calls: usize) -> Result<f64> {
        let limiter = self.limiter()?;
        let gpu = Tier::new("gpu", Subject::global(), Limit::slots(1_000)?)?;
        let policy = Policy::new("bench")?.with_tier(gpu)?;
        let cpu = self
            .cpu(async || {
                // As many at work at a time as there are slots in the queue.
                spread(4, calls, |_| async {
                    let decision = limiter.acquire(&policy, &Demand::new()).await?;
                    let permit = decision.into_permit().map_err(|_| "rejected")?;
                    limiter.release(&permit).await?;
                    Ok(())
                })
                .await
            })
            .await?;
        self.driver.query::<()>(Cmd::new("FLUSHALL")).await?;
        Ok(cpu * 1e6 / f64::from(u32::try_from(calls)?))
    }

    /// Admissions a second, of 64 tasks.
    async fn throughput(&self, calls: usize) -> Result<f64> {
        let limiter = self.limiter()?;
        let begun = Instant::now();
        spread(64, calls, |key| {
            let limiter = Arc::clone(&limiter);
            async move { one(&limiter, Shape::One, true, key).await }
        })
        .await?;
        let rate = f64::from(u32::try_from(calls)?) / begun.elapsed().as_secs_f64();
        self.driver.query::<()>(Cmd::new("FLUSHALL")).await?;
        Ok(rate)
    }

    /// Bare calls of the same script with the same arguments.
    async fn bare_throughput(&self, calls: usize) -> Result<f64> {
        let limiter = self.limiter()?;
        // One call of ours makes the server know the script, and tells what it is sent.
        let cmd = Arc::new(sent(&self.server, &limiter).await?);
        let begun = Instant::now();
        spread(64, calls, |key| {
            let (mut raw, cmd) = (self.raw.clone(), Arc::clone(&cmd));
            async move {
                let mut call = redis::cmd("EVALSHA");
                call.arg(&cmd.digest).arg(1).arg(format!("{}{}", cmd.key, key % 10_000));
                call.arg("").arg(&cmd.spec);
                let reply: Vec<i64> = call.query_async(&mut raw).await?;
                if reply.first() == Some(&1) { Ok(()) } else { Err("it was not admitted".into()) }
            }
        })
        .await?;
        let rate = f64::from(u32::try_from(calls)?) / begun.elapsed().as_secs_f64();
        self.driver.query::<()>(Cmd::new("FLUSHALL")).await?;
        Ok(rate)
    }
}

async fn one(limiter: &RedisRateLimiter, shape: Shape, admitted: bool, key: usize) -> Result<()> {
    let policy = policy(shape, key)?;
    // Too many tokens for the burst: the second of four tiers rejects.
    let tokens = if admitted { 10 } else { 2_000_000_000 };
    let decision = limiter.acquire(&policy, &Demand::new().with_tokens(tokens)).await?;
    match decision {
        Decision::Admitted(permit) if admitted => permit.set_settled(),
        Decision::Rejected(_) if !admitted => {}
        other => return Err(format!("unexpected: {other:?}").into()),
    }
    Ok(())
}

fn policy(shape: Shape, key: usize) -> Result<Policy> {
    let subject = Subject::api_key(&(key % 10_000).to_string())?;
    let limit = |unit| Limit::new(1_000_000_000, HOUR, unit);
    let policy = Policy::new("bench")?.with_tier(Tier::new(
        "requests",
        subject.clone(),
        limit(Unit::Requests)?,
    )?)?;
    Ok(match shape {
        Shape::One => policy,
        Shape::Four => policy
            .with_tier(Tier::new("tokens", subject, limit(Unit::Tokens)?)?)?
            .with_tier(Tier::new("model", Subject::model("m")?, limit(Unit::Requests)?)?)?
            .with_tier(Tier::new("gpu", Subject::global(), Limit::slots(100_000)?)?)?,
    })
}

/// Runs `calls` calls on `tasks` tasks.
#[expect(clippy::future_not_send, reason = "it runs where it is made, in `block_on`")]
async fn spread<F>(tasks: usize, calls: usize, call: impl Fn(usize) -> F) -> Result<()>
where
    F: Future<Output = Result<()>> + Send,
{
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let numbers = (task..calls).step_by(tasks);
            let call = &call;
            async move {
                for number in numbers {
                    call(number).await?;
                }
                Ok::<(), crate::Error>(())
            }
        })
        .collect();
    for result in join_all(running).await {
        result?;
    }
    Ok(())
}

/// Polls all futures until each is ready, in this task.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *output = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

/// The call that a limiter sends for one tier.
struct Sent {
    digest: String,
    /// The key without the number of its subject and its shape.
    key: String,
    spec: Vec<u8>,
}

async fn sent(server: &Server, limiter: &RedisRateLimiter) -> Result<Sent> {
    use std::sync::Mutex;

    #[derive(Debug)]
    struct Spy(DynDriver, Mutex<Vec<Vec<u8>>>);

    #[async_trait::async_trait]
    impl inferkit::core::Driver for Spy {
        async fn call(&self, cmd: Cmd) -> inferkit::core::Result<inferkit::core::Reply> {
            let parts = cmd.iter().map(<[u8]>::to_vec).collect();
            *self.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = parts;
            self.0.call(cmd).await
        }

        async fn pipeline(
            &self,
            batch: inferkit::core::Batch,
        ) -> inferkit::core::Result<Vec<inferkit::core::Result<inferkit::core::Reply>>> {
            self.0.pipeline(batch).await
        }
    }

    let key = limiter.keys(&policy(Shape::One, 0)?)?.first().ok_or("no key")?.to_string();
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let spy = Arc::new(Spy(pool.into_driver(), Mutex::default()));
    let theirs = RedisRateLimiter::new(Arc::clone(&spy) as DynDriver);
    // Twice, so that the last one is an EVALSHA.
    for _ in 0..2 {
        one(&theirs, Shape::One, true, 0).await?;
    }
    let parts = spy.1.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
    let [_, digest, _, _, _, spec] = &parts[..] else {
        return Err("the limiter sends something else".into());
    };
    Ok(Sent {
        digest: String::from_utf8(digest.clone())?,
        key: key.trim_end_matches(|c: char| c != '=').to_owned(),
        spec: spec.clone(),
    })
}
