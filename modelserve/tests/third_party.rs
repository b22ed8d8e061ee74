//! The public API suffices to write a router that passes the suite.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use inferkit_modelserve::{
    Aliases, Decision, Error, Experiment, Flag, ModelRouter, Reason, Result, Snapshot, Subject,
    model_router_conformance,
};

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Everything under one lock.
#[derive(Debug, Default)]
struct Strange {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    experiments: BTreeMap<String, Experiment>,
    flags: BTreeMap<String, Flag>,
    first: HashMap<String, String>,
    snapshot: Arc<Snapshot>,
}

fn conflict(what: &str, current: u64) -> Error {
    Error::Conflict { what: what.to_owned(), current: current.to_string() }
}

#[async_trait]
impl ModelRouter for Strange {
    fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.lock().unwrap().snapshot)
    }

    async fn refresh(&self) -> Result<Arc<Snapshot>> {
        let mut state = self.state.lock().unwrap();
        let experiments = state.experiments.values().cloned().collect();
        let flags = state.flags.values().cloned().collect();
        let snapshot = Snapshot::new(experiments, flags, &Aliases::new(), BTreeMap::new(), now());
        state.snapshot = Arc::new(snapshot);
        Ok(Arc::clone(&state.snapshot))
    }

    async fn put_experiment(&self, experiment: &Experiment) -> Result<u64> {
        experiment.check()?;
        let mut state = self.state.lock().unwrap();
        let older = state.experiments.get(experiment.name());
        let current = older.map_or(0, Experiment::revision);
        if current != experiment.revision() {
            return Err(conflict(experiment.name(), current));
        }
        if older.is_some_and(|older| experiment.moves_users_of(older)) {
            return Err(Error::MovesUsers { experiment: experiment.name().to_owned() });
        }
        let stored = experiment.clone().with_revision(current + 1);
        state.experiments.insert(experiment.name().to_owned(), stored);
        Ok(current + 1)
    }

    async fn experiment(&self, name: &str) -> Result<Option<Experiment>> {
        Ok(self.state.lock().unwrap().experiments.get(name).cloned())
    }

    async fn remove_experiment(&self, name: &str) -> Result<bool> {
        Ok(self.state.lock().unwrap().experiments.remove(name).is_some())
    }

    async fn put_flag(&self, flag: &Flag) -> Result<u64> {
        flag.check()?;
        let mut state = self.state.lock().unwrap();
        let current = state.flags.get(flag.name()).map_or(0, Flag::revision);
        if current != flag.revision() {
            return Err(conflict(flag.name(), current));
        }
        state.flags.insert(flag.name().to_owned(), flag.clone().with_revision(current + 1));
        Ok(current + 1)
    }

    async fn remove_flag(&self, name: &str) -> Result<bool> {
        Ok(self.state.lock().unwrap().flags.remove(name).is_some())
    }

    async fn route_sticky(
        &self,
        experiment: &str,
        subject: &Subject,
        _: Duration,
    ) -> Result<Decision> {
        let mut state = self.state.lock().unwrap();
        let decision = state.snapshot.route(experiment, subject)?;
        let unit = state.snapshot.experiment(experiment).map(Experiment::unit);
        let (Reason::Split, Some(unit)) =
            (decision.reason, unit.and_then(|unit| subject.unit(unit)))
        else {
            return Ok(decision);
        };
        let key = format!("{experiment} {unit}");
        let arm = state.first.entry(key).or_insert_with(|| decision.arm.to_string()).clone();
        if *arm == *decision.arm {
            return Ok(decision);
        }
        Ok(state.snapshot.stick(&decision, &arm).unwrap_or(decision))
    }
}

async fn make() -> Strange {
    Strange::default()
}

model_router_conformance!(make);
