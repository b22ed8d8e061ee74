#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod document;
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

pub use document::{Document, MAX_FIELDS, Value};
pub use error::{Error, Result};
pub use fields::Fields;
pub use filter::{Filter, MAX_TAG_BYTES};
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
pub use schema::{Algorithm, Field, FieldKind, Hnsw, Metric, Schema, SchemaBuilder, VectorField};
pub use similarity::{Distance, Similarity};
pub use tenant::TenantIndex;
pub use vector::{MAX_DIMENSIONS, Vector};
