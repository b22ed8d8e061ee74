#![doc = include_str!("../README.md")]

mod adaptive;
mod answer;
mod cache;
mod category;
mod choose;
mod coalescer;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contentless;
mod digest;
mod embedding;
mod encoding;
mod entry;
mod error;
mod fingerprint;
mod flights;
mod guard;
mod lookup;
mod memory;
#[cfg(feature = "tower")]
pub mod openai;
mod policy;
mod prices;
mod redis;
mod request;
mod selection;
mod stats;
mod stream;
#[cfg(feature = "tower")]
mod tower;
mod transfer;
mod verifier;

pub use adaptive::{Judge, Rate, SameAnswer};
pub use answer::{Answer, Finish};
pub use cache::{Feedback, SemanticCache, SemanticCacheExt};
pub use category::{Category, Rules};
pub use coalescer::{Coalescer, GenerateError, OnCacheError, Served, Source};
pub use digest::EntryId;
pub use entry::FORMAT_VERSION;
pub use error::{Error, Result};
pub use flights::RedisFlights;
pub use guard::Guard;
pub use inferkit_core;
pub use inferkit_embcache;
pub use inferkit_embcache::{Embedder, EmbedderExt};
pub use inferkit_vectorsearch;
pub use inferkit_vectorsearch::{Algorithm, Hnsw, Similarity, Vector};
pub use lookup::{Hit, Lookup, Miss, Near, Nearest, Rejection, Skip, Stored};
pub use memory::MemorySemanticCache;
pub use policy::Policy;
pub use prices::Prices;
pub use redis::{Config, KEYS, RedisSemanticCache};
pub use request::{CacheControl, Request, Tenant};
pub use selection::Selection;
pub use stats::{Latency, Stats};
pub use stream::{AnswerStream, Chunk};
#[cfg(feature = "tower")]
pub use tower::{BodyError, CachedBody, ChatCacheLayer, ChatCacheService};
pub use transfer::{Cursor, Record, TransferExt};
pub use verifier::{OnVerifierError, Verdict, Verification, Verifier, VerifierError};
