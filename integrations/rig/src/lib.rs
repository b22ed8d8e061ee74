#![doc = include_str!("../README.md")]

mod document;
mod embedder;
mod error;
mod filter;
mod memory;
mod store;

pub use embedder::{RigEmbedder, model};
pub use error::Error;
pub use filter::translate;
pub use inferkit_chatsession;
pub use inferkit_embcache;
pub use inferkit_vectorsearch;
pub use memory::RigMemory;
pub use store::RigVectorStore;
