#![doc = include_str!("../README.md")]

mod cache;
mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedder;
mod error;
mod flights;
mod format;
mod memory;
mod migrate;
#[cfg(feature = "openai")]
mod openai;
mod redis;
mod stats;

pub use cache::{EmbeddingCache, EmbeddingKey};
pub use cached::{CachedEmbedder, OnCacheError};
pub use embedder::{Embedder, EmbedderExt};
pub use error::{Error, Result};
pub use format::{FORMAT_VERSION, Precision, decode, encode, encode_as, text_of};
pub use inferkit_core;
pub use memory::MemoryEmbeddingCache;
pub use migrate::{Migrated, ModelUsage, Pace};
#[cfg(feature = "openai")]
pub use openai::{OpenAiConfig, OpenAiEmbedder};
pub use redis::{KEYS, RedisEmbeddingCache};
pub use stats::EmbeddingStats;
