use inferkit_core::keys::Namespace;
use inferkit_vectorsearch::{Algorithm, DataType, Hnsw};

use crate::Policy;
use crate::encoding::Packing;

/// The fewest candidates of a search: expired entries take places among them until the server removes them.
pub(super) const FEWEST_CANDIDATES: usize = 4;

/// Up to how many components in all vectors a search that compares every vector takes under a millisecond.
const FLAT_COMPONENTS: usize = 5_000 * 384;

/// The algorithms that are chosen by size.
pub(super) const ALGORITHMS: [Algorithm; 2] = [Algorithm::Flat, Algorithm::Hnsw(Hnsw::new())];

/// How a [`RedisSemanticCache`](crate::RedisSemanticCache) is set up.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The namespace of the keys and of the index; empty by default.
    pub namespace: Namespace,
    /// What may be served, and for how long.
    pub policy: Policy,
    /// How the index searches, if that is not chosen by the expected size.
    pub algorithm: Option<Algorithm>,
    /// How many entries there will be, 1000 by default: up to about 5000 entries of 384 dimensions, or as much, an index
    /// compares every vector; above it walks a graph.
    pub expected_entries: usize,
    /// How many neighbors a search asks for; less than 4 count as 4, and more than
    /// [`MAX_K`](inferkit_vectorsearch::MAX_K) are refused.
    pub candidates: usize,
    pub(crate) data_type: DataType,
    pub(crate) packing: Packing,
    pub(crate) shares_reads: bool,
}

impl Config {
    /// Makes the default.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: Namespace) -> Self {
        self.namespace = namespace;
        self
    }

    /// Sets the policy.
    #[must_use]
    pub fn with_policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Sets how the index searches, whatever its size.
    #[must_use]
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = Some(algorithm);
        self
    }

    /// Sets how many entries there will be, by which the index is chosen when it is created.
    ///
    /// When a cache has outgrown its index, [`move_index`](crate::RedisSemanticCache::move_index) makes another.
    #[must_use]
    pub fn with_expected_entries(mut self, expected_entries: usize) -> Self {
        self.expected_entries = expected_entries;
        self
    }

    /// Sets how many neighbors a search asks for.
    #[must_use]
    pub fn with_candidates(mut self, candidates: usize) -> Self {
        self.candidates = candidates;
        self
    }

    /// Reads the prompt's cached vector in the round trip of the exact tier, so that a semantic hit takes two.
    ///
    /// The embedder must be a [`CachedEmbedder`](inferkit_embcache::CachedEmbedder) whose cache lies on the server that
    /// this cache uses. An exact hit brings the vector's bytes for nothing: leave it off where most hits are exact.
    #[must_use]
    pub fn with_shared_reads(mut self) -> Self {
        self.shares_reads = true;
        self
    }

    /// Stores vectors as 16-bit floats: half the memory, and similarities that are off by up to about 0.001.
    ///
    /// The server needs RediSearch 2.10. An index of 32-bit floats cannot be read so: use another namespace.
    #[cfg(feature = "half")]
    #[must_use]
    pub fn with_half_vectors(mut self) -> Self {
        self.data_type = DataType::F16;
        self
    }

    /// Packs answers of more than `bytes` with zstd, where that makes them shorter.
    #[cfg(feature = "zstd")]
    #[must_use]
    pub fn with_zstd_above(mut self, bytes: usize) -> Self {
        self.packing.zstd_above = Some(bytes);
        self
    }

    pub(super) fn algorithm_for(&self, dimensions: usize) -> Algorithm {
        let [flat, graph] = ALGORITHMS;
        let small = self.expected_entries.saturating_mul(dimensions) <= FLAT_COMPONENTS;
        self.algorithm.unwrap_or(if small { flat } else { graph })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: Namespace::default(),
            policy: Policy::default(),
            algorithm: None,
            expected_entries: 1_000,
            candidates: FEWEST_CANDIDATES,
            data_type: DataType::F32,
            packing: Packing::default(),
            shares_reads: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithm_follows_the_size_unless_it_is_forced() {
        let chosen = |entries, dimensions| {
            Config::new().with_expected_entries(entries).algorithm_for(dimensions)
        };
        assert_eq!(chosen(5_000, 384), Algorithm::Flat);
        assert!(matches!(chosen(5_001, 384), Algorithm::Hnsw(_)));
        assert!(matches!(chosen(5_000, 1_536), Algorithm::Hnsw(_)));
        assert!(matches!(chosen(usize::MAX, usize::MAX), Algorithm::Hnsw(_)));
        let forced = Config::new().with_expected_entries(1_000_000).with_algorithm(Algorithm::Flat);
        assert_eq!(forced.algorithm_for(1_536), Algorithm::Flat);
    }
}
