//! A cache for embedding vectors on Redis, in front of any embedder
