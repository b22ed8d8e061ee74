//! What the gateway did: for the page, for the log of events, and for the features made of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc};

/// How many requests the page is given at its start.
const REMEMBERED: usize = 60;

/// One request, when it is over.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Served {
    /// Milliseconds since 1970.
    pub(crate) at: u64,
    pub(crate) request: String,
    pub(crate) path: String,
    /// The name of the caller, never the key.
    pub(crate) caller: String,
    pub(crate) plan: String,
    pub(crate) model: String,
    pub(crate) upstream: Option<String>,
    /// `exact`, `semantic`, `shared`, `miss`, `bypass`, `limited`, `failed`, `gone` (the caller went away), `embedded`, or
    /// `computed`, `exact` or `precomputed` of a recommendation.
    pub(crate) outcome: String,
    pub(crate) similarity: Option<f64>,
    pub(crate) status: u16,
    pub(crate) millis: f64,
    pub(crate) tokens: u64,
    pub(crate) saved_micros: u64,
    pub(crate) cost_micros: u64,
    pub(crate) session: Option<String>,
    /// The beginning of the question; not part of events.
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub(crate) prompt: Option<String>,
}

/// Sums since the gateway started.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Totals {
    pub(crate) requests: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) saved_micros: u64,
    pub(crate) cost_micros: u64,
    pub(crate) callers: BTreeMap<String, u64>,
    /// Events that could not be published.
    pub(crate) lost_events: u64,
}

/// The requests of this gateway, as they end.
#[derive(Debug)]
pub(crate) struct Live {
    page: broadcast::Sender<Served>,
    events: mpsc::Sender<Served>,
    // A `std` mutex: it is held for a few additions, never across an await.
    kept: Mutex<(Totals, VecDeque<Served>)>,
}

impl Live {
    /// Returns it, and where the events come out that are to be published.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Served>) {
        let (events, out) = mpsc::channel(4096);
        let page = broadcast::Sender::new(256);
        (Self { page, events, kept: Mutex::default() }, out)
    }

    /// Notes a request that is over; it waits for nobody.
    pub(crate) fn note(&self, served: Served) {
        let event = Served { prompt: None, ..served.clone() };
        let lost = self.events.try_send(event).is_err();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (totals, last) = &mut *kept;
        totals.requests += 1;
        totals.saved_micros += served.saved_micros;
        totals.cost_micros += served.cost_micros;
        totals.lost_events += u64::from(lost);
        *totals.outcomes.entry(served.outcome.clone()).or_default() += 1;
        *totals.callers.entry(served.caller.clone()).or_default() += 1;
        last.push_back(served.clone());
        if REMEMBERED < last.len() {
            last.pop_front();
        }
        drop(kept);
        // Nobody may be looking.
        let _ = self.page.send(served);
    }

    pub(crate) fn lost(&self, events: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.0.lost_events += events as u64;
    }

    pub(crate) fn totals(&self) -> Totals {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Returns the last requests, and what comes after them.
    pub(crate) fn follow(&self) -> (Vec<Served>, broadcast::Receiver<Served>) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        (kept.1.iter().cloned().collect(), self.page.subscribe())
    }
}

/// Milliseconds since 1970, for people to read.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
