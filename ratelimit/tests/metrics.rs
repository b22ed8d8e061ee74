//! What is counted, by a recorder of the test's own.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use inferkit_localredis::{Flavor, Server};
use inferkit_ratelimit::{Breaker, Demand, RateLimiter as _, RateLimiterExt as _, WhenAway};
use metrics::{
    Counter, CounterFn, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};
use support::{policy, requests, tokens};

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
        self.0.lock().unwrap().get(&format!("inferkit_ratelimit_{key}")).copied()
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
async fn decisions_tiers_and_settlements_are_counted() {
    let sums = Sums::default();
    let _recorder = metrics::set_default_local_recorder(&sums);
    let limiter = support::on_pool(Flavor::Redis).await;
    let policy = policy([requests(10), tokens(100), tokens_of_a_trial().shadow()]);
    let ask =
        async |tokens| limiter.acquire(&policy, &Demand::new().with_tokens(tokens)).await.unwrap();
    let permit = ask(50).await.into_permit().unwrap();
    assert!(ask(45).await.is_admitted());
    assert!(!ask(45).await.is_admitted());
    limiter.release(&permit).await.unwrap();

    assert_eq!(sums.get("decisions_total outcome=admitted"), Some(2.0));
    assert_eq!(sums.get("decisions_total outcome=rejected"), Some(1.0));
    assert_eq!(sums.get("settles_total outcome=settled"), Some(1.0));
    assert!(sums.get("acquire_seconds outcome=admitted").is_some());
    for (tier, state, count) in [
        ("requests", "ok", 3.0),
        ("tokens", "ok", 1.0),
        ("tokens", "near", 1.0),
        ("tokens", "over", 1.0),
        ("trial", "near", 1.0),
        ("trial", "shadow", 2.0),
    ] {
        let got = sums.get(&format!("tiers_total tier={tier} state={state}"));
        assert_eq!(got, Some(count), "{tier} {state}");
    }

    let server = Server::start(Flavor::Redis).unwrap();
    let open = Breaker::new(support::over(support::pool(server.url()).await), WhenAway::Admit);
    server.kill().unwrap();
    assert!(open.acquire(&policy, &Demand::new()).await.unwrap().is_admitted());
    assert_eq!(sums.get("unchecked_total"), Some(1.0));
    assert_eq!(sums.get("decisions_total outcome=error"), Some(1.0));
}

fn tokens_of_a_trial() -> inferkit_ratelimit::Tier {
    let limit = inferkit_ratelimit::Limit::new(55, support::YEAR, inferkit_ratelimit::Unit::Tokens);
    support::tier("trial", limit.unwrap())
}
