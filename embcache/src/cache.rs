use std::fmt;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::Cmd;
use sha2::{Digest as _, Sha256};

use crate::Result;

/// Where embeddings are kept: the contract with those who implement a place.
///
/// Values are the bytes that [`encode`](crate::encode) makes; a cache neither reads nor changes them.
/// [`CachedEmbedder`](crate::CachedEmbedder) puts a cache in front of an embedder.
#[async_trait]
pub trait EmbeddingCache: Debug + Send + Sync + 'static {
    /// Returns one value per key, in the order of the keys; `None` for what is not there.
    ///
    /// An implementation that talks to a server does so in one round trip, and not at all for no keys.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked.
    async fn get_many(&self, keys: &[EmbeddingKey]) -> Result<Vec<Option<Bytes>>>;

    /// Keeps values for `ttl`, in the place of older ones.
    ///
    /// An implementation that talks to a server does so in one round trip, and not at all for no entries.
    /// Repeating the call is safe.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend) if the server could not be asked; some values may be kept then.
    async fn put_many(&self, entries: &[(EmbeddingKey, Bytes)], ttl: Duration) -> Result<()>;

    /// Returns the command that reads one value, for who sends it together with other reads; none if the values are not on
    /// a Redis server.
    fn get_cmd(&self, key: &EmbeddingKey) -> Option<Cmd> {
        let _ = key;
        None
    }
}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<C: EmbeddingCache + ?Sized> EmbeddingCache for $pointer<C> {
            async fn get_many(&self, keys: &[EmbeddingKey]) -> Result<Vec<Option<Bytes>>> {
                (**self).get_many(keys).await
            }

            async fn put_many(
                &self,
                entries: &[(EmbeddingKey, Bytes)],
                ttl: Duration,
            ) -> Result<()> {
                (**self).put_many(entries, ttl).await
            }

            fn get_cmd(&self, key: &EmbeddingKey) -> Option<Cmd> {
                (**self).get_cmd(key)
            }
        }
    )*};
}
forward!(Arc, Box);

/// Which embedding is meant: the model, the caller's version of it, and the SHA-256 digest of the text.
#[derive(Clone, Eq, Hash, PartialEq)]
pub struct EmbeddingKey {
    version: u32,
    model: Arc<str>,
    digest: [u8; 32],
}

impl EmbeddingKey {
    /// Makes the key of a text.
    #[must_use]
    pub fn new(version: u32, model: impl Into<Arc<str>>, text: &str) -> Self {
        Self { version, model: model.into(), digest: Sha256::digest(text).into() }
    }

    /// Returns the caller's version of the model.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Returns the model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Returns the SHA-256 digest of the text.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Prints no digest, which would tell whether a text was asked for.
impl Debug for EmbeddingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddingKey")
            .field("version", &self.version)
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}
