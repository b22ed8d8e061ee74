use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream;
use inferkit_embcache::{Embedder, Error, Result};
use rig_core::driver::{Exchange, Local, Model, Opened, Opening, Step, Transport};
use rig_core::embeddings::{Embedding, EmbeddingResponse};
use rig_core::operation::Embedding as EmbeddingOp;
use rig_core::wire::Capabilities;
use rig_core::{DynModel, ProviderError};

/// A rig embedding model as an [`Embedder`], so that a
/// [`CachedEmbedder`](inferkit_embcache::CachedEmbedder) can stand in front of it.
///
/// Its name is `provider/model`; one call sends as many texts as the model takes.
/// Components are rounded to 32-bit floats.
#[derive(Clone)]
pub struct RigEmbedder {
    model: DynModel<EmbeddingOp>,
    name: String,
    dimensions: usize,
}

impl RigEmbedder {
    /// Wraps a model whose number of dimensions is known to rig.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if rig does not know the dimensions: use [`with_dimensions`](Self::with_dimensions).
    pub fn new(model: impl Into<DynModel<EmbeddingOp>>) -> Result<Self> {
        let model = model.into();
        match model.capabilities().ndims {
            0 => Err(Error::Config(
                "rig does not know the dimensions of this model: use RigEmbedder::with_dimensions"
                    .to_owned(),
            )),
            dimensions => Ok(Self::with_dimensions(model, dimensions)),
        }
    }

    /// Wraps a model that makes vectors of `dimensions`.
    #[must_use]
    pub fn with_dimensions(model: impl Into<DynModel<EmbeddingOp>>, dimensions: usize) -> Self {
        let model = model.into();
        let name = format!("{}/{}", model.name(), model.id().unwrap_or("default"));
        Self { model, name, dimensions }
    }
}

impl fmt::Debug for RigEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RigEmbedder")
            .field("model", &self.name)
            .field("dimensions", &self.dimensions)
            .finish()
    }
}

#[async_trait]
impl Embedder for RigEmbedder {
    fn model(&self) -> &str {
        &self.name
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        // Zero is unknown.
        let at_once = match self.model.capabilities().max_documents {
            0 => texts.len().max(1),
            limit => limit,
        };
        let mut vectors = Vec::with_capacity(texts.len());
        for texts in texts.chunks(at_once) {
            let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
            let response = self.model.call(texts).await.map_err(failed)?;
            vectors.extend(response.embeddings.into_iter().map(|embedding| to_f32(&embedding.vec)));
        }
        Ok(vectors)
    }
}

/// Rounds the components of a rig embedding.
pub(crate) fn to_f32(components: &[f64]) -> Vec<f32> {
    #[expect(clippy::cast_possible_truncation, reason = "to the nearest 32-bit float")]
    components.iter().map(|component| *component as f32).collect()
}

fn failed(error: ProviderError) -> Error {
    if error.is_retryable() { Error::transient_embedder(error) } else { Error::embedder(error) }
}

/// Makes a rig embedding model of an [`Embedder`], such as a [`CachedEmbedder`](inferkit_embcache::CachedEmbedder).
///
/// So rig's `EmbeddingsBuilder`, and all else in rig that embeds, goes through the cache.
#[must_use]
pub fn model(embedder: impl Embedder) -> DynModel<EmbeddingOp> {
    // Providers are asked in as many parts as they need by the embedder itself.
    const AT_ONCE: usize = 1024;
    let wire = Local::new("inferkit")
        .with_id(embedder.model())
        .with_capabilities(Capabilities::embedding(AT_ONCE, embedder.dimensions()));
    Model::new(wire, Runtime(Arc::new(embedder))).erase()
}

/// What answers in the place of a provider.
#[derive(Clone)]
struct Runtime(Arc<dyn Embedder>);

impl Transport<Local<EmbeddingOp>> for Runtime {
    fn send(&self, texts: Vec<String>, _: Exchange) -> Opening<Step<EmbeddingOp>> {
        let embedder = Arc::clone(&self.0);
        Opening::new(async move {
            let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
            let vectors = embedder.embed_many(&borrowed).await.map_err(|error| {
                ProviderError::Request(
                    Box::<dyn std::error::Error + Send + Sync>::from(error).into(),
                )
            })?;
            let embeddings = texts.into_iter().zip(vectors).map(|(document, vector)| Embedding {
                document,
                vec: vector.into_iter().map(f64::from).collect(),
            });
            let end = Step::End(EmbeddingResponse::new(embeddings.collect()));
            Ok(Opened::new(stream::iter([Ok::<_, ProviderError>(end)])))
        })
    }
}
