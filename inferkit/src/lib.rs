#![doc = include_str!("../README.md")]

pub use inferkit_core as core;
#[cfg(feature = "embcache")]
pub use inferkit_embcache as embcache;
#[cfg(feature = "ratelimit")]
pub use inferkit_ratelimit as ratelimit;
#[cfg(feature = "semcache")]
pub use inferkit_semcache as semcache;
#[cfg(feature = "vectorsearch")]
pub use inferkit_vectorsearch as vectorsearch;

/// The traits of the family, for their methods: `use inferkit::prelude::*` brings no names into scope.
pub mod prelude {
    pub use inferkit_core::{Connect as _, Driver as _, DriverExt as _, Leases as _};
    #[cfg(feature = "embcache")]
    pub use inferkit_embcache::{Embedder as _, EmbedderExt as _, EmbeddingCache as _};
    #[cfg(feature = "ratelimit")]
    pub use inferkit_ratelimit::{RateLimiter as _, RateLimiterExt as _};
    #[cfg(feature = "semcache")]
    pub use inferkit_semcache::{SemanticCache as _, SemanticCacheExt as _};
    #[cfg(feature = "vectorsearch")]
    pub use inferkit_vectorsearch::{VectorIndex as _, VectorIndexExt as _};
}
