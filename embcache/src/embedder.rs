use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::Cmd;

use crate::{Error, Result};

/// What turns texts into vectors: the contract with those who implement one.
///
/// Callers use [`EmbedderExt`] for a single text.
///
/// # Examples
///
/// ```
/// use inferkit_embcache::{Embedder, EmbedderExt, Error, Result};
///
/// #[derive(Debug)]
/// struct Lengths;
///
/// #[async_trait::async_trait]
/// impl Embedder for Lengths {
///     fn model(&self) -> &str {
///         "lengths"
///     }
///
///     fn dimensions(&self) -> usize {
///         1
///     }
///
///     async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
///         Ok(texts.iter().map(|text| vec![text.len() as f32]).collect())
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// assert_eq!(Lengths.embed("four").await?, [4.0]);
/// # Ok(())
/// # }
/// ```
#[async_trait]
pub trait Embedder: Debug + Send + Sync + 'static {
    /// Returns the name of the model; vectors of different models must have different names.
    fn model(&self) -> &str;

    /// Returns the number of components of every vector.
    fn dimensions(&self) -> usize;

    /// Returns one vector per text, in the order of the texts.
    ///
    /// # Errors
    ///
    /// [`Error::Embedder`], made by [`Error::embedder`], for what an implementation runs into.
    async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>>;

    /// Returns the command that reads the cached vector of a text, for who sends it together with reads of its own; none
    /// if there is no cache on a Redis server.
    ///
    /// The answer goes to [`cached_vector`](Self::cached_vector).
    fn cached_read(&self, text: &str) -> Option<Cmd> {
        let _ = text;
        None
    }

    /// Returns the vector in the answer to a [`cached_read`](Self::cached_read) of a text, if the cache has it.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVersion`] if a later release wrote it.
    fn cached_vector(&self, text: &str, stored: Option<Bytes>) -> Result<Option<Vec<f32>>> {
        let _ = (text, stored);
        Ok(None)
    }
}

/// What callers do with an [`Embedder`].
pub trait EmbedderExt: Embedder {
    /// Returns the vector of one text.
    ///
    /// # Errors
    ///
    /// As [`Embedder::embed_many`], and [`Error::CountMismatch`] if not exactly one vector came.
    fn embed(&self, text: &str) -> impl Future<Output = Result<Vec<f32>>> + Send {
        async move {
            let mut vectors = self.embed_many(&[text]).await?;
            match (vectors.pop(), vectors.len()) {
                (Some(vector), 0) => Ok(vector),
                (last, before) => Err(Error::CountMismatch {
                    expected: 1,
                    got: before + usize::from(last.is_some()),
                }),
            }
        }
    }
}

impl<E: Embedder + ?Sized> EmbedderExt for E {}

macro_rules! forward {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        #[async_trait]
        impl<E: Embedder + ?Sized> Embedder for $pointer<E> {
            fn model(&self) -> &str {
                (**self).model()
            }

            fn dimensions(&self) -> usize {
                (**self).dimensions()
            }

            async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
                (**self).embed_many(texts).await
            }

            fn cached_read(&self, text: &str) -> Option<Cmd> {
                (**self).cached_read(text)
            }

            fn cached_vector(&self, text: &str, stored: Option<Bytes>) -> Result<Option<Vec<f32>>> {
                (**self).cached_vector(text, stored)
            }
        }
    )*};
}
forward!(Arc, Box);
