use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use inferkit_core::observe;

use crate::{Feedback, Hit, Lookup, Prices, Stored};

/// What a cache did since it was made, in this process.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Lookups that found the answer to the very same request.
    pub exact_hits: u64,
    /// Lookups that found the answer to a similar one.
    pub semantic_hits: u64,
    /// Lookups whose best candidate came close.
    pub near_misses: u64,
    /// Lookups that found nothing, near misses not counted.
    pub misses: u64,
    /// Lookups that failed.
    pub failed_lookups: u64,
    /// Answers that were stored.
    pub stored: u64,
    /// Answers that were not worth storing, or came too late.
    pub skipped: u64,
    /// Hits that were reported as right.
    pub right: u64,
    /// Hits that were reported as wrong.
    pub wrong: u64,
    /// The tokens that hits did not cost, where the entries tell.
    pub tokens_saved: u64,
    /// The money that hits did not cost, in millionths, where the entries and the policy's prices tell.
    pub saved_micros: u64,
    /// How long exact hits took.
    pub exact_latency: Latency,
    /// How long all other lookups took, embedding and verification included.
    pub semantic_latency: Latency,
}

impl Stats {
    /// Returns the share of lookups that were hits, from 0 to 1; 0 if there was none.
    #[must_use]
    pub fn hit_rate(&self) -> f64 {
        let hits = self.exact_hits + self.semantic_hits;
        share(hits, hits + self.near_misses + self.misses)
    }

    /// Returns the share of reported hits that were right, from 0 to 1, if any was reported.
    #[must_use]
    pub fn precision(&self) -> Option<f64> {
        let reported = self.right + self.wrong;
        (reported != 0).then(|| share(self.right, reported))
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts, not exact arithmetic")]
fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

const BUCKETS: usize = 28;

/// How long calls took, in buckets of which each is twice as long as the one before.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Latency {
    buckets: [u64; BUCKETS],
    total: Duration,
}

impl Latency {
    /// Returns the number of calls.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Returns the mean, if there was a call.
    #[must_use]
    pub fn mean(&self) -> Option<Duration> {
        let nanos = self.total.as_nanos().checked_div(u128::from(self.count()))?;
        Some(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
    }

    /// Returns a time that at least this share of the calls did not exceed, up to twice too long; `share` is held to 0
    /// to 1.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        #[expect(clippy::cast_precision_loss, reason = "a bucket holds more than the error")]
        let wanted = (count as f64) * share.clamp(0.0, 1.0);
        let mut seen = 0;
        for (bucket, calls) in self.buckets.iter().enumerate() {
            seen += calls;
            #[expect(clippy::cast_precision_loss, reason = "as above")]
            if 0 < *calls && wanted <= seen as f64 {
                return Some(Duration::from_micros(1 << bucket));
            }
        }
        None
    }
}

/// Counts what happens; shared by the clones of a cache.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    outcomes: [AtomicU64; 5],
    stored: AtomicU64,
    skipped: AtomicU64,
    right: AtomicU64,
    wrong: AtomicU64,
    tokens_saved: AtomicU64,
    saved_micros: AtomicU64,
    exact: Watch,
    semantic: Watch,
}

