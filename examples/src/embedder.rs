//! The sentence model as the family's `Embedder`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit::embcache::{self, Embedder};

use crate::minilm::MiniLm;

/// MiniLM as the family's `Embedder`; it runs on the threads for blocking work.
#[derive(Clone, Debug)]
pub struct MiniLmEmbedder(MiniLm);

impl MiniLmEmbedder {
    /// Wraps the model.
    #[must_use]
    pub fn new(model: MiniLm) -> Self {
        Self(model)
    }
}

#[async_trait]
impl Embedder for MiniLmEmbedder {
    fn model(&self) -> &str {
        self.0.model()
    }

    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    async fn embed_many(&self, texts: &[&str]) -> embcache::Result<Vec<Vec<f32>>> {
        let model = self.0.clone();
        let texts: Vec<String> = texts.iter().map(|&text| text.to_owned()).collect();
        tokio::task::spawn_blocking(move || {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            model.embed_batch(&texts)
        })
        .await
        .map_err(embcache::Error::embedder)?
        .map_err(embcache::Error::embedder)
    }
}

/// Passes everything on and remembers how long the last call took.
#[derive(Clone, Debug)]
pub struct Timed<E> {
    inner: E,
    nanos: Arc<AtomicU64>,
}

impl<E: Embedder> Timed<E> {
    /// Wraps an embedder.
    pub fn new(inner: E) -> Self {
        Self { inner, nanos: Arc::default() }
    }

    /// Returns how long the calls since the last look took; `None` if there was none.
    pub fn take(&self) -> Option<Duration> {
        let nanos = self.nanos.swap(0, Ordering::Relaxed);
        (nanos != 0).then(|| Duration::from_nanos(nanos))
    }
}

#[async_trait]
impl<E: Embedder> Embedder for Timed<E> {
    fn model(&self) -> &str {
        self.inner.model()
    }

    fn dimensions(&self) -> usize {
        self.inner.dimensions()
    }

    async fn embed_many(&self, texts: &[&str]) -> embcache::Result<Vec<Vec<f32>>> {
        let start = Instant::now();
        let vectors = self.inner.embed_many(texts).await;
        let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.nanos.fetch_add(nanos, Ordering::Relaxed);
        vectors
    }
}
