use std::fmt::Debug;

use async_trait::async_trait;

use crate::{Answer, Feedback, Hit, Request, VerifierError};

/// What compares a fresh answer with that of a near candidate which was not served: a rule, or a model that judges.
///
/// A [`Coalescer`](crate::Coalescer) asks it whenever the adaptive policy had to explore; what it finds is
/// [reported](crate::SemanticCache::report).
#[async_trait]
pub trait Judge: Debug + Send + Sync + 'static {
    /// Tells whether the candidate's answer would have been right for `asked`, whose own answer is `fresh`.
    ///
    /// # Errors
    ///
    /// If it cannot tell; nothing is learned then.
    async fn judge(
        &self,
        asked: &Request,
        fresh: &Answer,
        candidate: &Hit,
    ) -> Result<Feedback, VerifierError>;
}

/// A judge by which only an answer of the same bytes is right: for answers out of a fixed set, such as labels.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct SameAnswer;

#[async_trait]
impl Judge for SameAnswer {
    async fn judge(
        &self,
        _: &Request,
        fresh: &Answer,
        candidate: &Hit,
    ) -> Result<Feedback, VerifierError> {
        let same = *fresh.response() == candidate.response;
        Ok(if same { Feedback::Right } else { Feedback::Wrong })
    }
}
