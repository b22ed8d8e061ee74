//! Where vectors come from: the caller, or the embedder.

use inferkit_embcache::{Embedder, EmbedderExt as _};
use inferkit_vectorsearch::{Similarity, Vector};

use crate::{Error, Request, Result};

/// The similarity of a prompt to itself.
pub(crate) const SAME: Similarity = match Similarity::checked(1.0) {
    Some(similarity) => similarity,
    None => unreachable!(),
};

/// Returns the prompt's vector: the given one if there is one, else the embedder's.
pub(crate) async fn vector_of(
    embedder: &dyn Embedder,
    request: &Request,
    given: Option<Vector>,
) -> Result<Vector> {
    let vector = match given {
        Some(vector) => vector,
        None => {
            let components = embedder.embed(request.prompt()).await?;
            Vector::new(components).map_err(|source| Error::InvalidEmbedding { source })?
        }
    };
    let (expected, got) = (embedder.dimensions(), vector.dimensions());
    if expected != got {
        return Err(Error::DimensionMismatch { expected, got });
    }
    Ok(vector)
}
