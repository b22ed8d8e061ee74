use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;

use crate::{Hit, Request};

/// Why a verifier could not tell.
pub type VerifierError = Box<dyn std::error::Error + Send + Sync>;

/// What checks whether the answer to one prompt may be given to another: a model that compares both, or a few rules.
///
/// It is asked for candidates that are similar enough, the most similar first, and before any of them is served.
#[async_trait]
pub trait Verifier: Debug + Send + Sync + 'static {
    /// Tells whether `candidate` answers `asked`.
    ///
    /// Both belong to the same tenant, model and context.
    ///
    /// # Errors
    ///
    /// If it cannot tell; [`Verification`] says what happens then.
    async fn verify(&self, asked: &Request, candidate: &Hit) -> Result<Verdict, VerifierError>;
}

/// What a [`Verifier`] found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// The answer may be served.
    Accept,
    /// It may not.
    Reject,
}

/// What happens when a [`Verifier`] fails or takes too long.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnVerifierError {
    /// The candidate is not served.
    #[default]
    Reject,
    /// The candidate is served, as it would be without a verifier.
    Accept,
}

/// A [`Verifier`] and how it is used.
#[derive(Clone, Debug)]
#[must_use]
pub struct Verification {
    verifier: Arc<dyn Verifier>,
    timeout: Duration,
    on_error: OnVerifierError,
    candidates: usize,
    then: Option<Box<Self>>,
}

impl Verification {
    /// Uses `verifier` with a time limit of a second, on up to 3 candidates, and rejects what it cannot tell.
    pub fn new(verifier: Arc<dyn Verifier>) -> Self {
        Self {
            verifier,
            timeout: Duration::from_secs(1),
            on_error: OnVerifierError::default(),
            candidates: 3,
            then: None,
        }
    }

    /// Sets how long it may take for one candidate.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets what happens when it fails or takes too long.
    pub fn with_on_error(mut self, on_error: OnVerifierError) -> Self {
        self.on_error = on_error;
        self
    }

    /// Sets how many candidates are looked at, one at least.
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates.max(1);
        self
    }

    /// Lets `next` check what this one accepts: a cheap one first, a model that judges behind it.
    pub fn then(mut self, next: Self) -> Self {
        self.then = Some(Box::new(match self.then.take() {
            Some(then) => then.then(next),
            None => next,
        }));
        self
    }

    /// Returns how many candidates are looked at.
    #[must_use]
    pub fn candidates(&self) -> usize {
        self.candidates
    }

    /// Tells whether `candidate` may be served for `asked`.
    pub async fn accepts(&self, asked: &Request, candidate: &Hit) -> bool {
        let mut next = Some(self);
        while let Some(this) = next {
            let mut asking = this.verifier.verify(asked, candidate);
            // Rules answer at once: a timer for them would cost more than they do.
            let outcome = match (&mut asking).now_or_never() {
                Some(outcome) => Ok(outcome),
                None => tokio::time::timeout(this.timeout, asking).await,
            };
            let accepted = match outcome {
                Ok(Ok(verdict)) => verdict == Verdict::Accept,
                Ok(Err(error)) => {
                    // Its text may hold what it was asked.
                    drop(error);
                    tracing::warn!(on_error = ?this.on_error, "a verifier failed");
                    this.on_error == OnVerifierError::Accept
                }
                Err(_) => {
                    tracing::warn!(on_error = ?this.on_error, "a verifier took too long");
                    this.on_error == OnVerifierError::Accept
                }
            };
            if !accepted {
                return false;
            }
            next = this.then.as_deref();
        }
        true
    }
}
