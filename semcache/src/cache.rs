use std::fmt;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_vectorsearch::{Similarity, Vector};

use crate::{Answer, EntryId, Error, Request, Result, Tenant};

/// Answers to requests, found by the request or by one that means the same: the contract with those who implement one.
///
/// Callers use [`SemanticCacheExt`] besides.
#[async_trait]
pub trait SemanticCache: Debug + Send + Sync + 'static {
    /// Looks for the answer to a request: first to the very same one, then to the most similar prompt among those of the
    /// same tenant, model and context that the same embedding model embedded.
    ///
    /// Only the second step embeds the prompt; the vector is part of a [`Miss`], for [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// [`Error::PromptTooLong`](crate::Error::PromptTooLong);
    /// [`Error::Embedder`](crate::Error::Embedder), [`Error::InvalidEmbedding`](crate::Error::InvalidEmbedding) and
    /// [`Error::DimensionMismatch`](crate::Error::DimensionMismatch) if the prompt could not be embedded;
    /// [`Error::UnknownVersion`](crate::Error::UnknownVersion) if the answer was stored by a later release;
    /// [`Error::Search`](crate::Error::Search) and [`Error::Backend`](crate::Error::Backend) if the server could not be
    /// asked.
    async fn lookup(&self, request: &Request) -> Result<Lookup>;

    /// Stores the answer to a request, in the place of an older one, for the time that the policy gives its model.
    ///
    /// `embedding` is the prompt's vector, from a [`Miss`]; without it the prompt is embedded.
    /// Repeating the call is safe.
    ///
    /// # Errors
    ///
    /// As [`lookup`](Self::lookup); nothing is stored then, except that after a timeout the answer may be.
    async fn store(
        &self,
        request: &Request,
        answer: &Answer,
        embedding: Option<Vector>,
    ) -> Result<EntryId>;

    /// Removes an entry of a tenant; `false` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool>;
}

/// What callers do with a [`SemanticCache`].
pub trait SemanticCacheExt: SemanticCache {
    /// Stores the answer to a request that was missed, without embedding it again.
    ///
    /// # Errors
    ///
    /// [`Error::MissOfAnotherRequest`] if the miss is not that of `request`, whose vector it would be stored under; nothing
    /// is stored then. Else as [`SemanticCache::store`].
    fn fill(
        &self,
        request: &Request,
        answer: &Answer,
        miss: Miss,
    ) -> impl Future<Output = Result<EntryId>> + Send {
        async move {
            if miss.request != request.id() {
                return Err(Error::MissOfAnotherRequest);
            }
            self.store(request, answer, miss.embedding).await
        }
    }

    /// Removes the entry of this very request; `false` if there is none.
    ///
    /// # Errors
    ///
    /// As [`SemanticCache::remove`].
    fn forget(&self, request: &Request) -> impl Future<Output = Result<bool>> + Send {
        async move { self.remove(request.tenant(), &request.id()).await }
    }
}

impl<C: SemanticCache + ?Sized> SemanticCacheExt for C {}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<C: SemanticCache + ?Sized> SemanticCache for $pointer<C> {
            async fn lookup(&self, request: &Request) -> Result<Lookup> {
                (**self).lookup(request).await
            }

            async fn store(
                &self,
                request: &Request,
                answer: &Answer,
                embedding: Option<Vector>,
            ) -> Result<EntryId> {
                (**self).store(request, answer, embedding).await
            }

            async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
                (**self).remove(tenant, id).await
            }
        }
    )*};
}
forward!(Arc, Box);

/// What a lookup found.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Lookup {
    /// The answer to the very same request.
    Exact(Hit),
    /// The answer to a request whose prompt is similar enough.
    Semantic(Hit),
    /// Nothing that may be served.
    Miss(Miss),
}

impl Lookup {
    /// Returns the hit, if it is one.
    #[must_use]
    pub fn hit(&self) -> Option<&Hit> {
        match self {
            Self::Exact(hit) | Self::Semantic(hit) => Some(hit),
            Self::Miss(_) => None,
        }
    }

    /// Returns the hit, or the miss.
    ///
    /// # Errors
    ///
    /// The [`Miss`], with the vector that [`SemanticCacheExt::fill`] takes.
    pub fn into_hit(self) -> Result<Hit, Miss> {
        match self {
            Self::Exact(hit) | Self::Semantic(hit) => Ok(hit),
            Self::Miss(miss) => Err(miss),
        }
    }

    /// Returns `exact`, `semantic` or `miss`, for logs and metrics.
    #[must_use]
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Semantic(_) => "semantic",
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
    /// When it was stored, since the Unix epoch, to the second, by the server's clock.
    pub stored_at: Duration,
}

impl Hit {
    /// Makes a hit, for an implementor of [`SemanticCache`].
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
            stored_at,
        }
    }

    /// Returns the answer as text, if it is text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        str::from_utf8(&self.response).ok()
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

/// Nothing that may be served.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Miss {
    /// The id of the request that was looked up; [`SemanticCacheExt::fill`] takes the miss for no other.
    pub request: EntryId,
    /// The prompt's vector, so that storing the answer needs no second embedding.
    pub embedding: Option<Vector>,
    /// The most similar entry, which is not similar enough.
    pub nearest: Option<Near>,
    /// Whether the server stopped before it had looked everywhere, so that there may be an answer after all; most often
    /// its time was over.
    pub partial: bool,
}

impl Miss {
    /// Makes the miss of a request, for an implementor of [`SemanticCache`].
    #[must_use]
    pub fn new(request: &Request, embedding: Option<Vector>, nearest: Option<Near>) -> Self {
        Self { request: request.id(), embedding, nearest, partial: false }
    }

    /// Sets whether the search stopped before it had looked everywhere.
    #[must_use]
    pub fn with_partial(mut self, partial: bool) -> Self {
        self.partial = partial;
        self
    }
}

/// An entry that is not similar enough to be served.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Near {
    /// The entry.
    pub id: EntryId,
    /// How similar its prompt is.
    pub similarity: Similarity,
}

impl Near {
    /// Makes one.
    #[must_use]
    pub fn new(id: EntryId, similarity: Similarity) -> Self {
        Self { id, similarity }
    }
}