#[derive(Debug, Default)]
struct Watch {
    buckets: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Watch {
    fn count(&self, took: Duration) {
        let micros = took.as_micros().max(1);
        let bucket = usize::try_from((micros - 1).checked_ilog2().map_or(0, |log| log + 1));
        let bucket = bucket.unwrap_or(BUCKETS).min(BUCKETS - 1);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    fn read(&self) -> Latency {
        Latency {
            buckets: std::array::from_fn(|bucket| {
                self.buckets.get(bucket).map_or(0, |calls| calls.load(Ordering::Relaxed))
            }),
            total: Duration::from_nanos(self.nanos.load(Ordering::Relaxed)),
        }
    }
}

impl Meter {
    /// Counts a lookup; `None` if it failed.
    pub(crate) fn lookup(&self, lookup: Option<&Lookup>, took: Duration, prices: &Prices) {
        let (place, watch) = match lookup {
            Some(Lookup::Exact(_)) => (0, &self.exact),
            Some(Lookup::Semantic(_)) => (1, &self.semantic),
            Some(Lookup::Near(_)) => (2, &self.semantic),
            Some(Lookup::Miss(_)) => (3, &self.semantic),
            None => (4, &self.semantic),
        };
        if let Some(outcome) = self.outcomes.get(place) {
            outcome.fetch_add(1, Ordering::Relaxed);
        }
        watch.count(took);
        record::lookup(lookup, took);
        let Some(hit) = lookup.and_then(Lookup::hit) else { return };
        let (tokens, micros) = saved(hit, prices);
        self.tokens_saved.fetch_add(tokens, Ordering::Relaxed);
        self.saved_micros.fetch_add(micros, Ordering::Relaxed);
        record::saved(tokens, micros);
    }

    pub(crate) fn store(&self, stored: Stored) {
        let counter = if stored.id().is_some() { &self.stored } else { &self.skipped };
        counter.fetch_add(1, Ordering::Relaxed);
        record::store(stored.outcome());
    }

    pub(crate) fn feedback(&self, feedback: Feedback) {
        let (counter, verdict) = match feedback {
            Feedback::Right => (&self.right, "right"),
            Feedback::Wrong => (&self.wrong, "wrong"),
        };
        counter.fetch_add(1, Ordering::Relaxed);
        record::feedback(verdict);
    }

    pub(crate) fn stats(&self) -> Stats {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [exact, semantic, near, misses, failed] = self.outcomes.each_ref().map(read);
        Stats {
            exact_hits: exact,
            semantic_hits: semantic,
            near_misses: near,
            misses,
            failed_lookups: failed,
            stored: read(&self.stored),
            skipped: read(&self.skipped),
            right: read(&self.right),
            wrong: read(&self.wrong),
            tokens_saved: read(&self.tokens_saved),
            saved_micros: read(&self.saved_micros),
            exact_latency: self.exact.read(),
            semantic_latency: self.semantic.read(),
        }
    }
}

/// The tokens and the millionths that a hit saves.
fn saved(hit: &Hit, prices: &Prices) -> (u64, u64) {
    let tokens = hit.tokens_used.unwrap_or(0);
    let completion = hit.completion_tokens.unwrap_or(0).min(tokens);
    let micros = prices.cost_micros(&hit.model, tokens - completion, completion);
    (tokens, micros.unwrap_or(0))
}

/// What goes to the `metrics` facade; the names stand in [`inferkit_core::observe`].
pub(crate) mod record {
    use super::{Duration, Lookup, observe};

    pub(crate) fn lookup(lookup: Option<&Lookup>, took: Duration) {
        let labels = [("outcome", lookup.map_or("error", Lookup::outcome))];
        observe::count("inferkit_semcache_lookups_total", &labels, 1);
        observe::record("inferkit_semcache_lookup_seconds", &labels, took.as_secs_f64());
        let nearest = match lookup {
            Some(Lookup::Semantic(hit)) => Some(hit.similarity),
            Some(other) => other.miss().and_then(|miss| miss.nearest).map(|near| near.similarity),
            None => None,
        };
        if let Some(similarity) = nearest {
            observe::record("inferkit_semcache_similarity", &labels, similarity.as_f64());
        }
    }

    pub(crate) fn saved(tokens: u64, micros: u64) {
        observe::count("inferkit_semcache_tokens_saved_total", &[], tokens);
        observe::count("inferkit_semcache_money_saved_micros_total", &[], micros);
    }

    pub(crate) fn store(outcome: &'static str) {
        observe::count("inferkit_semcache_stores_total", &[("outcome", outcome)], 1);
    }

    pub(crate) fn feedback(verdict: &'static str) {
        observe::count("inferkit_semcache_feedback_total", &[("verdict", verdict)], 1);
    }

    pub(crate) fn generation(outcome: &'static str) {
        observe::count("inferkit_semcache_generations_total", &[("outcome", outcome)], 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_within_a_factor_of_two() {
        let watch = Watch::default();
        assert_eq!((watch.read().mean(), watch.read().quantile(0.5)), (None, None));
        for micros in [0, 1, 2, 3, 100, 1_000_000, 3_600_000_000] {
            watch.count(Duration::from_micros(micros));
        }
        let latency = watch.read();
        assert_eq!(latency.count(), 7);
        let quantile = |share| latency.quantile(share).unwrap().as_micros();
        assert_eq!((quantile(0.0), quantile(0.2), quantile(0.4)), (1, 1, 2));
        assert_eq!((quantile(0.57), quantile(0.7), quantile(0.85)), (4, 128, 1 << 20));
        assert_eq!(quantile(1.0), 1 << 27, "the last bucket holds all that took longer");
    }
}
