//! Typed vector search on Redis and Valkey
