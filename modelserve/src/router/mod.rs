//! Where experiments and flags live, and how decisions come out of them.

mod memory;
mod redis;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

pub use memory::MemoryModelRouter;
pub use redis::RedisModelRouter;

use crate::{Decision, Experiment, Flag, FlagDecision, Result, Snapshot, Subject};

/// Decides which model each subject gets: the contract with those who implement one.
///
/// Decisions are made from a [`Snapshot`], without I/O; [`refresh`](Self::refresh) replaces it.
/// Callers use [`ModelRouterExt`] besides.
#[async_trait]
pub trait ModelRouter: Debug + Send + Sync + 'static {
    /// Returns the snapshot in use; no I/O.
    fn snapshot(&self) -> Arc<Snapshot>;

    /// Reads everything anew and returns the snapshot, which is in use from now on.
    ///
    /// A record that cannot be read is left out, and asking for it is an error that says why.
    ///
    /// # Errors
    ///
    /// [`Error::Unsettled`](crate::Error::Unsettled) if records changed all the time;
    /// [`Error::Backend`](crate::Error::Backend). The older snapshot stays in use then.
    async fn refresh(&self) -> Result<Arc<Snapshot>>;

    /// Stores an experiment in the place of the [revision](Experiment::revision) that it was made from, 0 for a new one, and
    /// returns its new revision.
    ///
    /// # Errors
    ///
    /// [`Error::Conflict`](crate::Error::Conflict) if another revision is there;
    /// [`Error::MovesUsers`](crate::Error::MovesUsers) if it would move units between arms;
    /// [`Error::Invalid`](crate::Error::Invalid) and [`Error::InvalidName`](crate::Error::InvalidName): nothing is stored.
    async fn put_experiment(&self, experiment: &Experiment) -> Result<u64>;

    /// Reads one experiment, as it is now.
    ///
    /// # Errors
    ///
    /// [`Error::Record`](crate::Error::Record) if it cannot be read.
    async fn experiment(&self, name: &str) -> Result<Option<Experiment>>;

    /// Removes an experiment; `false` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn remove_experiment(&self, name: &str) -> Result<bool>;

    /// Stores a flag, as [`put_experiment`](Self::put_experiment) does.
    ///
    /// # Errors
    ///
    /// As [`put_experiment`](Self::put_experiment).
    async fn put_flag(&self, flag: &Flag) -> Result<u64>;

    /// Removes a flag; `false` if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    async fn remove_flag(&self, name: &str) -> Result<bool>;

    /// Decides as the snapshot does, and keeps the first assignment of a unit for `ttl` from its last use, also when the
    /// arms' shares change meanwhile.
    ///
    /// Who does not take part now is not assigned, whatever was kept. One round trip for who does.
    ///
    /// # Errors
    ///
    /// Those of [`Snapshot::route`]; [`Error::Backend`](crate::Error::Backend).
    async fn route_sticky(
        &self,
        experiment: &str,
        subject: &Subject,
        ttl: Duration,
    ) -> Result<Decision>;
}

/// What callers do with a [`ModelRouter`].
pub trait ModelRouterExt: ModelRouter {
    /// Decides which model a subject gets; no I/O.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::route`].
    fn route(&self, experiment: &str, subject: &Subject) -> Result<Decision> {
        self.snapshot().route(experiment, subject)
    }

    /// Decides what a flag says to a subject; no I/O.
    ///
    /// # Errors
    ///
    /// As [`Snapshot::flag`].
    fn flag(&self, flag: &str, subject: &Subject) -> Result<FlagDecision> {
        self.snapshot().flag(flag, subject)
    }
}

impl<R: ModelRouter + ?Sized> ModelRouterExt for R {}

/// Checks an experiment against the one that it replaces.
fn check_change(experiment: &Experiment, older: Option<&Experiment>) -> Result<()> {
    experiment.check()?;
    match older {
        Some(older) if experiment.moves_users_of(older) => {
            Err(crate::Error::MovesUsers { experiment: experiment.name().to_owned() })
        }
        _ => Ok(()),
    }
}

fn conflict(what: &str, name: &str, current: u64) -> crate::Error {
    let current = if current == 0 { String::new() } else { current.to_string() };
    crate::Error::Conflict { what: format!("{what} {name}"), current }
}
