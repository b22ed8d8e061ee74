//! What is counted, by a recorder of the test's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use inferkit_localredis::Flavor;
use inferkit_semcache::{Error, SemanticCache as _};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use support::{answer, request};

/// The sum of each metric's values, by name and labels.
#[derive(Clone, Debug, Default)]
struct Sums(Arc<Mutex<BTreeMap<String, f64>>>);

struct Sum {
    sums: Sums,
    key: String,
}

impl Sums {
    fn of(&self, key: &Key) -> Arc<Sum> {
        let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
        Arc::new(Sum {
            sums: self.clone(),
            key: key.name().to_owned() + &labels.collect::<String>(),
        })
    }

    fn get(&self, key: &str) -> Option<f64> {
        self.0.lock().unwrap().get(&format!("inferkit_semcache_{key}")).copied()
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.record(f64::from(u32::try_from(value).unwrap()));
    }

    fn absolute(&self, _: u64) {}
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        *self.sums.0.lock().unwrap().entry(self.key.clone()).or_default() += value;
    }
}

impl Recorder for Sums {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.of(key))
    }
}

// One thread, so that the recorder of this thread sees everything.
#[tokio::test]
async fn hits_misses_stores_and_what_they_save_are_counted() {
    let sums = Sums::default();
    let _recorder = metrics::set_default_local_recorder(&sums);
    let cache = support::on_pool(Flavor::Redis).await;
    let first = request("1@0 what lies north?");
    let miss = cache.lookup(&first).await.unwrap().into_hit().unwrap_err();
    cache.store(&first, &answer("north").with_tokens_used(40), Some(miss)).await.unwrap();
    assert_eq!(cache.lookup(&first).await.unwrap().outcome(), "exact");
    assert_eq!(
        cache.lookup(&request("1@2 what is in the north?")).await.unwrap().outcome(),
        "semantic"
    );
    let zero = cache.lookup(&request("zero")).await;
    assert!(matches!(zero, Err(Error::InvalidEmbedding { .. })), "{zero:?}");

    for outcome in ["exact", "semantic", "miss", "error"] {
        assert_eq!(sums.get(&format!("lookups_total outcome={outcome}")), Some(1.0), "{outcome}");
        assert!(sums.get(&format!("lookup_seconds outcome={outcome}")).is_some(), "{outcome}");
    }
    assert_eq!(sums.get("stores_total outcome=stored"), Some(1.0));
    assert_eq!(sums.get("tokens_saved_total"), Some(80.0));
    let similarity = sums.get("similarity outcome=semantic").unwrap();
    assert!(0.9 < similarity && similarity < 1.0, "{similarity}");
}
