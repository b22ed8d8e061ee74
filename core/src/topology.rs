use std::fmt;

#[cfg(feature = "redis")]
use crate::{Pool, PoolConfig};

/// One of the deployments into which the state of an AI service is divided, so that none can hurt another.
///
/// A storm of evictions among caches does not reach features, and a spike of searches does not slow limits down.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Deployment {
    /// Semantic cache, embeddings and results: what can be made again, and may be evicted.
    Caches,
    /// Online features: what a model cannot answer without.
    Features,
    /// Vectors that are documents, not caches.
    Search,
    /// Sessions, limits, slots, leases, experiments and flags: small, and wrong if any of it is evicted.
    Coordination,
    /// Streams of events, which their owner trims.
    Events,
}

impl Deployment {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Caches, Self::Features, Self::Search, Self::Coordination, Self::Events];

    /// Returns the name, such as `caches`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Caches => "caches",
            Self::Features => "features",
            Self::Search => "search",
            Self::Coordination => "coordination",
            Self::Events => "events",
        }
    }

    /// Returns the deployment of a name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|deployment| deployment.name() == name)
    }

    /// Returns the `maxmemory-policy` with which the deployment does its task.
    #[must_use]
    pub fn eviction_policy(self) -> &'static str {
        match self {
            Self::Caches => "allkeys-lfu",
            _ => "noeviction",
        }
    }

    /// Tells whether the deployment is asked with `FT.*`.
    #[must_use]
    pub fn needs_search(self) -> bool {
        matches!(self, Self::Caches | Self::Search)
    }

    /// Tells whether a restart must not forget, so that the deployment needs an append-only file or snapshots.
    #[must_use]
    pub fn needs_persistence(self) -> bool {
        !matches!(self, Self::Caches)
    }
}

impl fmt::Display for Deployment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where each deployment is: all on one server, until some of them get their own.
///
/// # Examples
///
/// ```
/// use inferkit_core::{Deployment, PoolConfig, Topology};
///
/// # fn main() -> inferkit_core::Result<()> {
/// let topology = Topology::single(PoolConfig::single("redis://redis-coordination:6379")?)
///     .with(Deployment::Caches, PoolConfig::single("redis://redis-caches:6379")?)
///     .with(Deployment::Search, PoolConfig::cluster(&["redis://search-1", "redis://search-2"])?);
/// let pools = topology.pools(); // no I/O
/// let caches = pools.get(Deployment::Caches);
/// # let _ = caches;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "redis")]
#[derive(Clone, Debug)]
pub struct Topology {
    first: PoolConfig,
    others: Vec<(Deployment, PoolConfig)>,
}

#[cfg(feature = "redis")]
impl Topology {
    /// Puts all deployments on one server or cluster.
    #[must_use]
    pub fn single(config: PoolConfig) -> Self {
        Self { first: config, others: Vec::new() }
    }

    /// Gives one deployment a place of its own.
    #[must_use]
    pub fn with(mut self, deployment: Deployment, config: PoolConfig) -> Self {
        self.others.retain(|(known, _)| *known != deployment);
        self.others.push((deployment, config));
        self
    }

    /// Makes a pool for each place, which deployments on the same place share; nothing is sent.
    #[must_use]
    pub fn pools(&self) -> Pools {
        let own = |(deployment, config): &(_, PoolConfig)| (*deployment, Pool::new(config.clone()));
        Pools {
            first: Pool::new(self.first.clone()),
            others: self.others.iter().map(own).collect(),
        }
    }
}

/// A pool for each place of a [`Topology`]; cloning is cheap, and clones share the connections.
#[cfg(feature = "redis")]
#[derive(Clone, Debug)]
pub struct Pools {
    first: Pool,
    others: Vec<(Deployment, Pool)>,
}

#[cfg(feature = "redis")]
impl Pools {
    /// Returns the pool of a deployment.
    #[must_use]
    pub fn get(&self, deployment: Deployment) -> &Pool {
        let own = self.others.iter().find(|(known, _)| *known == deployment);
        own.map_or(&self.first, |(_, pool)| pool)
    }

    /// Goes over the places and the deployments that are there.
    pub fn places(&self) -> impl Iterator<Item = (Vec<Deployment>, &Pool)> {
        let apart = |deployment| self.others.iter().any(|(known, _)| *known == deployment);
        let together: Vec<_> = Deployment::ALL.into_iter().filter(|&one| !apart(one)).collect();
        let first = (!together.is_empty()).then_some((together, &self.first));
        first.into_iter().chain(self.others.iter().map(|(one, pool)| (vec![*one], pool)))
    }
}

#[cfg(all(test, feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn deployments_share_a_place_until_one_gets_its_own() {
        let url = |port: u16| PoolConfig::single(&format!("redis://127.0.0.1:{port}")).unwrap();
        let one = Topology::single(url(1)).pools();
        assert_eq!(one.places().map(|(here, _)| here.len()).collect::<Vec<_>>(), [5]);
        let two = Topology::single(url(1)).with(Deployment::Caches, url(2));
        let two = two.with(Deployment::Caches, url(3)).pools();
        let places: Vec<_> = two.places().map(|(here, pool)| (here, format!("{pool:?}"))).collect();
        assert_eq!(places.len(), 2);
        assert_eq!(places[0].0.len(), 4);
        assert_eq!(places[1].0, [Deployment::Caches]);
        assert_eq!(places[1].1, format!("{:?}", two.get(Deployment::Caches)));
        assert_ne!(places[1].1, format!("{:?}", two.get(Deployment::Events)));
    }

    #[test]
    fn names_lead_back_to_deployments() {
        for deployment in Deployment::ALL {
            assert_eq!(Deployment::of_name(deployment.name()), Some(deployment));
        }
        assert_eq!(Deployment::of_name("Caches"), None);
    }
}
