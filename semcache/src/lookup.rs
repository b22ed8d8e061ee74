use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use inferkit_vectorsearch::{Similarity, Vector};

use crate::adaptive::Trial;
use crate::{Answer, EntryId, Finish, Request};

/// What a lookup found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Lookup {
    /// The answer to the very same request.
    Exact(Hit),
    /// The answer to a request whose prompt is similar enough.
    Semantic(Hit),
    /// An answer that came close and must not be served as it is.
    Near(Box<Near>),
    /// Nothing that may be served.
    Miss(Miss),
}

impl Lookup {
    /// Returns the hit, if it is one.
    #[must_use]
    pub fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Exact(hit) | Self::Semantic(hit) => Some(hit),
            Self::Near(_) | Self::Miss(_) => None,
        }
    }

    /// Returns the miss, if it is no hit.
    #[must_use]
    pub fn miss(&self) -> Option<&Miss> {
        match self {
            Self::Exact(_) | Self::Semantic(_) => None,
            Self::Near(near) => Some(&near.miss),
            Self::Miss(miss) => Some(miss),
        }
    }

    /// Returns the hit, or the miss.
    ///
    /// # Errors
    ///
    /// The [`Miss`], which [`SemanticCache::store`](crate::SemanticCache::store) takes with the answer.
    #[expect(clippy::result_large_err, reason = "a miss is no error: it is passed on once")]
    pub fn into_hit(self) -> Result<Hit, Miss> {
        match self {
            Self::Exact(hit) | Self::Semantic(hit) => Ok(hit),
            Self::Near(near) => Err(near.miss),
            Self::Miss(miss) => Err(miss),
        }
    }

    /// Returns `exact`, `semantic`, `near` or `miss`, for logs and metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Semantic(_) => "semantic",
            Self::Near(_) => "near",
            Self::Miss(_) => "miss",
        }
    }
}

/// An answer that may be served.
///
/// `Debug` prints neither prompt nor answer.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Hit {
    /// The entry.
    pub id: EntryId,
    /// The prompt that was answered.
    pub prompt: Arc<str>,
    /// The answer.
    pub response: Bytes,
    /// How similar the prompt that was answered is to the one that was asked; 1 if it is the same.
    pub similarity: Similarity,
    /// The model that answered.
    pub model: Arc<str>,
    /// The number of tokens that the answer cost, if known.
    pub tokens_used: Option<u64>,
    /// How many of them are the answer's own, if known.
    pub completion_tokens: Option<u64>,
    /// How the model ended: [`Finish::Truncated`] if the answer was stored although a limit had cut it off.
    pub finish: Finish,
    /// When it was stored, since the Unix epoch, to the second, by the server's clock.
    pub stored_at: Duration,
    pub(crate) trial: Option<Trial>,
}

impl Hit {
    /// Makes a hit, for an implementor of [`SemanticCache`](crate::SemanticCache).
    #[must_use]
    pub fn new(
        id: EntryId,
        prompt: impl Into<Arc<str>>,
        answer: &Answer,
        similarity: Similarity,
        model: impl Into<Arc<str>>,
        stored_at: Duration,
    ) -> Self {
        Self {
            id,
            prompt: prompt.into(),
            response: answer.response().clone(),
            similarity,
            model: model.into(),
            tokens_used: answer.tokens_used(),
            completion_tokens: answer.completion_tokens(),
            finish: answer.finish(),
            stored_at,
            trial: None,
        }
    }

    /// Returns the answer as text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        str::from_utf8(&self.response).ok()
    }

    /// Returns the answer as it was stored; its tags are not known.
    #[must_use]
    pub fn answer(&self) -> Answer {
        Answer::of_hit(self.response.clone(), self.tokens_used, self.completion_tokens, self.finish)
    }
}

impl Debug for Hit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("id", &self.id)
            .field("similarity", &self.similarity)
            .field("model", &self.model)
            .field("tokens_used", &self.tokens_used)
            .field("stored_at", &self.stored_at)
            .finish_non_exhaustive()
    }
}

/// An answer that came close.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Near {
    /// The candidate; its answer is not known to fit.
    pub candidate: Hit,
    /// Why it is not a hit.
    pub reason: Rejection,
    /// What storing the answer to the request takes.
    pub miss: Miss,
}

impl Near {
    /// Makes one, for an implementor of [`SemanticCache`](crate::SemanticCache).
    #[must_use]
    pub fn new(candidate: Hit, reason: Rejection, miss: Miss) -> Self {
        Self { candidate, reason, miss }
    }
}

/// Why a candidate is not a hit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Rejection {
    /// The [adaptive policy](crate::Policy::adaptive) does not know it well enough, or checks it: compare its answer with a fresh
    /// one and [report](crate::SemanticCache::report) the candidate.
    Explored,
    /// It was served for this request once, and reported as wrong.
    Feedback,
    /// Its prompt is less similar than the threshold, by less than the policy's margin.
    Threshold,
    /// The [`Verifier`](crate::Verifier) refused it.
    Verifier,
}

