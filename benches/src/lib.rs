//! Benchmarks of the inferkit family against the raw server
