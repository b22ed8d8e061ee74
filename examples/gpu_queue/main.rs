//! Tenants wait for the GPUs of one pool, live: `cargo run -p inferkit-examples --example gpu_queue -- [SECONDS]`.
//!
//! Three tenants ask all the time for more than four GPUs can do. `globex` has twice the weight of `acme`; `nightly` has a
//! lower priority, and its turn after eight others. A fourth comes in the middle with a flood of requests at once, which
//! takes nobody's share. Ctrl-C ends it.

#![expect(clippy::print_stdout, reason = "a program that prints a table")]

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use inferkit::core::Pool;
use inferkit::core::keys::Namespace;
use inferkit::ratelimit::{Queued, RedisSlotQueue, SlotPool, SlotQueue as _, Standing, Waiter};
use inferkit_localredis::{Flavor, Server};

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const GPUS: u32 = 4;
/// How long a GPU is busy with a request, by its number.
const WORK: [u64; 4] = [40, 60, 80, 60];
const PATIENCE: Duration = Duration::from_secs(5);

/// A tenant, and how many requests it always has on their way.
struct Tenant {
    name: &'static str,
    weight: f64,
    priority: u16,
    requests: usize,
    /// The part of the time after which it comes.
    comes: f64,
}

const TENANTS: [Tenant; 4] = [
    Tenant { name: "acme", weight: 1.0, priority: 0, requests: 12, comes: 0.0 },
    Tenant { name: "globex", weight: 2.0, priority: 0, requests: 12, comes: 0.0 },
    Tenant { name: "nightly", weight: 1.0, priority: 1, requests: 8, comes: 0.0 },
    Tenant { name: "flood", weight: 1.0, priority: 0, requests: 200, comes: 0.5 },
];

/// What became of a tenant's requests.
#[derive(Clone, Debug, Default)]
struct Tally {
    running: usize,
    waiting: usize,
    served: usize,
    refused: usize,
    waits: Vec<Duration>,
    last: Standing,
}

#[derive(Clone, Debug, Default)]
struct Tallies(Arc<Mutex<BTreeMap<&'static str, Tally>>>);

impl Tallies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Tally>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, tenant: &'static str, change: impl FnOnce(&mut Tally)) {
        change(self.lock().entry(tenant).or_default());
    }
}

/// Asks for GPUs one after the other, until the time is over.
async fn ask(
    queue: RedisSlotQueue,
    tallies: Tallies,
    tenant: &'static Tenant,
    end: Instant,
) -> Result<()> {
    let standing = Standing::new();
    let waiter = Waiter::new(tenant.name)?.with_weight(tenant.weight)?;
    let waiter = waiter.with_priority(tenant.priority).with_standing(&standing);
    for number in 0.. {
        if end <= Instant::now() {
            break;
        }
        tallies.note(tenant.name, |tally| {
            tally.waiting += 1;
            tally.last = standing.clone();
        });
        let begun = Instant::now();
        let queued = queue.acquire(&waiter, PATIENCE).await;
        tallies.note(tenant.name, |tally| tally.waiting -= 1);
        let Queued::Granted(slot) = queued? else {
            tallies.note(tenant.name, |tally| tally.refused += 1);
            continue;
        };
        tallies.note(tenant.name, |tally| {
            tally.running += 1;
            tally.waits.push(begun.elapsed());
        });
        let millis = WORK.get(number % WORK.len()).copied().unwrap_or(50);
        tokio::time::sleep(Duration::from_millis(millis)).await;
        slot.release().await?;
        tallies.note(tenant.name, |tally| {
            tally.running -= 1;
            tally.served += 1;
        });
    }
    Ok(())
}

fn percentile(waits: &[Duration], percent: usize) -> Duration {
    let mut waits = waits.to_vec();
    waits.sort();
    let place = (waits.len() * percent / 100).min(waits.len().saturating_sub(1));
    waits.get(place).copied().unwrap_or_default()
}

fn table(tallies: &Tallies) -> String {
    let tallies = tallies.lock().clone();
    let all: usize = tallies.values().map(|tally| tally.served).sum();
    let mut text = format!(
        "{:<9}{:>7}{:>9}{:>9}{:>9}{:>8}{:>8}{:>10}{:>10}{:>9}  the last who came\n",
        "tenant",
        "weight",
        "priority",
        "running",
        "waiting",
        "served",
        "share",
        "wait p50",
        "wait p95",
        "refused",
    );
    for tenant in &TENANTS {
        let Some(tally) = tallies.get(tenant.name) else { continue };
        let stands = tally.last.position().map_or_else(String::new, |position| {
            format!("{} ahead, about {:.1} s", position.ahead, position.estimate.as_secs_f64())
        });
        let share = 100.0 * tally.served as f64 / all.max(1) as f64;
        text += &format!(
            "{:<9}{:>7}{:>9}{:>9}{:>9}{:>8}{:>7.1}%{:>7} ms{:>7} ms{:>9}  {stands}\n",
            tenant.name,
            tenant.weight,
            tenant.priority,
            tally.running,
            tally.waiting,
            tally.served,
            share,
            percentile(&tally.waits, 50).as_millis(),
            percentile(&tally.waits, 95).as_millis(),
            tally.refused,
        );
    }
    text
}

#[tokio::main]
async fn main() -> Result<()> {
    let seconds = match std::env::args().nth(1) {
        Some(text) => text.parse().map_err(|_| format!("{text:?} is no number of seconds"))?,
        None => 12.0,
    };
    if !(1.0..=3600.0).contains(&seconds) {
        return Err("run it for 1 to 3600 seconds".into());
    }
    println!("starting a Redis of its own");
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = Pool::connect(server.url()).await?;
    let connect = Arc::new(pool.clone());
    let slots = SlotPool::new("gpu", GPUS)?.with_max_waiting(250);
    let queue = RedisSlotQueue::new(pool.into_driver(), connect, &Namespace::default(), slots);
    tokio::spawn(queue.run());

    let tallies = Tallies::default();
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let mut tasks = tokio::task::JoinSet::new();
    for tenant in &TENANTS {
        for _ in 0..tenant.requests {
            let (queue, tallies) = (queue.clone(), tallies.clone());
            let comes = Duration::from_secs_f64(seconds * tenant.comes);
            tasks.spawn(async move {
                tokio::time::sleep(comes).await;
                ask(queue, tallies, tenant, end).await
            });
        }
    }
    println!("{GPUS} GPUs, {seconds} s\n");
    let live = stdout().is_terminal();
    let mut lines = 0;
    let show = |lines: usize| -> usize {
        let text = table(&tallies);
        // A terminal shows one table that changes.
        if live && 0 < lines {
            print!("\x1b[{lines}A\x1b[J");
        }
        println!("{text}");
        let _ = stdout().flush();
        text.lines().count() + 1
    };
    let stopped = tokio::signal::ctrl_c();
    tokio::pin!(stopped);
    let pause = if live { Duration::from_millis(250) } else { Duration::from_secs(3) };
    let mut ticks = tokio::time::interval(pause);
    ticks.tick().await;
    loop {
        tokio::select! {
            _ = ticks.tick() => lines = show(lines),
            _ = &mut stopped => {
                tasks.abort_all();
                break;
            }
            done = tasks.join_next() => match done {
                Some(done) => done??,
                None => break,
            },
        }
    }
    show(lines);
    Ok(())
}
