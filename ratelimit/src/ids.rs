use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes request ids that no other limiter makes: 128 random bits and a number.
#[derive(Debug)]
pub(crate) struct Ids {
    prefix: String,
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn new() -> Self {
        let random = || RandomState::new().hash_one(0);
        Self { prefix: format!("{:016x}{:016x}-", random(), random()), next: AtomicU64::new(0) }
    }

    /// What all ids begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(crate) fn make(&self) -> Arc<str> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        format!("{}{number:x}", self.prefix).into()
    }
}
