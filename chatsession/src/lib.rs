#![doc = include_str!("../README.md")]

mod archive;
mod branch;
mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod draft;
mod error;
mod ext;
mod form;
mod id;
mod janitor;
mod memory;
mod message;
mod pairs;
mod redis;
mod session;
mod store;
mod summarize;
#[cfg(feature = "tiktoken")]
mod tiktoken;
mod tokens;
mod transcript;
mod window;

#[cfg(feature = "object-store")]
pub use archive::ObjectArchive;
pub use archive::{Archive, JsonlArchive, MemoryArchive};
pub use config::{Config, MAX_MESSAGES};
pub use draft::{Delta, Draft, Finished, Pushed};
pub use error::{Error, Result};
pub use ext::SessionStoreExt;
pub use form::FORMAT_VERSION;
pub use id::{ClientId, EntryId, MAX_ID_BYTES, SessionId, Turn, UserId};
pub use inferkit_core;
pub use janitor::{Janitor, Swept};
pub use memory::MemorySessionStore;
pub use message::{
    Content, Entry, FinishReason, Function, ImageUrl, Message, Part, Role, ToolCall, Usage,
};
#[cfg(feature = "object-store")]
pub use object_store;
pub use redis::{DraftReader, KEYS, RedisSessionStore};
pub use session::{NewSession, Session, Summary};
pub use store::{Append, Appended, Due, Fork, Found, Lifetime, Range, Recent, SessionStore};
pub use summarize::{Summarized, Summarizer, SummaryRule};
#[cfg(feature = "tiktoken")]
pub use tiktoken::Tiktoken;
pub use tokens::{EstimatedTokens, TokenCounter};
pub use transcript::Transcript;
pub use window::{Budget, Window};
