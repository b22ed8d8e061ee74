use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{
    Answer, Cursor, EntryId, Hit, Lookup, Miss, Record, Request, Result, Selection, Stored, Tenant,
};

/// Answers to requests, found by the request or by one that means the same: the contract with those who implement one.
///
/// Callers use [`SemanticCacheExt`] besides, and a [`Coalescer`](crate::Coalescer) so that concurrent callers with the
/// same question share one answer.
#[async_trait]
pub trait SemanticCache: Debug + Send + Sync + 'static {
    /// Looks for the answer to a request: first to the very same one, then to the most similar prompt among those of
    /// requests that are equal in everything else and whose prompts the same embedding model embedded.
    ///
    /// Only the second step embeds the prompt, and requests that the [policy](crate::Policy::is_semantic) keeps out of the
    /// semantic tier never do; the vector is part of the [`Miss`], for [`store`](Self::store).
    ///
    /// # Errors
    ///
    /// [`Error::Embedder`](crate::Error::Embedder), [`Error::InvalidEmbedding`](crate::Error::InvalidEmbedding) and
    /// [`Error::DimensionMismatch`](crate::Error::DimensionMismatch) if the prompt could not be embedded;
    /// [`Error::UnknownVersion`](crate::Error::UnknownVersion) and [`Error::Encoding`](crate::Error::Encoding) if the
    /// answer was stored by a later release or another build;
    /// [`Error::Search`](crate::Error::Search) and [`Error::Backend`](crate::Error::Backend) if the server could not be
    /// asked.
    async fn lookup(&self, request: &Request) -> Result<Lookup>;

    /// Stores the answer to a request, in the place of an older one of which nothing is left, for the time that the
    /// policy gives.
    ///
    /// `miss` is what the lookup returned; without it the prompt is embedded here.
    /// An answer that is not worth keeping, or that came too late, is not stored, and that is no error.
    /// Repeating the call is safe.
    ///
    /// # Errors
    ///
    /// [`Error::MissOfAnotherRequest`](crate::Error::MissOfAnotherRequest); else as [`lookup`](Self::lookup).
    /// Nothing is stored then, except that after a timeout the answer may be.
    async fn store(&self, request: &Request, answer: &Answer, miss: Option<Miss>)
    -> Result<Stored>;

    /// Stores many answers: their prompts are embedded in one call, and they are written in one round trip.
    ///
    /// # Errors
    ///
    /// As [`store`](Self::store); some may be stored then, and repeating the call is safe.
    async fn store_many(&self, answers: &[(Request, Answer)]) -> Result<Vec<Stored>>;

    /// Removes an entry of a tenant; `false` if there is none.
    ///
    /// One that a flush took out of use may count until its memory is freed.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool>;

    /// Removes the selected entries, and returns how many there were.
    ///
    /// Its cost grows with their number. Entries that are stored meanwhile may stay, and those that a flush took out of use
    /// may count until their memory is freed.
    ///
    /// # Errors
    ///
    /// [`Error::Search`](crate::Error::Search) and [`Error::Backend`](crate::Error::Backend); some may be removed then.
    async fn invalidate(&self, selection: &Selection) -> Result<u64>;

    /// Takes all entries of a tenant out of use at once, however many there are.
    ///
    /// Their memory is freed when they expire.
    /// An answer that was looked up before and is stored after is not kept, except where the tenant had no entries.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn flush(&self, tenant: &Tenant) -> Result<()>;

    /// Takes note of whether a hit was right for the request that it was served for; `false` if its entry is gone.
    ///
    /// After [`Feedback::Wrong`] it is never served for this request again: an exact hit's entry is removed, since its
    /// answer is wrong for its own question; a semantic hit's entry stays for others.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn report(&self, asked: &Request, hit: &Hit, feedback: Feedback) -> Result<bool>;

    /// Reads some entries to be [imported](Self::import_many) elsewhere, and where to go on; all of them in the end.
    ///
    /// Entries that are stored meanwhile may be missing, and some may come twice.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn export_some(&self, from: Option<Cursor>) -> Result<(Vec<Record>, Option<Cursor>)>;

    /// Stores entries that were exported, for the time that they had left; returns how many.
    ///
    /// They belong to the tenants and requests that they belonged to.
    ///
    /// # Errors
    ///
    /// [`Error::Record`](crate::Error::Record) if one is not an entry that can be stored here, and nothing is stored then;
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked: repeating the call is safe.
    async fn import_many(&self, records: &[Record]) -> Result<u64>;
}

/// Whether a hit was right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Feedback {
    /// The answer fits the question.
    Right,
    /// It does not.
    Wrong,
}

/// How many answers a warm-up embeds and writes at a time.
const WARM_UP_CHUNK: usize = 64;

/// What callers do with a [`SemanticCache`].
pub trait SemanticCacheExt: SemanticCache {
    /// Removes the entry of this very request; `false` if there is none.
    ///
    /// # Errors
    ///
    /// As [`SemanticCache::remove`].
    fn forget(&self, request: &Request) -> impl Future<Output = Result<bool>> + Send {
        async move { self.remove(request.tenant(), &request.id()).await }
    }

    /// Stores any number of known answers, in bounded memory, and calls `progress` with how many were taken so far;
    /// returns how many were stored.
    ///
    /// # Errors
    ///
    /// As [`SemanticCache::store_many`]; what came before is stored.
    fn warm_up<I>(
        &self,
        answers: I,
        mut progress: impl FnMut(u64) + Send,
    ) -> impl Future<Output = Result<u64>> + Send
    where
        I: IntoIterator<Item = (Request, Answer), IntoIter: Send> + Send,
    {
        async move {
            let mut answers = answers.into_iter();
            let (mut taken, mut stored) = (0, 0);
            loop {
                let chunk: Vec<_> = answers.by_ref().take(WARM_UP_CHUNK).collect();
                if chunk.is_empty() {
                    return Ok(stored);
                }
                let outcomes = self.store_many(&chunk).await?;
                stored += outcomes.iter().filter(|outcome| outcome.id().is_some()).count() as u64;
                taken += chunk.len() as u64;
                progress(taken);
            }
        }
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
                miss: Option<Miss>,
            ) -> Result<Stored> {
                (**self).store(request, answer, miss).await
            }

            async fn store_many(&self, answers: &[(Request, Answer)]) -> Result<Vec<Stored>> {
                (**self).store_many(answers).await
            }

            async fn remove(&self, tenant: &Tenant, id: &EntryId) -> Result<bool> {
                (**self).remove(tenant, id).await
            }

            async fn invalidate(&self, selection: &Selection) -> Result<u64> {
                (**self).invalidate(selection).await
            }

            async fn flush(&self, tenant: &Tenant) -> Result<()> {
                (**self).flush(tenant).await
            }

            async fn report(&self, asked: &Request, hit: &Hit, feedback: Feedback) -> Result<bool> {
                (**self).report(asked, hit, feedback).await
            }

            async fn export_some(
                &self,
                from: Option<Cursor>,
            ) -> Result<(Vec<Record>, Option<Cursor>)> {
                (**self).export_some(from).await
            }

            async fn import_many(&self, records: &[Record]) -> Result<u64> {
                (**self).import_many(records).await
            }
        }
    )*};
}
forward!(Arc, Box);
