#![doc = include_str!("../README.md")]

mod error;
mod filter;
mod index;
mod info;
mod query;
mod reply;
mod schema;
mod similarity;
mod vector;

pub use error::{Error, Result};
pub use filter::{
    Filter, MAX_FILTER_DEPTH, MAX_TAG_BYTES, MAX_WORD_BYTES, Rendered, Rendering, Text,
};
pub use index::RedisVectorIndex;
pub use inferkit_core;
pub use info::IndexInfo;
pub use query::{DISTANCE_FIELD, Knn, MAX_K};
pub use reply::{Hit, SearchResult};
pub use schema::{Algorithm, Field, FieldKind, Hnsw, Metric, Schema, SchemaBuilder, VectorField};
pub use similarity::{Distance, Similarity};
pub use vector::{MAX_DIMENSIONS, Vector};
