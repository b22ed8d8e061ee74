#![doc = include_str!("../README.md")]

mod draft;
mod error;
mod id;
mod message;
mod session;
mod store;
mod tokens;

pub use draft::{Delta, Draft, Finished, Pushed};
pub use error::{Error, Result};
pub use id::{ClientId, EntryId, MAX_ID_BYTES, SessionId, Turn, UserId};
pub use inferkit_core;
pub use message::{
    Content, Entry, FinishReason, Function, ImageUrl, Message, Part, Role, ToolCall, Usage,
};
pub use session::{NewSession, Session, Summary};
pub use store::{Append, Appended, Due, Fork, Found, Lifetime, Range, Recent, SessionStore};
pub use tokens::{EstimatedTokens, TokenCounter};
