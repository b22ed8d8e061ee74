#![doc = include_str!("../README.md")]

#[cfg(feature = "chatsession")]
pub use inferkit_chatsession as chatsession;
pub use inferkit_core as core;
#[cfg(feature = "embcache")]
pub use inferkit_embcache as embcache;
#[cfg(feature = "featurestore")]
pub use inferkit_featurestore as featurestore;
#[cfg(feature = "mlevents")]
pub use inferkit_mlevents as mlevents;
#[cfg(feature = "modelserve")]
pub use inferkit_modelserve as modelserve;
#[cfg(feature = "ratelimit")]
pub use inferkit_ratelimit as ratelimit;
#[cfg(feature = "semcache")]
pub use inferkit_semcache as semcache;
#[cfg(feature = "vectorsearch")]
pub use inferkit_vectorsearch as vectorsearch;

pub mod users;

/// The traits of the family, for their methods: `use inferkit::prelude::*` brings no names into scope.
pub mod prelude {
    #[cfg(feature = "chatsession")]
    pub use inferkit_chatsession::{
        Archive as _, SessionStore as _, SessionStoreExt as _, Summarizer as _, TokenCounter as _,
    };
    pub use inferkit_core::{Connect as _, Driver as _, DriverExt as _, Leases as _};
    #[cfg(feature = "embcache")]
    pub use inferkit_embcache::{Embedder as _, EmbedderExt as _, EmbeddingCache as _};
    #[cfg(feature = "featurestore")]
    pub use inferkit_featurestore::{FeatureStore as _, FeatureStoreExt as _};
    #[cfg(feature = "mlevents")]
    pub use inferkit_mlevents::{EventBus as _, Handler as _};
    #[cfg(feature = "modelserve")]
    pub use inferkit_modelserve::{
        ModelRegistry as _, ModelRouter as _, ModelRouterExt as _, Outcomes as _, ResultCache as _,
    };
    #[cfg(feature = "ratelimit")]
    pub use inferkit_ratelimit::{RateLimiter as _, RateLimiterExt as _};
    #[cfg(feature = "semcache")]
    pub use inferkit_semcache::{SemanticCache as _, SemanticCacheExt as _, TransferExt as _};
    #[cfg(feature = "vectorsearch")]
    pub use inferkit_vectorsearch::{VectorIndex as _, VectorIndexExt as _};
}