/// Nothing that may be served.
///
/// Pass it to [`SemanticCache::store`](crate::SemanticCache::store) with the answer: then the prompt is not embedded
/// again, and an answer that was asked for before a flush is not stored after it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Miss {
    /// The id of the request that was looked up; the miss stores the answer to no other.
    pub request: EntryId,
    /// The prompt's vector; none where the request uses the exact tier only.
    pub embedding: Option<Vector>,
    /// The most similar entry, if there is any.
    pub nearest: Option<Nearest>,
    /// Whether the server stopped before it had looked everywhere, so that there may be an answer after all; most often
    /// its time was over.
    pub partial: bool,
    epoch: Option<Arc<str>>,
    fence: Option<u64>,
    pub(crate) explored: Option<Box<Explored>>,
    pub(crate) kin: Option<EntryId>,
    /// Entries whose answers turned out to agree with those of `kin`.
    pub(crate) joined: Vec<EntryId>,
}

/// What an adaptive policy did not serve, or checks.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explored {
    /// The nearest different answers, the nearest first: that is the candidate.
    pub(crate) answers: Vec<Alternative>,
    pub(crate) reason: Rejection,
}

/// One of several answers that are near.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Alternative {
    /// The most similar entry that has it.
    pub(crate) hit: Hit,
    pub(crate) kin: EntryId,
    /// All entries among the neighbors that have it.
    pub(crate) ids: Vec<EntryId>,
}

impl Miss {
    /// Makes the miss of a request.
    #[must_use]
    pub fn new(request: &Request, embedding: Option<Vector>) -> Self {
        Self {
            request: request.id(),
            embedding,
            nearest: None,
            partial: false,
            epoch: None,
            fence: None,
            explored: None,
            kin: None,
            joined: Vec::new(),
        }
    }

    /// Sets the most similar entry.
    #[must_use]
    pub fn with_nearest(mut self, nearest: Option<Nearest>) -> Self {
        self.nearest = nearest;
        self
    }

    /// Sets whether the search stopped before it had looked everywhere.
    #[must_use]
    pub fn with_partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }

    /// Sets the epoch of the tenant at the time of the lookup: an answer is not stored if there is another by then.
    #[must_use]
    pub fn with_epoch(mut self, epoch: impl Into<Arc<str>>) -> Self {
        self.epoch = Some(epoch.into());
        self
    }

    /// Sets a fencing token: the answer is not stored over one that was stored with a greater token.
    ///
    /// Tokens are those of a [`Lease`](inferkit_core::Lease), up to 2^53.
    #[must_use]
    pub fn with_fence(mut self, token: u64) -> Self {
        self.fence = Some(token);
        self
    }

    /// Takes note that the answer agrees with that of the candidate, so that both speak for each other.
    #[must_use]
    pub fn with_agreement(mut self, candidate: &Hit) -> Self {
        self.kin = Some(candidate.trial.map_or(candidate.id, |trial| trial.kin));
        self
    }

    /// Takes note that the answer agrees with one of several that are near.
    pub(crate) fn agree(&mut self, answer: &Alternative) {
        match self.kin {
            None => self.kin = Some(answer.kin),
            Some(kin) if kin != answer.kin => self.joined.extend(&answer.ids),
            Some(_) => {}
        }
    }

    /// Returns the epoch of the tenant at the time of the lookup, if there was one.
    #[must_use]
    pub fn epoch(&self) -> Option<&str> {
        self.epoch.as_deref()
    }

    /// Returns the fencing token.
    #[must_use]
    pub fn fence(&self) -> Option<u64> {
        self.fence
    }
}

/// The most similar entry of a lookup.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Nearest {
    /// The entry.
    pub id: EntryId,
    /// How similar its prompt is.
    pub similarity: Similarity,
}

impl Nearest {
    /// Makes one.
    #[must_use]
    pub fn new(id: EntryId, similarity: Similarity) -> Self {
        Self { id, similarity }
    }
}

/// What came of storing an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stored {
    /// It is stored under this id.
    Kept(EntryId),
    /// It is not, for this reason.
    Skipped(Skip),
}

impl Stored {
    /// Returns the id, if the answer was stored.
    #[must_use]
    pub fn id(self) -> Option<EntryId> {
        match self {
            Self::Kept(id) => Some(id),
            Self::Skipped(_) => None,
        }
    }

    /// Returns `stored`, or why not, for logs and metrics.
    #[must_use]
    pub fn outcome(self) -> &'static str {
        match self {
            Self::Kept(_) => "stored",
            Self::Skipped(Skip::Failed) => "failed",
            Self::Skipped(Skip::Flushed) => "flushed",
            Self::Skipped(Skip::NoStore) => "no_store",
            Self::Skipped(Skip::Superseded) => "superseded",
            Self::Skipped(Skip::TooLong) => "too_long",
            Self::Skipped(Skip::Truncated) => "truncated",
        }
    }
}

/// Why an answer was not stored.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Skip {
    /// The model failed, or a filter stopped it.
    Failed,
    /// The tenant's entries were flushed after the request was looked up.
    Flushed,
    /// The request asked for it.
    NoStore,
    /// An answer with a greater fencing token is there.
    Superseded,
    /// It is longer than the policy allows.
    TooLong,
    /// A limit cut it off.
    Truncated,
}
