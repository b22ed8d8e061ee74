use std::thread;

use crate::{Error, Flavor, Result, Server};

/// The names, and how each deployment treats a full memory.
const POLICIES: [(&str, &str); 5] = [
    ("caches", "allkeys-lfu"),
    ("features", "noeviction"),
    ("search", "noeviction"),
    ("coordination", "noeviction"),
    ("events", "noeviction"),
];

/// Five servers, each with the eviction policy of its task.
///
/// `caches` may forget (`allkeys-lfu`); `features`, `search`, `coordination` and `events` may not
/// (`noeviction`): a full server refuses writes there. `coordination` holds sessions and limits.
#[derive(Debug)]
pub struct Deployments {
    servers: Vec<(&'static str, Server)>,
}

impl Deployments {
    /// Starts the five, each with 256 MB.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`].
    pub fn start() -> Result<Self> {
        Self::start_with_maxmemory("256mb")
    }

    /// Starts the five with a `maxmemory` as Redis writes it, such as `100mb`.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`].
    pub fn start_with_maxmemory(maxmemory: &str) -> Result<Self> {
        let start = |(name, policy): (&'static str, &str)| -> Result<_> {
            // Every one has search, so that any of them can stand in for another in a trial.
            let server = Server::builder(Flavor::Redis)
                .config("maxmemory", maxmemory)
                .config("maxmemory-policy", policy)
                .start()?;
            Ok((name, server))
        };
        let servers = thread::scope(|scope| {
            let starts: Vec<_> =
                POLICIES.map(|deployment| scope.spawn(move || start(deployment))).into();
            starts.into_iter().map(joined).collect::<Result<Vec<_>>>()
        })?;
        Ok(Self { servers })
    }

    /// Returns the server of a deployment: `caches`, `features`, `search`, `coordination` or
    /// `events`.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] if there is no deployment of that name.
    pub fn get(&self, name: &str) -> Result<&Server> {
        self.iter()
            .find_map(|(known, server)| (known == name).then_some(server))
            .ok_or_else(|| Error::Unknown(format!("deployment `{name}`")))
    }

    /// Goes over the deployments and their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Server)> {
        self.servers.iter().map(|(name, server)| (*name, server))
    }
}

/// The result of a thread; a panic in it goes on in the caller.
pub(crate) fn joined<T>(handle: thread::ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
