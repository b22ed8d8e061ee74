use std::fmt;
use std::sync::OnceLock;

use sha1::{Digest, Sha1};

/// A Lua script, embedded at compile time.
///
/// ```
/// use inferkit_core::Script;
///
/// static ANSWER: Script = Script::new("return 42");
/// assert_eq!(ANSWER.sha1().len(), 40);
/// ```
pub struct Script {
    source: &'static str,
    sha1: OnceLock<String>,
}

impl Script {
    /// Wraps a script's source, usually `include_str!("scripts/name.lua")`.
    #[must_use]
    pub const fn new(source: &'static str) -> Self {
        Self { source, sha1: OnceLock::new() }
    }

    /// Returns the Lua source.
    #[must_use]
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// Returns the SHA-1 digest of the source in lower-case hex, by which the server knows the script.
    #[must_use]
    pub fn sha1(&self) -> &str {
        self.sha1.get_or_init(|| {
            Sha1::digest(self.source.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("sha1", &self.sha1()).finish_non_exhaustive()
    }
}
