/// Why a store was not made, a document not stored, or a message not read.
///
/// In rig's errors it stands as the source of a `DatastoreError`, or of a `Backend` error of its memory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The embedder makes vectors of another size than the index holds.
    #[error(
        "the index holds vectors of {expected} dimensions, the embedder makes {got}: use the model that the index was made for"
    )]
    #[non_exhaustive]
    DimensionMismatch {
        /// The dimensions of the index.
        expected: usize,
        /// The dimensions of the embedder.
        got: usize,
    },
    /// A member of a document does not fit the field of the schema that has its name.
    #[error("member `{field}` of the document must be {expected}")]
    #[non_exhaustive]
    Member {
        /// The name.
        field: String,
        /// What fits.
        expected: &'static str,
    },
    /// A message of a session, which rig has not written, says something that rig has no form for.
    #[error(
        "a message of the role `{role}` has {what}: rig has no form for it, so read the session by its store"
    )]
    #[non_exhaustive]
    Message {
        /// Who said it.
        role: &'static str,
        /// What has no form.
        what: &'static str,
    },
    /// A document has no embedding.
    #[error("a document has no embedding: give each at least one")]
    NoEmbedding,
    /// The schema has no vector field, or several.
    #[error("rig searches one vector field: give the index a schema with just one")]
    NotOneVectorField,
}
