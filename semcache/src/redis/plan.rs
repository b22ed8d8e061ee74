//! How a graph is searched under a filter: the server's own choice compares every entry that passes the filter, also where
//! thousands do.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use inferkit_vectorsearch::HybridPolicy;
use tokio::time::Instant;

/// From how long on a search is looked into; one that compares a few hundred entries takes less.
pub(super) const SLOW: Duration = Duration::from_millis(1);

/// How long a plan holds.
const FRESH: Duration = Duration::from_secs(60);

/// The most scopes with a plan; the next one begins anew.
const MOST: usize = 1_024;

/// The plans of one cache, by the scope that is searched.
#[derive(Debug, Default)]
pub(super) struct Plans {
    // A `std` mutex: it is held for look-ups, never across an await.
    by_scope: Mutex<HashMap<String, (Instant, Option<HybridPolicy>)>>,
}

impl Plans {
    /// Returns the plan for a scope, if there is one that holds; the plan may be to leave it to the server.
    pub(super) fn get(&self, scope: &str) -> Option<Option<HybridPolicy>> {
        let plans = self.by_scope.lock().unwrap_or_else(PoisonError::into_inner);
        let (made, plan) = plans.get(scope)?;
        (made.elapsed() < FRESH).then_some(*plan)
    }

    /// Makes the plan for a scope with `matching` of `all` entries.
    pub(super) fn make(&self, scope: String, matching: u64, all: u64, dimensions: usize) {
        let mut plans = self.by_scope.lock().unwrap_or_else(PoisonError::into_inner);
        if MOST <= plans.len() {
            plans.clear();
        }
        plans.insert(scope, (Instant::now(), choose(matching, all, dimensions)));
    }
}

/// Walks the graph in batches where that is much cheaper than comparing all that pass the filter.
///
/// Measured with RediSearch 2.10 and 384 dimensions: comparing takes 0.16 microseconds an entry; a walk takes 400, and
/// more in proportion when less than a tenth of the entries pass.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn choose(matching: u64, all: u64, dimensions: usize) -> Option<HybridPolicy> {
    let (matching, all, dimensions) = (matching.max(1) as f64, all as f64, dimensions as f64);
    let comparing = 0.16 * matching * dimensions / 384.0;
    let walking = 400.0 * (all / matching / 10.0).max(1.0);
    (1.5 * walking < comparing).then_some(HybridPolicy::Batches { size: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_graph_is_walked_where_many_entries_pass() {
        let walked = |matching, all| choose(matching, all, 384).is_some();
        for (matching, all) in
            [(5_000, 10_000), (10_000, 10_000), (20_000, 20_000), (10_000, 100_000)]
        {
            assert!(walked(matching, all), "{matching} of {all}");
        }
        for (matching, all) in
            [(0, 0), (10, 10_000), (1_000, 10_000), (2_000, 20_000), (5_000, 1_000_000)]
        {
            assert!(!walked(matching, all), "{matching} of {all}");
        }
        assert!(choose(2_000, 2_000, 1_536).is_some(), "longer vectors take longer to compare");
    }

    #[tokio::test(start_paused = true)]
    async fn plans_hold_for_a_while_and_are_bounded() {
        let plans = Plans::default();
        assert_eq!(plans.get("scope"), None);
        plans.make("scope".to_owned(), 10, 10, 384);
        assert_eq!(plans.get("scope"), Some(None));
        plans.make("scope".to_owned(), 10_000, 10_000, 384);
        assert!(matches!(plans.get("scope"), Some(Some(HybridPolicy::Batches { .. }))));
        tokio::time::advance(FRESH).await;
        assert_eq!(plans.get("scope"), None);
        for number in 0..2 * MOST {
            plans.make(number.to_string(), 1, 1, 384);
        }
        assert!(plans.by_scope.lock().unwrap().len() <= MOST);
    }
}
