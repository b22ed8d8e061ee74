#![doc = include_str!("../README.md")]

mod cache;
mod cached;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedder;
mod error;
mod format;
mod memory;
#[cfg(feature = "openai")]
mod openai;
mod redis;

pub use cache::{EmbeddingCache, EmbeddingKey};
pub use cached::{CachedEmbedder, OnCacheError};
pub use embedder::{Embedder, EmbedderExt};
pub use error::{Error, Result};
pub use format::{FORMAT_VERSION, decode, encode};
pub use inferkit_core;
pub use memory::MemoryEmbeddingCache;
#[cfg(feature = "openai")]
pub use openai::{OpenAiConfig, OpenAiEmbedder};
pub use redis::{KEYS, RedisEmbeddingCache};
