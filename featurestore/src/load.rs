use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use futures_util::stream::FuturesOrdered;
use futures_util::{Stream, StreamExt as _, pin_mut};

use crate::error::{Error, Result};
use crate::row::Row;
use crate::schema::Group;
use crate::store::{FeatureStore, Written};

type Report = Arc<dyn Fn(Loaded) + Send + Sync>;

/// How many rows a load has written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Loaded {
    /// Rows from the beginning of the source that are done: skipped, written or left out.
    ///
    /// A load that ended early goes on with [`Load::skip`] of this.
    pub through: u64,
    /// What was written by this run, and what was left out for a newer event.
    pub written: Written,
}

/// A bulk load: many rows, from batches that are read as they are needed.
#[derive(Clone)]
#[must_use]
pub struct Load {
    in_flight: usize,
    skip: u64,
    is_guarded: bool,
    report: Option<Report>,
}

impl Default for Load {
    /// Guarded, with four batches on their way at once.
    fn default() -> Self {
        Self { in_flight: 4, skip: 0, is_guarded: true, report: None }
    }
}

impl fmt::Debug for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Load")
            .field("in_flight", &self.in_flight)
            .field("skip", &self.skip)
            .field("is_guarded", &self.is_guarded)
            .finish_non_exhaustive()
    }
}

impl Load {
    /// Sets how many batches are on their way at once; they and one more are in memory.
    ///
    /// Where it is more than one and the load is unguarded, an entity must not be in two batches.
    pub fn in_flight(mut self, batches: usize) -> Self {
        self.in_flight = batches.max(1);
        self
    }

    /// Leaves out so many rows at the beginning of the source, which an earlier run has [done](Loaded::through).
    pub fn skip(mut self, rows: u64) -> Self {
        self.skip = rows;
        self
    }

    /// Writes without looking at what is there: for a generation of the group that nobody writes to otherwise.
    pub fn unguarded(mut self) -> Self {
        self.is_guarded = false;
        self
    }

    /// Tells how far the load is, after each batch.
    pub fn on_progress(mut self, report: impl Fn(Loaded) + Send + Sync + 'static) -> Self {
        self.report = Some(Arc::new(report));
        self
    }

    /// Writes all batches of `rows`.
    ///
    /// # Errors
    ///
    /// What the source fails with, as [`Error::Source`]; what the write fails with.
    /// What was done until then was [reported](Self::on_progress), and can be skipped by the next run; rows after it may
    /// have been written.
    ///
    /// # Cancel safety
    ///
    /// As after an error.
    pub async fn run<S, E>(
        &self,
        store: &dyn FeatureStore,
        group: &Group,
        rows: S,
    ) -> Result<Loaded>
    where
        S: Stream<Item = Result<Vec<Row>, E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        pin_mut!(rows);
        let mut loaded = Loaded { through: self.skip, ..Loaded::default() };
        let mut flying = FuturesOrdered::new();
        let mut lengths = VecDeque::new();
        let (mut taken, mut is_over) = (0_u64, false);
        loop {
            while !is_over && flying.len() < self.in_flight {
                let Some(batch) = rows.next().await else {
                    is_over = true;
                    break;
                };
                let mut batch = batch.map_err(|error| Error::source(taken, error.into()))?;
                let before = self.skip.saturating_sub(taken);
                taken += batch.len() as u64;
                let skipped = usize::try_from(before).unwrap_or(usize::MAX).min(batch.len());
                batch.drain(..skipped);
                if !batch.is_empty() {
                    lengths.push_back(batch.len() as u64);
                    flying.push_back(self.write(store, group, batch));
                }
            }
            let Some(written) = flying.next().await else { return Ok(loaded) };
            loaded.written.add(written?);
            loaded.through += lengths.pop_front().unwrap_or_default();
            if let Some(report) = &self.report {
                report(loaded);
            }
        }
    }

    async fn write(
        &self,
        store: &dyn FeatureStore,
        group: &Group,
        rows: Vec<Row>,
    ) -> Result<Written> {
        if self.is_guarded {
            return store.write(group, &rows).await;
        }
        store.write_unguarded(group, &rows).await?;
        Ok(Written::new(rows.len() as u64, 0))
    }
}

/// Copies the rows of a group into another, feature by feature of the same name: to another generation, layout or store.
///
/// Features that the other group does not have are left out, and those that only it has are null.
/// Events keep their times, and the target's newer ones stay, so that a copy can run beside writers and be repeated.
///
/// Round trips: for each page of entities one read and one write.
///
/// # Errors
///
/// [`Error::TypeMismatch`] where a value does not fit the other group's type; what reading and writing fail with.
pub async fn copy(
    (from, source): (&dyn FeatureStore, &Group),
    (to, target): (&dyn FeatureStore, &Group),
    mut report: impl FnMut(Written) + Send,
) -> Result<Written> {
    let mut copied = Written::default();
    let mut next: Option<String> = None;
    loop {
        let page = from.entities(source, next.as_deref()).await?;
        let records = from.records(source, &page.entities).await?;
        let mut rows = Vec::with_capacity(records.len());
        for (entity, record) in page.entities.into_iter().zip(records) {
            // It may have ended since it was listed.
            let Some(record) = record else { continue };
            let values = target
                .features()
                .iter()
                .map(|feature| record.get(feature.name()).cloned().unwrap_or(crate::Value::Null));
            rows.push(Row::new(entity, record.at(), values));
        }
        copied.add(to.write(target, &rows).await?);
        report(copied);
        next = page.next;
        if next.is_none() {
            return Ok(copied);
        }
    }
}
