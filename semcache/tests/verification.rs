//! Verifiers that fail, hang and follow each other.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_semcache::conformance::{Compass, policy};
use inferkit_semcache::{
    Hit, Lookup, MemorySemanticCache, OnVerifierError, Rejection, Request, SemanticCache, Verdict,
    Verification, Verifier, VerifierError,
};
use support::{answer, request};

/// What a verifier says, and how often it was asked.
#[derive(Debug)]
struct Judge {
    says: Says,
    asked: AtomicUsize,
}

#[derive(Clone, Copy, Debug)]
enum Says {
    Accept,
    Reject,
    Fails,
    Hangs,
}

#[async_trait]
impl Verifier for Judge {
    async fn verify(&self, _: &Request, _: &Hit) -> Result<Verdict, VerifierError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.says {
            Says::Accept => Ok(Verdict::Accept),
            Says::Reject => Ok(Verdict::Reject),
            Says::Fails => Err("it is out".into()),
            Says::Hangs => std::future::pending().await,
        }
    }
}

fn judge(says: Says) -> Arc<Judge> {
    Arc::new(Judge { says, asked: AtomicUsize::new(0) })
}

fn by(judge: &Arc<Judge>) -> Verification {
    Verification::new(Arc::<Judge>::clone(judge)).with_timeout(Duration::from_millis(50))
}

async fn outcome(verification: Verification) -> Lookup {
    let policy = policy().with_verification(verification);
    let cache = MemorySemanticCache::new(Arc::new(Compass::default()), policy);
    for angle in 1..6 {
        cache.store(&request(&format!("1@{angle}")), &answer("yes"), None).await.unwrap();
    }
    cache.lookup(&request("1@0")).await.unwrap()
}

#[tokio::test]
async fn what_cannot_be_told_is_refused_or_served_as_wanted() {
    for says in [Says::Fails, Says::Hangs] {
        let start = Instant::now();
        let closed = outcome(by(&judge(says))).await;
        assert!(matches!(closed, Lookup::Near(near) if near.reason == Rejection::Verifier));
        let open = by(&judge(says)).with_on_error(OnVerifierError::Accept);
        assert!(matches!(outcome(open).await, Lookup::Semantic(_)));
        assert!(start.elapsed() < Duration::from_secs(5), "the time limit holds");
    }
}

#[tokio::test]
async fn only_so_many_candidates_are_asked_for() {
    for (candidates, expected) in [(0, 1), (1, 1), (2, 2), (9, 5)] {
        let reject = judge(Says::Reject);
        let lookup = outcome(by(&reject).with_candidates(candidates)).await;
        assert!(matches!(lookup, Lookup::Near(_)));
        assert_eq!(reject.asked.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_second_verifier_is_asked_only_for_what_the_first_accepts() {
    for (first, second, hit, asked) in [
        (Says::Accept, Says::Accept, true, 1),
        (Says::Accept, Says::Reject, false, 3),
        (Says::Reject, Says::Accept, false, 0),
    ] {
        let (first, second) = (judge(first), judge(second));
        let lookup = outcome(by(&first).then(by(&second))).await;
        assert_eq!(lookup.hit().is_some(), hit);
        assert_eq!(second.asked.load(Ordering::SeqCst), asked);
    }
    let last = judge(Says::Reject);
    let accept = || by(&judge(Says::Accept));
    outcome(accept().then(accept()).then(by(&last))).await;
    assert_eq!(last.asked.load(Ordering::SeqCst), 3, "three in a row");
}
