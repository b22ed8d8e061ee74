use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::{Clock, SystemClock};

use super::{ModelRouter, check_change, conflict};
use crate::snapshot::{Aliases, aliased};
use crate::{Decision, Experiment, Flag, ModelRegistry, Reason, Result, Snapshot, Subject};

/// A router within this process, for tests and small tools.
#[derive(Debug)]
pub struct MemoryModelRouter {
    registry: Option<Arc<dyn ModelRegistry>>,
    clock: Arc<dyn Clock>,
    // A `std` mutex: it is held for look-ups, never across an await.
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    experiments: BTreeMap<String, Experiment>,
    flags: BTreeMap<String, Flag>,
    /// By experiment, bucket version and unit: the arm, and until when.
    sticky: HashMap<(String, u32, String), (String, Duration)>,
    snapshot: Arc<Snapshot>,
}

impl MemoryModelRouter {
    /// Makes a router without experiments.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// Makes a router whose experiments begin and end by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { registry: None, clock, state: Mutex::default() }
    }

    /// Looks up aliases in a registry.
    #[must_use]
    pub fn with_registry(mut self, registry: Arc<dyn ModelRegistry>) -> Self {
        self.registry = Some(registry);
        self
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryModelRouter {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl ModelRouter for MemoryModelRouter {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.lock().snapshot)
    }

    async fn refresh(&self) -> Result<Arc<Snapshot>> {
        let (experiments, flags): (Vec<_>, Vec<_>) = {
            let state = self.lock();
            (state.experiments.values().cloned().collect(), state.flags.values().cloned().collect())
        };
        let mut aliases = Aliases::new();
        if let Some(registry) = &self.registry {
            for model in aliased(&experiments) {
                let of = registry.aliases(&model).await?;
                aliases.insert(model, of.into_iter().collect());
            }
        }
        let now = self.clock.now();
        let snapshot = Snapshot::new(experiments, flags, &aliases, BTreeMap::new(), now);
        let snapshot = Arc::new(snapshot);
        self.lock().snapshot = Arc::clone(&snapshot);
        Ok(snapshot)
    }

    async fn put_experiment(&self, experiment: &Experiment) -> Result<u64> {
        let mut state = self.lock();
        let older = state.experiments.get(experiment.name());
        let current = older.map_or(0, Experiment::revision);
        if current != experiment.revision {
            experiment.check()?;
            return Err(conflict("experiment", experiment.name(), current));
        }
        check_change(experiment, older)?;
        let revision = current + 1;
        let stored = Experiment { revision, ..experiment.clone() };
        state.experiments.insert(stored.name.clone(), stored);
        Ok(revision)
    }

    async fn experiment(&self, name: &str) -> Result<Option<Experiment>> {
        Ok(self.lock().experiments.get(name).cloned())
    }

    async fn remove_experiment(&self, name: &str) -> Result<bool> {
        Ok(self.lock().experiments.remove(name).is_some())
    }

    async fn put_flag(&self, flag: &Flag) -> Result<u64> {
        flag.check()?;
        let mut state = self.lock();
        let current = state.flags.get(flag.name()).map_or(0, Flag::revision);
        if current != flag.revision {
            return Err(conflict("flag", flag.name(), current));
        }
        let revision = current + 1;
        state.flags.insert(flag.name.clone(), Flag { revision, ..flag.clone() });
        Ok(revision)
    }

    async fn remove_flag(&self, name: &str) -> Result<bool> {
        Ok(self.lock().flags.remove(name).is_some())
    }

    async fn route_sticky(
        &self,
        experiment: &str,
        subject: &Subject,
        ttl: Duration,
    ) -> Result<Decision> {
        let now = self.clock.now();
        let mut state = self.lock();
        let decision = state.snapshot.route(experiment, subject)?;
        let Some((version, unit)) = assigned(&state.snapshot, &decision, subject) else {
            return Ok(decision);
        };
        let key = (experiment.to_owned(), version, unit.to_owned());
        let kept = state.sticky.get(&key).filter(|(_, end)| now < *end).map(|(arm, _)| arm.clone());
        let arm = kept.clone().unwrap_or_else(|| decision.arm.to_string());
        state.sticky.insert(key, (arm, now + ttl));
        let moved = kept.filter(|arm| **arm != *decision.arm);
        Ok(moved.and_then(|arm| state.snapshot.stick(&decision, &arm)).unwrap_or(decision))
    }
}

/// The bucket version and the unit, if the decision is an assignment.
pub(super) fn assigned<'s>(
    snapshot: &Snapshot,
    decision: &Decision,
    subject: &'s Subject,
) -> Option<(u32, &'s str)> {
    let experiment = snapshot.experiment(&decision.experiment)?;
    let unit = subject.unit(&experiment.unit)?;
    (decision.reason == Reason::Split).then_some((experiment.bucket_version, unit))
}
