use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{Batch, Clock, Cmd, DriverExt as _, DynDriver, Script, SystemClock};

use crate::{Decision, Result};

static RECORD: Script = Script::new(include_str!("scripts/record.lua"));

/// How long outcomes are kept after the last one, in milliseconds.
const KEPT_MILLIS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// Latencies are counted in buckets of which each is a quarter longer than the one before.
const GROWTH: f64 = 1.25;

/// Keeps what came of decisions, for all instances together: the contract with those who implement one.
///
/// Outcomes are counted per revision of an experiment: a ramp-up begins to count anew.
#[async_trait]
pub trait Outcomes: Debug + Send + Sync + 'static {
    /// Adds counts, in one round trip.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend); some may be added then.
    async fn add(&self, counts: &[(OutcomeKey, Tally)]) -> Result<()>;

    /// Returns the counts of a revision by arm, and how long they have been counted.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn read(&self, experiment: &str, revision: u64) -> Result<Counted>;
}

/// Whose outcomes are counted.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub struct OutcomeKey {
    /// The experiment.
    pub experiment: String,
    /// Its revision.
    pub revision: u64,
    /// The arm.
    pub arm: String,
}

impl OutcomeKey {
    /// Makes the key of a decision.
    #[must_use]
    pub fn of(decision: &Decision) -> Self {
        Self {
            experiment: decision.experiment.to_string(),
            revision: decision.revision,
            arm: decision.arm.to_string(),
        }
    }
}

/// What came of some decisions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Tally {
    /// Calls that succeeded.
    pub succeeded: u64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls by the bucket of their latency.
    pub latencies: BTreeMap<u32, u64>,
}

impl Tally {
    /// Adds one call.
    pub fn add(&mut self, success: bool, latency: Duration) {
        *if success { &mut self.succeeded } else { &mut self.failed } += 1;
        *self.latencies.entry(bucket(latency)).or_default() += 1;
    }

    /// Returns the number of calls.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// Returns the share of calls that failed, 0 to 1; 0 if there was none.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
    pub fn error_rate(&self) -> f64 {
        match self.calls() {
            0 => 0.0,
            calls => self.failed as f64 / calls as f64,
        }
    }

    /// Returns a latency that at least this share of calls did not exceed, up to a quarter too long; none without calls.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a bucket is wider than the error")]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let calls: u64 = self.latencies.values().sum();
        let wanted = calls as f64 * share.clamp(0.0, 1.0);
        let mut seen = 0;
        for (bucket, calls) in &self.latencies {
            seen += calls;
            if wanted <= seen as f64 {
                return Some(Duration::from_micros(upper(*bucket)));
            }
        }
        None
    }

    fn merge(&mut self, other: &Self) {
        self.succeeded += other.succeeded;
        self.failed += other.failed;
        for (bucket, calls) in &other.latencies {
            *self.latencies.entry(*bucket).or_default() += calls;
        }
    }
}

/// The outcomes of a revision.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Counted {
    /// By arm.
    pub arms: BTreeMap<String, Tally>,
    /// How long they have been counted, by the server's clock.
    pub since: Duration,
}

/// Counts outcomes in this process, and adds them to the shared counts now and then.
///
/// Cloning is cheap, and clones share the counts.
#[derive(Clone, Debug)]
pub struct OutcomeRecorder {
    outcomes: Arc<dyn Outcomes>,
    // A `std` mutex: it is held to count, never across an await.
    pending: Arc<Mutex<HashMap<OutcomeKey, Tally>>>,
}

impl OutcomeRecorder {
    /// Makes a recorder; no I/O.
    #[must_use]
    pub fn new(outcomes: Arc<dyn Outcomes>) -> Self {
        Self { outcomes, pending: Arc::default() }
    }

    /// Counts what came of a decision, if it was an assignment; no I/O.
    pub fn record(&self, decision: &Decision, success: bool, latency: Duration) {
        if decision.is_assigned() {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.entry(OutcomeKey::of(decision)).or_default().add(success, latency);
        }
    }

    /// Adds what was counted to the shared counts, in one round trip; none if there is nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend): what was to be added is given up, so that nothing counts twice.
    pub async fn flush(&self) -> Result<()> {
        let pending: Vec<_> = {
            let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
            pending.drain().collect()
        };
        if pending.is_empty() { Ok(()) } else { self.outcomes.add(&pending).await }
    }

    /// Flushes every `period` until it is dropped; failures are logged.
    pub async fn run(self, period: Duration) {
        loop {
            tokio::time::sleep(period).await;
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "outcomes could not be added to the shared counts");
            }
        }
    }
}

/// By experiment and revision: when counting began, and the arms.
type Counts = HashMap<(String, u64), (Duration, BTreeMap<String, Tally>)>;

/// Outcomes in this process, for tests and small tools.
#[derive(Debug)]
pub struct MemoryOutcomes {
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held to count, never across an await.
    counts: Mutex<Counts>,
}

