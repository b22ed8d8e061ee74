//! What is counted, by a recorder of the test's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use inferkit_chatsession::{
    ClientId, Entry, Janitor, Message, Result, SessionStoreExt as _, Summarizer, Summary,
    SummaryRule,
};
use inferkit_localredis::Flavor;
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use support::create;

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
        self.0.lock().unwrap().get(&format!("inferkit_chatsession_{key}")).copied()
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
#[derive(Debug)]
struct Short;

#[async_trait]
impl Summarizer for Short {
    async fn summarize(&self, _: Option<&Summary>, _: &[Entry]) -> Result<String> {
        Ok("short".to_owned())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_summaries_and_sweeps_are_counted() {
    let sums = Sums::default();
    metrics::set_global_recorder(sums.clone()).unwrap();
    let store = support::on_pool(Flavor::Redis).await;
    let s = create(&store, "s").await;
    for _ in 0..2 {
        for name in ["a", "b", "c"] {
            let message = Message::user(name).with_client_id(ClientId::new(name).unwrap());
            let _ = store.say(&s, message).await.unwrap();
        }
    }
    store.summarize(&s, &Short, SummaryRule::above(2)).await.unwrap();
    let janitor = Janitor::new(Arc::new(store));
    let mut deleted = 0;
    while deleted == 0 {
        deleted = janitor.sweep().await.unwrap().deleted;
    }
    for (key, expected) in [
        ("messages_total outcome=stored", 3.0),
        ("messages_total outcome=repeated", 3.0),
        ("summaries_total outcome=stored", 1.0),
        ("swept_total outcome=deleted", 1.0),
    ] {
        assert_eq!(sums.get(key), Some(expected), "{key}");
    }
}
