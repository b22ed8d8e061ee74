#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod document;
mod engine;
mod error;
mod fields;
mod filter;
mod index;
mod info;
mod memory;
mod query;
mod redis;
mod reply;
mod schema;
mod similarity;
mod tenant;
mod vector;
mod vector_set;
#[cfg(feature = "yaml")]
mod yaml;

pub use document::{Document, Encoded, MAX_FIELDS, Value};
pub use engine::{Capability, Engine};
pub use error::{Error, Result};
pub use fields::Fields;
pub use filter::{
    Filter, MAX_FILTER_DEPTH, MAX_TAG_BYTES, MAX_WORD_BYTES, Rendered, Rendering, Text,
};
pub use index::{Affected, Bulk, VectorIndex, VectorIndexExt};
pub use inferkit_core;
pub use info::IndexInfo;
pub use memory::MemoryVectorIndex;
pub use query::{
    DISTANCE_FIELD, Find, Fused, FusedHit, Hybrid, HybridPolicy, Knn, MAX_K, MAX_OFFSET, Order,
    Query, Range,
};
pub use redis::{KEYS, RedisVectorIndex, Verification};
pub use reply::{Hit, Page, Record, SearchResult};
pub use schema::{
    Algorithm, Compression, DataType, Field, FieldKind, Hnsw, Metric, Phonetic, Schema,
    SchemaBuilder, SvsVamana, VectorField,
};
pub use similarity::{Distance, Similarity};
pub use tenant::TenantIndex;
pub use vector::{MAX_DIMENSIONS, Vector};
pub use vector_set::{
    Quantization, RedisVectorSet, VECTOR_SET_KEYS, VectorSetInfo, VectorSetOptions,
};
