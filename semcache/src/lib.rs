//! A semantic cache for LLM answers on Redis
