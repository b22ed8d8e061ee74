//! Hot state for LLM and AI services on Redis: one dependency for the whole inferkit family
