//! Wrappers of a driver: time limit, repetition, observation.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use tracing::Instrument as _;

use super::Driver;
use crate::observe::Stopwatch;
use crate::{Batch, Cmd, Error, ErrorKind, Reply, Result, observe};

/// Ends calls that take longer than a limit, for connections that have none of their own.
#[derive(Clone, Debug)]
pub struct TimedOut<D> {
    inner: D,
    limit: Duration,
}

impl<D: Driver> TimedOut<D> {
    /// Gives each call of `inner` at most `limit`; a blocking command gets its own waiting time on top.
    #[must_use]
    pub fn new(inner: D, limit: Duration) -> Self {
        Self { inner, limit }
    }

    /// How long these commands may take; none if one of them waits for ever.
    fn limit(&self, cmds: &[Cmd]) -> Option<Duration> {
        let mut waits = cmds.iter().filter_map(Cmd::blocking_for);
        waits.try_fold(self.limit, |limit, wait| {
            (!wait.is_zero()).then(|| limit.saturating_add(wait))
        })
    }

    fn error(&self, command: &str, writes: bool) -> Error {
        Error::new(ErrorKind::Timeout, format!("no answer within {:?}", self.limit))
            .with("command", command)
            .with_maybe_applied(writes)
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<D: Driver> Driver for TimedOut<D> {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        let (command, writes) = (cmd.name().to_owned(), !cmd.is_readonly());
        let Some(limit) = self.limit(std::slice::from_ref(&cmd)) else {
            return self.inner.call(cmd).await;
        };
        match tokio::time::timeout(limit, self.inner.call(cmd)).await {
            Ok(result) => result,
            Err(_) => Err(self.error(&command, writes)),
        }
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        let writes = !batch.cmds().iter().all(Cmd::is_readonly);
        let Some(limit) = self.limit(batch.cmds()) else {
            return self.inner.pipeline(batch).await;
        };
        match tokio::time::timeout(limit, self.inner.pipeline(batch)).await {
            Ok(result) => result,
            Err(_) => Err(self.error("batch", writes)),
        }
    }
}

/// Repeats calls that failed in passing, where a repetition cannot apply a write twice.
///
/// A call is repeated if its error is [transient](Error::is_transient) and either the command did not run
/// (not [`Error::maybe_applied`]) or it is [idempotent](Cmd::is_idempotent).
/// A batch is repeated only as a whole, when all of it failed and each of its commands may be repeated.
/// The pauses grow exponentially from `base` to one second, with full jitter.
#[derive(Clone, Debug)]
pub struct Retried<D> {
    inner: D,
    attempts: u32,
    base: Duration,
}

impl<D: Driver> Retried<D> {
    /// Tries each call up to `attempts` times, with first pauses of up to `base`.
    #[must_use]
    pub fn new(inner: D, attempts: u32, base: Duration) -> Self {
        Self { inner, attempts: attempts.max(1), base }
    }

    fn again(&self, attempt: u32, error: &Error, idempotent: bool) -> bool {
        attempt < self.attempts && error.is_transient() && (idempotent || !error.maybe_applied())
    }

    async fn pause(&self, attempt: u32) {
        tokio::time::sleep(backoff(self.base, attempt)).await;
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<D: Driver> Driver for Retried<D> {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        let mut attempt = 1;
        loop {
            match self.inner.call(cmd.clone()).await {
                Err(error) if self.again(attempt, &error, cmd.is_idempotent()) => {
                    self.pause(attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        let idempotent = batch.cmds().iter().all(Cmd::is_idempotent);
        let mut attempt = 1;
        loop {
            match self.inner.pipeline(batch.clone()).await {
                Err(error) if self.again(attempt, &error, idempotent) => {
                    self.pause(attempt).await;
                    attempt += 1;
                }
                other => return other,
            }
        }
    }
}

/// A random pause before the next attempt: between zero and `base` doubled per attempt, at most one second.
///
/// Full jitter: callers that failed together do not come back together.
pub(crate) fn backoff(base: Duration, attempt: u32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(1);
    let ceiling = base.saturating_mul(1_u32 << attempt.saturating_sub(1).min(16)).min(LONGEST);
    ceiling.mul_f64(random_unit())
}

/// A number in [0, 1) that differs between callers; not for secrets.
fn random_unit() -> f64 {
    use std::hash::{BuildHasher as _, RandomState};
    let bits = RandomState::new().hash_one(Instant::now()) >> 11;
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double")]
    let unit = bits as f64 / (1_u64 << 53) as f64;
    unit
}

/// Opens a `tracing` span at level TRACE for each command and counts commands and errors through `metrics`.
///
/// Spans carry the command's name and outcome; keys and arguments are never recorded.
#[derive(Clone, Debug)]
pub struct Observed<D> {
    inner: D,
    deployment: &'static str,
}

impl<D: Driver> Observed<D> {
    /// Observes `inner` under the name `deployment`, such as `caches`.
    #[must_use]
    pub fn new(inner: D, deployment: &'static str) -> Self {
        Self { inner, deployment }
    }

    fn record<T>(&self, span: &tracing::Span, time: Stopwatch, outcome: &Result<T>) {
        let outcome = match outcome {
            Ok(_) => "ok",
            Err(error) => observe::kind_label(error.kind()),
        };
        span.record("outcome", outcome);
        observe::command(self.deployment, outcome, time);
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<D: Driver> Driver for Observed<D> {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        let span = tracing::trace_span!(
            "core.call",
            command = cmd.name(),
            deployment = self.deployment,
            outcome = tracing::field::Empty
        );
        let time = Stopwatch::start();
        let result = self.inner.call(cmd).instrument(span.clone()).await;
        self.record(&span, time, &result);
        result
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        let span = tracing::trace_span!(
            "core.pipeline",
            commands = batch.len(),
            atomic = batch.is_atomic(),
            deployment = self.deployment,
            outcome = tracing::field::Empty
        );
        let time = Stopwatch::start();
        let result = self.inner.pipeline(batch).instrument(span.clone()).await;
        self.record(&span, time, &result);
        result
    }
}
