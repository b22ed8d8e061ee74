//! What needs no server: a driver of the test's own stands in for it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{Batch, Cmd, Driver, Error as CoreError, ErrorKind, Reply, Result};
use inferkit_vectorsearch::{
    Error, Filter, Knn, RedisVectorIndex, Schema, Vector, VectorField, VectorIndexExt as _,
};

/// Answers every command alike, after a while, and counts them.
#[derive(Debug)]
struct Canned {
    reply: Reply,
    wait: Duration,
    calls: AtomicUsize,
}

#[async_trait]
impl Driver for Canned {
    async fn call(&self, _: Cmd) -> Result<Reply> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.wait).await;
        match &self.reply {
            Reply::Error(text) => Err(CoreError::server(text.clone())),
            reply => Ok(reply.clone()),
        }
    }

    async fn pipeline(&self, _: Batch) -> Result<Vec<Result<Reply>>> {
        Err(CoreError::new(ErrorKind::Config, "this driver takes single commands"))
    }
}

fn index(reply: Reply, wait: Duration) -> (Arc<Canned>, RedisVectorIndex) {
    let driver = Arc::new(Canned { reply, wait, calls: AtomicUsize::new(0) });
    let schema = Schema::builder("docs", "docs:", VectorField::flat("v", 2)).build().unwrap();
    (Arc::<Canned>::clone(&driver), RedisVectorIndex::new(driver, schema))
}

fn knn(components: &[f32]) -> Knn {
    Knn::new("v", Vector::new(components).unwrap(), 1, Filter::all()).unwrap()
}

#[tokio::test]
async fn a_query_that_does_not_fit_is_refused_before_any_round_trip() {
    let (driver, index) = index(Reply::Array(vec![Reply::Int(0)]), Duration::ZERO);
    let error = index.knn(&knn(&[1.0, 0.0, 0.0])).await.unwrap_err();
    assert!(matches!(error, Error::DimensionMismatch { expected: 2, got: 3, .. }), "{error:?}");
    assert_eq!(driver.calls.load(Ordering::SeqCst), 0);
    index.knn(&knn(&[1.0, 0.0])).await.unwrap();
    assert_eq!(driver.calls.load(Ordering::SeqCst), 1, "a search is one round trip");
}

#[tokio::test]
async fn a_short_answer_after_the_time_limit_is_partial_where_the_reply_cannot_tell() {
    let limit = Duration::from_millis(10);
    let (_, slow) = index(Reply::Array(vec![Reply::Int(0)]), 2 * limit);
    assert!(slow.knn(&knn(&[1.0, 0.0]).with_timeout(limit)).await.unwrap().partial);
    assert!(!slow.knn(&knn(&[1.0, 0.0])).await.unwrap().partial);
    let results = (Reply::Status("results".into()), Reply::Array(Vec::new()));
    let (_, slow) = index(Reply::Map(vec![results]), 2 * limit);
    assert!(!slow.knn(&knn(&[1.0, 0.0]).with_timeout(limit)).await.unwrap().partial);
}

#[tokio::test]
async fn an_index_that_never_finishes_is_given_up_after_the_time_limit() {
    let word = |text: &'static str| Reply::Bulk(text.into());
    let info = [word("indexing"), Reply::Int(1), word("percent_indexed"), word("0.125")];
    let (driver, index) = index(Reply::Array(info.to_vec()), Duration::ZERO);
    let error = index.wait_until_indexed(Duration::from_millis(60)).await.unwrap_err();
    assert!(error.to_string().contains("12.5 %"), "{error}");
    let looks = driver.calls.load(Ordering::SeqCst);
    assert!((3..=8).contains(&looks), "{looks} looks with pauses of 5, 10, 20, ... ms");
}

#[tokio::test]
async fn a_refusal_that_is_not_about_the_index_stays_what_it_is() {
    let (_, index) = index(Reply::Error("LOADING Redis is loading".into()), Duration::ZERO);
    for error in [
        index.knn(&knn(&[1.0, 0.0])).await.unwrap_err(),
        index.ensure_index().await.unwrap_err(),
        index.drop_index().await.unwrap_err(),
    ] {
        assert!(matches!(error, Error::Backend(_)) && error.is_transient(), "{error:?}");
    }
}
