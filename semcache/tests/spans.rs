//! What needs no server: a driver of the test's own stands in for it, and a subscriber looks at the spans.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use inferkit_core::{Batch, Cmd, Driver, Error as CoreError, ErrorKind, Reply, Result};
use inferkit_semcache::conformance::Compass;
use inferkit_semcache::{RedisSemanticCache, SemanticCache, SemanticCacheExt as _};
use support::{answer, request};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// A server where nothing is stored, whose searches run out of time; or one that is gone.
#[derive(Debug)]
struct Canned {
    gone: bool,
}

#[async_trait]
impl Driver for Canned {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        if self.gone {
            return Err(CoreError::new(ErrorKind::Connection, "the server is gone"));
        }
        let text = |text: &'static str| Reply::Bulk(text.into());
        Ok(match cmd.iter().next().unwrap() {
            b"HMGET" => Reply::Array(vec![Reply::Nil; 8]),
            b"GET" => Reply::Nil,
            b"FT.SEARCH" => Reply::Map(vec![
                (text("results"), Reply::Array(Vec::new())),
                (text("warning"), Reply::Array(vec![text("Timeout limit was reached")])),
            ]),
            b"EVALSHA" => Reply::Int(1),
            _ => Reply::Int(0),
        })
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        let mut replies = Vec::new();
        for cmd in batch.into_cmds() {
            replies.push(self.call(cmd).await);
        }
        Ok(replies)
    }
}

/// Keeps the names of the spans of this crate, and their outcomes.
#[derive(Clone, Debug, Default)]
struct Spans(Arc<Mutex<Vec<(&'static str, String)>>>);

struct Outcome<'a>(&'a mut String);

impl Visit for Outcome<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "outcome" {
            *self.0 = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "outcome" {
            value.clone_into(self.0);
        }
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.name().starts_with("semcache.")
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut spans = self.0.lock().unwrap();
        spans.push((attributes.metadata().name(), String::new()));
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let index = usize::try_from(span.into_u64()).unwrap() - 1;
        let mut spans = self.0.lock().unwrap();
        values.record(&mut Outcome(&mut spans.get_mut(index).unwrap().1));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

fn cache(gone: bool) -> RedisSemanticCache {
    let driver = Arc::new(Canned { gone });
    RedisSemanticCache::new(driver, Arc::new(Compass::default()), support::config()).unwrap()
}

// The only test of this file: a thread without a subscriber could disable the spans for all.
#[tokio::test]
async fn every_call_has_a_span_that_tells_how_it_went() {
    let spans = Spans::default();
    let _guard = tracing::subscriber::set_default(spans.clone());
    for gone in [false, true] {
        let cache = cache(gone);
        match cache.lookup(&request("1@0")).await {
            Ok(lookup) => assert!(lookup.into_hit().unwrap_err().partial, "the time was over"),
            Err(error) => assert!(gone, "{error:?}"),
        }
        assert_eq!(cache.store(&request("1@0"), &answer("yes"), None).await.is_err(), gone);
        assert_eq!(cache.forget(&request("1@0")).await.is_err(), gone);
    }
    let spans = spans.0.lock().unwrap().clone();
    let expected = [
        ("semcache.lookup", "miss"),
        ("semcache.store", "stored"),
        ("semcache.remove", "absent"),
        ("semcache.lookup", "error"),
        ("semcache.store", "error"),
        ("semcache.remove", "error"),
    ];
    assert_eq!(spans, expected.map(|(name, outcome)| (name, outcome.to_owned())));
}
