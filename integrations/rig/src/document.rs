//! A document of rig as documents of an index.

use inferkit_vectorsearch::{Document, Field, FieldKind, Schema, Value, Vector};
use rig_core::embeddings::Embedding;
use rig_core::vector_store::VectorStoreError;
use serde_json::Value as Json;
use sha2::{Digest as _, Sha256};

use crate::Error;
use crate::embedder::to_f32;

/// The field that holds the whole document as JSON.
pub(crate) const DOCUMENT: &str = "rig_document";
/// The field that holds the id of the document, whichever of its embeddings it stands with.
pub(crate) const ID: &str = "rig_id";

/// One document of the index per embedding.
pub(crate) fn documents(
    schema: &Schema,
    vector_field: &str,
    document: &Json,
    embeddings: &[Embedding],
) -> Result<Vec<Document>, VectorStoreError> {
    let text = document.to_string();
    let id = match document.get("id") {
        Some(Json::String(id)) if !id.is_empty() => id.clone(),
        Some(Json::Number(id)) => id.to_string(),
        // The same document again takes the place of the first.
        _ => Sha256::digest(&text).iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
    };
    let mut fields = vec![(DOCUMENT.to_owned(), Value::from(text)), (ID.to_owned(), (&*id).into())];
    for field in schema.fields() {
        if let Some(value) = document.get(field.name()) {
            fields.extend(indexed(field, value)?.map(|value| (field.name().to_owned(), value)));
        }
    }
    let documents = embeddings.iter().enumerate().map(|(n, embedding)| {
        let vector = Vector::new(to_f32(&embedding.vec)).map_err(VectorStoreError::datastore)?;
        let own = if n == 0 { id.clone() } else { format!("{id}#{n}") };
        let mut stored = Document::new(own).with(vector_field.to_owned(), vector);
        for (name, value) in &fields {
            stored = stored.with(name.clone(), value.clone());
        }
        Ok(stored)
    });
    documents.collect()
}

/// A member of the document as the field of the schema with the same name.
fn indexed(field: &Field, value: &Json) -> Result<Option<Value>, VectorStoreError> {
    let mismatch = |expected| {
        let field = field.name().to_owned();
        Err(VectorStoreError::datastore(Error::Member { field, expected }))
    };
    let value = match (field.kind(), value) {
        (_, Json::Null) => return Ok(None),
        (FieldKind::Tag, Json::String(text)) => Value::Tags(vec![text.clone()]),
        (FieldKind::Tag, Json::Bool(value)) => Value::Tags(vec![value.to_string()]),
        (FieldKind::Tag, Json::Array(tags)) => {
            let texts = tags.iter().map(|tag| tag.as_str().map(str::to_owned));
            match texts.collect::<Option<Vec<_>>>() {
                Some(tags) if tags.is_empty() => return Ok(None),
                Some(tags) => Value::Tags(tags),
                None => return mismatch("text, a boolean or an array of text"),
            }
        }
        (FieldKind::Numeric, Json::Number(number)) => Value::from(number.to_string()),
        (FieldKind::Text, Json::String(text)) => Value::from(text.as_str()),
        (FieldKind::Tag, _) => return mismatch("text, a boolean or an array of text"),
        (FieldKind::Numeric, _) => return mismatch("a number"),
        (FieldKind::Text, _) => return mismatch("text"),
        _ => return mismatch("left out, since it is the vector's"),
    };
    Ok(Some(value))
}

/// Which error a record is that rig did not write.
pub(crate) fn foreign(id: &str) -> VectorStoreError {
    VectorStoreError::MissingIdError(format!("{id}: it was written by other means"))
}

/// The vector field of a schema that has just one.
pub(crate) fn vector_field(schema: &Schema) -> Result<&Field, Error> {
    let mut vectors =
        schema.fields().iter().filter(|field| matches!(field.kind(), FieldKind::Vector { .. }));
    match (vectors.next(), vectors.next()) {
        (Some(field), None) => Ok(field),
        _ => Err(Error::NotOneVectorField),
    }
}
