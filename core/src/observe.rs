//! Metrics of the family, through the `metrics` facade (feature `metrics`); without the feature nothing is recorded and
//! nothing is measured.
//!
//! No recorder is installed: that is the service's choice.
//! Names are `inferkit_<crate>_<what>_<unit or total>`; labels come from closed sets, never from users.
//! The crates of the family record with [`count`], [`record`] and [`Stopwatch`], and so may implementations of their
//! traits.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `inferkit_core_commands_total` | counter | `deployment`, `outcome` (`ok` or an error kind) | calls and batches sent |
//! | `inferkit_core_command_seconds` | histogram | `deployment` | time from call to answer |
//! | `inferkit_core_reconnects_total` | counter | `reason` (`broken`, `silent`, `moved`) | connections that a pool replaced |
//! | `inferkit_featurestore_rows_total` | counter | `outcome` (`applied`, `older`) | rows that a stream brought |
//! | `inferkit_featurestore_event_age_seconds` | histogram | | age of events when they were written |
//! | `inferkit_mlevents_deliveries_total` | counter | `outcome` (`handled`, `retried`, `buried`, `released`, `healed`) | what became of deliveries; groups created again |
//! | `inferkit_mlevents_trimmed_total` | counter | | events that were removed |
//! | `inferkit_mlevents_overrun_total` | counter | | groups that lost events to a hard limit |
//! | `inferkit_modelserve_results_total` | counter | `tier` (`exact`, `precomputed`, `popular`, `nothing`, `miss`) | questions, by the tier that answered |
//! | `inferkit_ratelimit_decisions_total` | counter | `outcome` (`admitted`, `replayed`, `rejected`, `error`) | decisions |
//! | `inferkit_ratelimit_acquire_seconds` | histogram | `outcome` | time of a decision |
//! | `inferkit_ratelimit_tiers_total` | counter | `tier`, `state` (`ok`, `near`, `over`, `shadow`) | tiers evaluated |
//! | `inferkit_ratelimit_settles_total` | counter | `outcome` (`settled`, `gone`, `error`) | permits settled |
//! | `inferkit_ratelimit_unchecked_total` | counter | | requests admitted without their limits |
//! | `inferkit_semcache_lookups_total` | counter | `outcome` (`exact`, `semantic`, `near`, `miss`, `error`) | lookups |
//! | `inferkit_semcache_lookup_seconds` | histogram | `outcome` | time of a lookup, embedding and verification included |
//! | `inferkit_semcache_similarity` | histogram | `outcome` | cosine similarity of semantic hits, and of the nearest entry of misses |
//! | `inferkit_semcache_tokens_saved_total` | counter | | tokens that the answers of hits had cost |
//! | `inferkit_semcache_money_saved_micros_total` | counter | | millionths of money that hits did not cost |
//! | `inferkit_semcache_stores_total` | counter | `outcome` (`stored`, or why not) | answers stored, and not |
//! | `inferkit_semcache_feedback_total` | counter | `verdict` (`right`, `wrong`) | reports about hits |
//! | `inferkit_semcache_generations_total` | counter | `outcome` (`complete`, `incomplete`, `failed`) | answers that a `Coalescer` had generated |
//! | `inferkit_chatsession_messages_total` | counter | `outcome` (`stored`, `repeated`) | messages appended, and those that were there |
//! | `inferkit_chatsession_summaries_total` | counter | `outcome` (`stored`, `outdated`, `none`, `error`) | summaries that were begun |
//! | `inferkit_chatsession_swept_total` | counter | `outcome` (`archived`, `deleted`, `erased`, `failed`) | sessions a janitor looked after |

#[cfg(feature = "metrics")]
use std::time::Instant;

use crate::ErrorKind;

/// Names of labels and their values.
pub type Labels<'a> = &'a [(&'static str, &'static str)];

/// Adds to a counter.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "nothing is recorded"))]
pub fn count(name: &'static str, labels: Labels<'_>, by: u64) {
    #[cfg(feature = "metrics")]
    metrics::counter!(name, labels).increment(by);
}

/// Adds a value to a histogram; times are in seconds.
#[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "nothing is recorded"))]
pub fn record(name: &'static str, labels: Labels<'_>, value: f64) {
    #[cfg(feature = "metrics")]
    metrics::histogram!(name, labels).record(value);
}

/// Takes the time of an operation for a histogram.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Stopwatch {
    #[cfg(feature = "metrics")]
    started: Instant,
}

impl Stopwatch {
    /// Starts now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            #[cfg(feature = "metrics")]
            started: Instant::now(),
        }
    }

    /// Adds the seconds since the start to a histogram.
    #[cfg_attr(not(feature = "metrics"), expect(unused_variables, reason = "nothing is recorded"))]
    pub fn record(self, name: &'static str, labels: Labels<'_>) {
        #[cfg(feature = "metrics")]
        record(name, labels, self.started.elapsed().as_secs_f64());
    }
}

pub(crate) fn command(deployment: &'static str, outcome: &'static str, time: Stopwatch) {
    count("inferkit_core_commands_total", &[("deployment", deployment), ("outcome", outcome)], 1);
    time.record("inferkit_core_command_seconds", &[("deployment", deployment)]);
}

#[cfg(feature = "redis")]
pub(crate) fn reconnect(reason: &'static str) {
    count("inferkit_core_reconnects_total", &[("reason", reason)], 1);
}

pub(crate) fn kind_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Auth => "auth",
        ErrorKind::Config => "config",
        ErrorKind::Connection => "connection",
        ErrorKind::CrossSlot => "cross_slot",
        ErrorKind::Loading => "loading",
        ErrorKind::NoScript => "no_script",
        ErrorKind::OutOfMemory => "out_of_memory",
        ErrorKind::ReadOnly => "read_only",
        ErrorKind::Reply => "reply",
        ErrorKind::Server => "server",
        ErrorKind::Timeout => "timeout",
    }
}
