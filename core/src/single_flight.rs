use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// Makes concurrent callers with the same key share one run, within this process.
///
/// The first caller's future runs in that caller's task; the others wait for its outcome and receive a clone.
/// Nothing is kept once the run ends: the next caller starts anew.
///
/// # Cancel safety
///
/// If the running caller is dropped, one of the waiting callers runs its own future instead.
///
/// # Examples
///
/// ```
/// # use inferkit_core::SingleFlight;
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let flights = SingleFlight::new();
/// let (a, b) = tokio::join!(
///     flights.run("question", async { tokio::task::yield_now().await; 1 }),
///     flights.run("question", async { 2 }),
/// );
/// assert_eq!((a, b), (1, 1));
/// # }
/// ```
pub struct SingleFlight<K, T> {
    // A `std` mutex: it is held for a look-up, never across an await.
    flights: Mutex<HashMap<K, Arc<Flight<T>>>>,
}

/// The outcome of one run; who holds the lock is running it.
type Flight<T> = tokio::sync::Mutex<Option<T>>;

impl<K: Clone + Eq + Hash + Send, T: Clone + Send> SingleFlight<K, T> {
    /// Makes one without any run.
    #[must_use]
    pub fn new() -> Self {
        Self { flights: Mutex::new(HashMap::new()) }
    }

    /// Runs `work`, or waits for the run of the same `key` that is under way and returns its outcome.
    pub async fn run<F: Future<Output = T> + Send>(&self, key: K, work: F) -> T {
        let flight = {
            let mut flights = self.lock();
            Arc::clone(flights.entry(key.clone()).or_default())
        };
        // Also when this caller is dropped while it runs or waits.
        let landing = Landing { flights: self, key, flight: Arc::clone(&flight) };
        let mut outcome = flight.lock().await;
        if let Some(value) = &*outcome {
            return value.clone();
        }
        let value = work.await;
        *outcome = Some(value.clone());
        self.forget(&landing.key, &landing.flight);
        value
    }

    fn forget(&self, key: &K, flight: &Arc<Flight<T>>) {
        let mut flights = self.lock();
        if flights.get(key).is_some_and(|other| Arc::ptr_eq(other, flight)) {
            flights.remove(key);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<K, Arc<Flight<T>>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Clone + Eq + Hash + Send, T: Clone + Send> Default for SingleFlight<K, T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, T> fmt::Debug for SingleFlight<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

/// Removes a flight whose only caller is dropped before it has an outcome.
struct Landing<'a, K: Clone + Eq + Hash + Send, T: Clone + Send> {
    flights: &'a SingleFlight<K, T>,
    key: K,
    flight: Arc<Flight<T>>,
}

impl<K: Clone + Eq + Hash + Send, T: Clone + Send> Drop for Landing<'_, K, T> {
    fn drop(&mut self) {
        let mut flights = self.flights.lock();
        let ours = flights.get(&self.key).is_some_and(|other| Arc::ptr_eq(other, &self.flight));
        // The map, `run` and this guard hold it: nobody else waits.
        if ours && Arc::strong_count(&self.flight) <= 3 {
            flights.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[tokio::test]
    async fn many_callers_share_one_run_and_the_next_starts_anew() {
        let flights = Arc::new(SingleFlight::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let call = || {
            let (flights, runs) = (Arc::clone(&flights), Arc::clone(&runs));
            tokio::spawn(async move {
                let work = async {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    runs.fetch_add(1, Ordering::SeqCst) + 1
                };
                flights.run("k", work).await
            })
        };
        let calls: Vec<_> = (0..32).map(|_| call()).collect();
        for call in calls {
            assert_eq!(call.await.unwrap(), 1);
        }
        assert_eq!(call().await.unwrap(), 2);
        assert!(flights.lock().is_empty());
    }

    #[tokio::test]
    async fn a_waiting_caller_takes_over_from_a_dropped_one() {
        let flights = Arc::new(SingleFlight::<&str, u8>::new());
        let first = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.run("k", std::future::pending()).await }
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn({
            let flights = Arc::clone(&flights);
            async move { flights.run("k", async { 2 }).await }
        });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), 2);
        assert!(flights.lock().is_empty());
    }
}
