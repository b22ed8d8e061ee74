#![doc = include_str!("../README.md")]

mod cluster;
mod control;
mod deployments;
#[cfg(feature = "docker")]
mod docker;
mod error;
mod process;
mod resolve;
mod sentinel;
mod server;
mod tls;
mod wait;
pub mod wheel;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
};

pub use cluster::Cluster;
pub use deployments::Deployments;
pub use error::{Error, Result};
pub use sentinel::Sentinel;
pub use server::{Flavor, Server, ServerBuilder};

/// Returns a key prefix that no other test uses, such as `t7f3a9c10d2e4b586`.
///
/// Tests share a server and keep apart by their prefixes; none empties the server.
#[must_use]
pub fn unique_prefix() -> String {
    format!("t{:016x}", random())
}

/// Each `RandomState` has keys of its own, seeded by the system.
fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish()
}
