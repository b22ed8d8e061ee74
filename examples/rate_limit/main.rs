//! Clients of three plans share four GPU slots: a table in the terminal shows who gets how much.
//!
//! `cargo run -p inferkit-examples --example rate_limit -- [SECONDS]`; it runs for 10 seconds if not told otherwise.
//! Each client asks as fast as it may; a request runs for some tens of milliseconds, and uses fewer tokens than it
//! reserved.
//!
//! At the end stands what a HyperLogLog would have counted: it tells how many different requests came, with an error
//! that is shown, but knows neither tokens nor refunds nor when to come again; so it counts here and limits nothing.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

use std::io::{self, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use inferkit::core::{Cmd, DriverExt as _, DynDriver, Pool};
use inferkit::ratelimit::{
    Decision, Demand, Limit, Plan, Policy, RateLimiter, RedisRateLimiter, Subject, Tier,
    TokenEstimator, Unit, Weights,
};
use inferkit_localredis::{Flavor, Server};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

const MODEL: &str = "llama-70b";
const SLOTS: u64 = 4;
const CLIENTS: [(&str, Plan); 4] = [
    ("free", Plan::FREE),
    ("pro", Plan::PRO),
    ("enterprise", Plan::ENTERPRISE),
    ("enterprise-2", Plan::ENTERPRISE),
];

#[derive(Debug, Default)]
struct Counts {
    admitted: AtomicU64,
    tokens: AtomicU64,
    /// Rejections by `requests`, `tokens`, `model` and `gpu`.
    rejected: [AtomicU64; 4],
}

const TIERS: [&str; 4] = ["requests", "tokens", "model", "gpu"];

#[tokio::main]
async fn main() -> Result<()> {
    let seconds = std::env::args().nth(1).map_or(Ok(10), |text| text.parse())?;
    // The server lives as long as this value, and ends with the program however that ends.
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let driver = Pool::connect(server.url()).await?.into_driver();
    show(driver, Duration::from_secs(seconds)).await
}

async fn show(driver: DynDriver, time: Duration) -> Result<()> {
    let limiter = Arc::new(RedisRateLimiter::new(Arc::clone(&driver)));
    let renewals = tokio::spawn(limiter.run());
    let estimator = Arc::new(TokenEstimator::new(800));
    let counts: Vec<Arc<Counts>> = CLIENTS.iter().map(|_| Arc::default()).collect();
    let end = Instant::now() + time;
    let mut clients = Vec::new();
    for ((name, plan), counts) in CLIENTS.into_iter().zip(&counts) {
        let (limiter, driver, estimator, counts) =
            (Arc::clone(&limiter), Arc::clone(&driver), Arc::clone(&estimator), Arc::clone(counts));
        clients.push(tokio::spawn(async move {
            client(&limiter, &driver, &estimator, &counts, name, plan, end).await
        }));
    }
    let mut lines = 0;
    while Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(500).min(end - Instant::now())).await;
        if io::stdout().is_terminal() {
            lines = table(&counts, lines)?;
        }
    }
    for client in clients {
        client.await??;
    }
    table(&counts, lines)?;
    let asked: u64 = driver.query(Cmd::new("PFCOUNT").key("example:requests").readonly()).await?;
    let exact: u64 = counts
        .iter()
        .map(|counts| {
            let rejected: u64 = counts.rejected.iter().map(|n| n.load(Ordering::Relaxed)).sum();
            counts.admitted.load(Ordering::Relaxed) + rejected
        })
        .sum();
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    let off = 100.0 * asked.abs_diff(exact) as f64 / exact.max(1) as f64;
    println!("requests asked: {exact}; a HyperLogLog says {asked} ({off:.1} % off)");
    drop(limiter);
    renewals.await?;
    Ok(())
}

async fn client(
    limiter: &RedisRateLimiter,
    driver: &DynDriver,
    estimator: &TokenEstimator,
    counts: &Counts,
    name: &str,
    plan: Plan,
    end: Instant,
) -> Result<()> {
    let model = Limit::new(3_000, Duration::from_secs(60), Unit::Requests)?.with_burst(60)?;
    let gpu = Limit::slots(SLOTS)?.with_retry_hint(Duration::from_millis(30))?;
    let policy = plan
        .limit(Policy::new("chat")?, name)?
        .with_tier(Tier::new("model", Subject::model(MODEL)?, model)?)?
        .with_tier(Tier::new("gpu", Subject::global(), gpu)?)?;
    let mut number = 0_u64;
    while Instant::now() < end {
        number += 1;
        let id = format!("{name} {number}");
        driver.query::<i64>(Cmd::new("PFADD").key("example:requests").arg(&id)).await?;
        let (input, output) = (100 + number * 31 % 200, 50 + number * 17 % 300);
        let tokens = estimator.estimate(MODEL, input, Some(1_000));
        let demand = Demand::once(&id)?.with_tokens(tokens);
        match limiter.acquire(&policy, &demand).await? {
            Decision::Admitted(permit) => {
                // The model writes a token every 0.2 ms.
                tokio::time::sleep(Duration::from_micros(200 * output)).await;
                estimator.learn(MODEL, output);
                limiter.settle(&permit, &Weights::new().with_tokens(input + output)).await?;
                counts.admitted.fetch_add(1, Ordering::Relaxed);
                counts.tokens.fetch_add(input + output, Ordering::Relaxed);
            }
            Decision::Rejected(rejection) => {
                let tier = TIERS.iter().position(|tier| *tier == rejection.tier());
                if let Some(count) = tier.and_then(|tier| counts.rejected.get(tier)) {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                let wait = rejection.retry_after().ok_or("a request is larger than its plan")?;
                tokio::time::sleep(wait.min(end.saturating_duration_since(Instant::now()))).await;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Prints the table over the last one, and returns how many lines it has.
fn table(counts: &[Arc<Counts>], lines: usize) -> Result<usize> {
    let mut out = io::stdout().lock();
    if 0 < lines {
        write!(out, "\x1b[{lines}A")?;
    }
    let heading =
        ["client", "admitted", "tokens", "429 requests", "429 tokens", "429 model", "429 gpu"];
    writeln!(out, "{}", heading.map(|word| format!("{word:>13}")).concat())?;
    for ((name, _), counts) in CLIENTS.iter().zip(counts) {
        write!(out, "{name:>13}")?;
        for count in [&counts.admitted, &counts.tokens].into_iter().chain(&counts.rejected) {
            write!(out, "{:>13}", count.load(Ordering::Relaxed))?;
        }
        writeln!(out)?;
    }
    out.flush()?;
    Ok(1 + CLIENTS.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn the_show_runs() {
        let server = Server::start(Flavor::Redis).unwrap();
        let driver = Pool::connect(server.url()).await.unwrap().into_driver();
        show(Arc::clone(&driver), Duration::from_secs(2)).await.unwrap();
        let left: Vec<String> = driver.query(Cmd::new("KEYS").arg("rl:*request*")).await.unwrap();
        assert!(left.is_empty(), "all requests are settled: {left:?}");
    }
}
