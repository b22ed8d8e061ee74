#![doc = include_str!("../README.md")]

mod cache;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedding;
mod entry;
mod error;
mod memory;
mod policy;
mod redis;
mod request;

pub use cache::{Hit, Lookup, Miss, Near, SemanticCache, SemanticCacheExt};
pub use entry::FORMAT_VERSION;
pub use error::{Error, Result};
pub use inferkit_core;
pub use inferkit_embcache;
pub use inferkit_embcache::{Embedder, EmbedderExt};
pub use inferkit_vectorsearch;
pub use inferkit_vectorsearch::{Algorithm, Hnsw, Similarity, Vector};
pub use memory::MemorySemanticCache;
pub use policy::Policy;
pub use redis::{Config, KEYS, RedisSemanticCache};
pub use request::{Answer, EntryId, Request, Tenant};
