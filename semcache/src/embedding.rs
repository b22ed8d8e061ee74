//! Where vectors come from: the caller, or the embedder.

use bytes::Bytes;
use inferkit_embcache::{Embedder, EmbedderExt as _};
use inferkit_vectorsearch::{Similarity, Vector};

use crate::{Answer, Error, Miss, Policy, Request, Result};

/// The similarity of a prompt to itself.
pub(crate) const SAME: Similarity = match Similarity::checked(1.0) {
    Some(similarity) => similarity,
    None => unreachable!(),
};

/// Returns the prompt's vector: the cached one, if it was read beforehand, else that of the embedder.
pub(crate) async fn embed(
    embedder: &dyn Embedder,
    request: &Request,
    cached: Option<Bytes>,
) -> Result<Vector> {
    let components = match embedder.cached_vector(request.prompt(), cached)? {
        Some(components) => components,
        None => embedder.embed(request.prompt()).await?,
    };
    vector(embedder, components)
}

/// Returns the vector that an answer is stored with: that of the miss, or the embedder's; none for requests that use the
/// exact tier only.
pub(crate) async fn vector_of(
    embedder: &dyn Embedder,
    policy: &Policy,
    request: &Request,
    miss: Option<&Miss>,
) -> Result<Option<Vector>> {
    if miss.is_some_and(|miss| miss.request != request.id()) {
        return Err(Error::MissOfAnotherRequest);
    }
    if !policy.is_semantic(request) {
        return Ok(None);
    }
    match miss.and_then(|miss| miss.embedding.clone()) {
        Some(given) => checked(embedder, given).map(Some),
        None => embed(embedder, request, None).await.map(Some),
    }
}

/// Returns the vectors of many requests, embedded in one call.
pub(crate) async fn vectors_of(
    embedder: &dyn Embedder,
    policy: &Policy,
    answers: &[(Request, Answer)],
) -> Result<Vec<Option<Vector>>> {
    let semantic: Vec<bool> = answers
        .iter()
        .map(|(request, answer)| {
            policy.is_semantic(request) && policy.skips(request, answer).is_none()
        })
        .collect();
    let prompts: Vec<&str> = answers
        .iter()
        .zip(&semantic)
        .filter(|(_, semantic)| **semantic)
        .map(|((request, _), _)| request.prompt())
        .collect();
    if prompts.is_empty() {
        return Ok(vec![None; answers.len()]);
    }
    let (expected, vectors) = (prompts.len(), embedder.embed_many(&prompts).await?);
    if vectors.len() != expected {
        let problem = "the embedder returned another number of vectors than it was given prompts";
        return Err(inferkit_embcache::Error::embedder(problem).into());
    }
    let mut vectors = vectors.into_iter();
    let mut next = || vectors.next().map(|components| vector(embedder, components)).transpose();
    semantic.into_iter().map(|semantic| if semantic { next() } else { Ok(None) }).collect()
}

fn vector(embedder: &dyn Embedder, components: Vec<f32>) -> Result<Vector> {
    let vector = Vector::new(components).map_err(|source| Error::InvalidEmbedding { source })?;
    checked(embedder, vector)
}

fn checked(embedder: &dyn Embedder, vector: Vector) -> Result<Vector> {
    let (expected, got) = (embedder.dimensions(), vector.dimensions());
    if expected == got { Ok(vector) } else { Err(Error::DimensionMismatch { expected, got }) }
}
