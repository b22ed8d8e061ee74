//! What the benchmarks share: fair comparison, data and a server.
//!
//! `cargo run --release -p inferkit-benches --bin ratios` prints the promises about speed beside what is measured.

mod area;
mod data;
mod feast;
mod npy;
mod peer;
mod peers;
mod ratio;
mod stream;

pub use area::{AREAS, Area};
pub use data::{DIMENSIONS, Fixture, answer_text, clustered_vectors, raw_connection, unit_vectors};
pub use npy::Matrix;
pub use peers::peers;
pub use ratio::{Better, Effort, Line, Promise, median_micros, user_cpu};
pub use stream::{csv_rows, shuffled};

/// What a benchmark fails with; there is nothing to do about it but to print it.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// The result of a benchmark's step.
pub type Result<T> = std::result::Result<T, Error>;
