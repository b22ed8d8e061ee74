use std::time::{Duration, SystemTime};

use futures_util::{Stream, StreamExt as _, pin_mut};
use inferkit_core::observe;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Result};
use crate::row::Row;
use crate::schema::Group;
use crate::store::{FeatureStore, Written};

/// How a stream of rows is written.
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct Feed {
    batch: usize,
    linger: Duration,
    latest: Option<Duration>,
}

impl Default for Feed {
    /// Batches of 256 rows, after 50 milliseconds at the latest; no event is too late.
    fn default() -> Self {
        Self { batch: 256, linger: Duration::from_millis(50), latest: None }
    }
}

/// What became of a stream of rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Fed {
    /// What was written, and what was left out for a newer event.
    pub written: Written,
    /// Rows that came too late, and were left out.
    pub late: u64,
}

impl Feed {
    /// Sets how many rows go into one write.
    pub fn batch(mut self, rows: usize) -> Self {
        self.batch = rows.max(1);
        self
    }

    /// Sets how long a row waits for others at most: with the stream's own delay, how old features are at best.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Leaves out events that are older than this when they come; by this process's clock.
    pub fn drop_later_than(mut self, latest: Duration) -> Self {
        self.latest = Some(latest);
        self
    }

    /// Writes the rows of a stream, such as a topic's, until it ends.
    ///
    /// Rows are [guarded](FeatureStore::write), so a stream that repeats or reorders its rows does no harm.
    /// With the feature `metrics`, the age of events when they are written is
    /// `inferkit_featurestore_event_age_seconds`, and rows are counted by `inferkit_featurestore_rows_total`.
    ///
    /// # Errors
    ///
    /// What the stream fails with, as [`Error::Source`]; what [`FeatureStore::write`] fails with.
    /// The rows before were written; those of the failed batch may have been.
    ///
    /// # Cancel safety
    ///
    /// Rows that were taken from the stream and wait for their batch are lost with the future: acknowledge a row to its
    /// stream only after it was written, or read the stream again.
    pub async fn run<S, E>(&self, store: &dyn FeatureStore, group: &Group, rows: S) -> Result<Fed>
    where
        S: Stream<Item = Result<Row, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        pin_mut!(rows);
        let mut fed = Fed::default();
        let mut batch = Vec::with_capacity(self.batch);
        let mut taken = 0;
        loop {
            let Some(first) = rows.next().await else { return Ok(fed) };
            let deadline = Instant::now() + self.linger;
            let mut next = Some(first);
            let mut failed = None;
            while let Some(row) = next.take() {
                match row {
                    Ok(row) if self.is_late(&row) => fed.late += 1,
                    Ok(row) => batch.push(row),
                    Err(error) => failed = Some(Error::source(taken, error.into())),
                }
                taken += 1;
                if failed.is_none() && batch.len() < self.batch {
                    next = timeout_at(deadline, rows.next()).await.ok().flatten();
                }
            }
            let written = store.write(group, &batch).await?;
            report(&batch, written);
            fed.written.add(written);
            batch.clear();
            if let Some(failed) = failed {
                return Err(failed);
            }
        }
    }

    fn is_late(&self, row: &Row) -> bool {
        let age = || SystemTime::now().duration_since(row.at).unwrap_or_default();
        self.latest.is_some_and(|latest| latest < age())
    }
}

fn report(rows: &[Row], written: Written) {
    for (outcome, count) in [("applied", written.applied), ("older", written.older)] {
        observe::count("inferkit_featurestore_rows_total", &[("outcome", outcome)], count);
    }
    if cfg!(feature = "metrics") {
        let now = SystemTime::now();
        for row in rows {
            let age = now.duration_since(row.at).unwrap_or_default().as_secs_f64();
            observe::record("inferkit_featurestore_event_age_seconds", &[], age);
        }
    }
}
