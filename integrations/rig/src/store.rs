use std::sync::Arc;

use inferkit_embcache::{Embedder, EmbedderExt as _};
use inferkit_vectorsearch::{
    FieldKind, Filter, Hit, Knn, MAX_K, Metric, Vector, VectorIndex, VectorIndexExt as _,
};
use rig_core::Embed;
use rig_core::embeddings::Embedding;
use rig_core::vector_store::request::Filter as RigFilter;
use rig_core::vector_store::{
    InsertDocuments, VectorSearchIdResult, VectorSearchRequest, VectorSearchResult,
    VectorStoreError, VectorStoreIndex,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::Error;
use crate::document::{DOCUMENT, ID, documents, foreign, vector_field};
use crate::filter::translate;

/// A rig vector store in any [`VectorIndex`].
///
/// A document is stored as its JSON; members that bear the name of a TAG, NUMERIC or TEXT field of the schema are indexed,
/// too, so that filters can name them.
/// Its id is its member `id` if that is text or a number, else a digest of its JSON; a document with the same id takes its
/// place.
/// Each embedding beyond the first is an entry of its own (`id#1`, `id#2`, ...): entries that an older version of the
/// document had more of stay.
///
/// A score is the cosine similarity, or the inner product, or for L2 the negative square of the distance.
///
/// Inserting and asking is one call of the index each; asking also embeds the question.
#[derive(Clone, Debug)]
pub struct RigVectorStore<E> {
    index: Arc<dyn VectorIndex>,
    embedder: E,
    field: String,
    metric: Metric,
}

impl<E: Embedder> RigVectorStore<E> {
    /// Makes a store of an index, and of what embeds the questions: the model that the documents are embedded with.
    ///
    /// # Errors
    ///
    /// [`Error::NotOneVectorField`]; [`Error::DimensionMismatch`] if the embedder makes vectors of another size.
    pub fn new(index: Arc<dyn VectorIndex>, embedder: E) -> Result<Self, Error> {
        let field = vector_field(index.schema())?;
        let FieldKind::Vector { dimensions: expected, metric, .. } = *field.kind() else {
            return Err(Error::NotOneVectorField);
        };
        let got = embedder.dimensions();
        if got != expected {
            return Err(Error::DimensionMismatch { expected, got });
        }
        let field = field.name().to_owned();
        Ok(Self { index, embedder, field, metric })
    }

    /// Returns the index.
    #[must_use]
    pub fn index(&self) -> &Arc<dyn VectorIndex> {
        &self.index
    }

    /// The hits of a request that are similar enough, each document once, with their scores and ids.
    async fn hits(
        &self,
        request: &VectorSearchRequest<RigFilter<Json>>,
        returning: &[&str],
    ) -> Result<Vec<(f64, String, Hit)>, VectorStoreError> {
        let filter = match request.filter() {
            Some(filter) => translate(filter, self.index.schema())?,
            None => Filter::all(),
        };
        let requested = request.samples();
        let k = usize::try_from(requested).ok().filter(|k| *k <= MAX_K);
        let k = k.ok_or(VectorStoreError::SamplesOutOfRange { requested, max: MAX_K as u64 })?;
        if k == 0 {
            return Ok(Vec::new());
        }
        let question = self.embedder.embed(request.query()).await;
        let question = Vector::new(question.map_err(VectorStoreError::datastore)?);
        let question = question.map_err(VectorStoreError::datastore)?;
        let knn = Knn::new(&*self.field, question, k, filter);
        let knn = knn.and_then(|knn| knn.returning(returning.iter().copied()));
        let result = self.index.knn(&knn.map_err(VectorStoreError::datastore)?).await;
        let result = result.map_err(VectorStoreError::datastore)?;
        if result.partial {
            // rig has no word for it.
            tracing::warn!(
                hits = result.hits.len(),
                "the search stopped early: there may be nearer documents"
            );
        }
        let mut hits: Vec<(f64, String, Hit)> = Vec::with_capacity(result.hits.len());
        for hit in result.hits {
            let score = self.score(&hit);
            if request.threshold().is_some_and(|threshold| score < threshold) {
                continue;
            }
            let key = || self.index.id(&hit.key).unwrap_or_default();
            let id = hit.field(ID).ok_or_else(|| foreign(&key()))?;
            let id = String::from_utf8_lossy(id).into_owned();
            if hits.iter().all(|(_, other, _)| *other != id) {
                hits.push((score, id, hit));
            }
        }
        Ok(hits)
    }

    fn score(&self, hit: &Hit) -> f64 {
        match self.metric {
            Metric::L2 => -hit.distance.as_f64(),
            Metric::InnerProduct => 1.0 - hit.distance.as_f64(),
            _ => hit.distance.to_similarity().as_f64(),
        }
    }
}

impl<E: Embedder> VectorStoreIndex for RigVectorStore<E> {
    type Filter = RigFilter<Json>;

    async fn top_n<T: DeserializeOwned + Send>(
        &self,
        request: VectorSearchRequest<Self::Filter>,
    ) -> Result<Vec<VectorSearchResult<T>>, VectorStoreError> {
        let hits = self.hits(&request, &[ID, DOCUMENT]).await?;
        let results = hits.into_iter().map(|(score, id, hit)| {
            let document = hit.field(DOCUMENT).ok_or_else(|| foreign(&id))?;
            let document = serde_json::from_slice(document)?;
            Ok(VectorSearchResult { score, id, document })
        });
        results.collect()
    }

    async fn top_n_ids(
        &self,
        request: VectorSearchRequest<Self::Filter>,
    ) -> Result<Vec<VectorSearchIdResult>, VectorStoreError> {
        let hits = self.hits(&request, &[ID]).await?;
        Ok(hits.into_iter().map(|(score, id, _)| VectorSearchIdResult { score, id }).collect())
    }
}

impl<E: Embedder> InsertDocuments for RigVectorStore<E> {
    /// Nothing is written if one of the documents does not fit the schema, or has no embedding.
    async fn insert_documents<Doc: Serialize + Embed + Send>(
        &self,
        inserted: Vec<(Doc, Vec<Embedding>)>,
    ) -> Result<(), VectorStoreError> {
        let mut all = Vec::with_capacity(inserted.len());
        for (document, embeddings) in inserted {
            let document = serde_json::to_value(&document)?;
            if embeddings.is_empty() {
                return Err(VectorStoreError::datastore(Error::NoEmbedding));
            }
            all.extend(documents(self.index.schema(), &self.field, &document, &embeddings)?);
        }
        self.index.put_many(&all).await.map_err(VectorStoreError::datastore)
    }
}