impl MemoryOutcomes {
    /// Makes empty counts.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// Makes empty counts that take their time from `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, counts: Mutex::default() }
    }
}

impl Default for MemoryOutcomes {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Outcomes for MemoryOutcomes {
    async fn add(&self, counts: &[(OutcomeKey, Tally)]) -> Result<()> {
        let now = self.clock.now();
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, tally) in counts {
            let of = all.entry((key.experiment.clone(), key.revision));
            let (_, arms) = of.or_insert_with(|| (now, BTreeMap::new()));
            arms.entry(key.arm.clone()).or_default().merge(tally);
        }
        Ok(())
    }

    async fn read(&self, experiment: &str, revision: u64) -> Result<Counted> {
        let all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((began, arms)) = all.get(&(experiment.to_owned(), revision)) else {
            return Ok(Counted::default());
        };
        let since = self.clock.now().saturating_sub(*began);
        Ok(Counted { arms: arms.clone(), since })
    }
}

/// Outcomes on Redis: one hash for each revision of an experiment.
#[derive(Clone, Debug)]
pub struct RedisOutcomes {
    driver: DynDriver,
    namespace: Namespace,
}

impl RedisOutcomes {
    /// Makes them; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace }
    }

    fn key(&self, experiment: &str, revision: u64) -> Key {
        let keys = self.namespace.family("ab").literal("outcome").part(experiment);
        keys.part(revision.to_string()).build()
    }
}

#[async_trait]
impl Outcomes for RedisOutcomes {
    /// One pipeline of `EVALSHA`.
    async fn add(&self, counts: &[(OutcomeKey, Tally)]) -> Result<()> {
        let mut batch = Batch::new();
        let mut slots = Vec::with_capacity(counts.len());
        for (key, tally) in counts {
            let mut cmd = Cmd::eval(&RECORD, &[self.key(&key.experiment, key.revision)])
                .arg(KEPT_MILLIS)
                .arg("succeeded:".to_owned() + &key.arm)
                .arg(tally.succeeded)
                .arg("failed:".to_owned() + &key.arm)
                .arg(tally.failed);
            for (bucket, calls) in &tally.latencies {
                cmd = cmd.arg(format!("latency:{bucket}:{}", key.arm)).arg(*calls);
            }
            slots.push(batch.push::<()>(cmd));
        }
        let mut answers = self.driver.run(batch).await?;
        for slot in slots {
            answers.take(slot)?;
        }
        Ok(())
    }

    /// One pipeline of `HGETALL` and `TIME`.
    async fn read(&self, experiment: &str, revision: u64) -> Result<Counted> {
        let mut batch = Batch::new();
        let key = self.key(experiment, revision);
        let fields = batch.push::<HashMap<String, u64>>(Cmd::new("HGETALL").key(key).readonly());
        let time = batch.push::<Vec<u64>>(Cmd::new("TIME").readonly());
        let mut answers = self.driver.run(batch).await?;
        let fields = answers.take(fields)?;
        let now = answers.take(time)?.first().copied().unwrap_or(0);
        let mut counted = Counted::default();
        if let Some(since) = fields.get("since") {
            counted.since = Duration::from_secs(now.saturating_sub(*since));
        }
        for (field, calls) in fields {
            if let Some(arm) = field.strip_prefix("succeeded:") {
                counted.arms.entry(arm.to_owned()).or_default().succeeded = calls;
            } else if let Some(arm) = field.strip_prefix("failed:") {
                counted.arms.entry(arm.to_owned()).or_default().failed = calls;
            } else if let Some((bucket, arm)) =
                field.strip_prefix("latency:").and_then(|rest| rest.split_once(':'))
                && let Ok(bucket) = bucket.parse()
            {
                counted.arms.entry(arm.to_owned()).or_default().latencies.insert(bucket, calls);
            }
        }
        Ok(counted)
    }
}

/// The bucket of a latency: the logarithm of its microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a small number that is not negative"
)]
fn bucket(latency: Duration) -> u32 {
    let micros = (latency.as_micros() as f64).max(1.0);
    (micros.ln() / GROWTH.ln()).ceil() as u32
}

/// The longest latency of a bucket, in microseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates for buckets that nobody wrote"
)]
fn upper(bucket: u32) -> u64 {
    GROWTH.powf(f64::from(bucket)).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_within_a_quarter() {
        let mut tally = Tally::default();
        for millis in 1..=100 {
            tally.add(millis % 10 != 0, Duration::from_millis(millis));
        }
        assert_eq!((tally.calls(), tally.failed), (100, 10));
        assert!((tally.error_rate() - 0.1).abs() < 1e-9);
        for (share, millis) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let found = tally.quantile(share).unwrap().as_secs_f64() * 1e3;
            assert!((millis..=millis * 1.26).contains(&found), "{share}: {found}");
        }
        assert_eq!(Tally::default().quantile(0.5), None);
        assert_eq!(bucket(Duration::ZERO), 0);
        assert!(upper(u32::MAX) == u64::MAX);
    }
}
