use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::bucketing::Stage;
use crate::{
    Decision, Error, Experiment, Flag, FlagDecision, Reason, Result, Status, Subject, TOTAL, Target,
};

/// All experiments, flags and aliases as they were at one time: decisions are made from it without I/O.
///
/// It never changes; a router replaces it as a whole.
#[derive(Debug, Default)]
pub struct Snapshot {
    experiments: HashMap<String, Prepared>,
    flags: HashMap<String, Flag>,
    /// What could not be read, and why.
    broken: BTreeMap<String, String>,
    loaded: Option<Loaded>,
}

#[derive(Debug)]
struct Loaded {
    at: Instant,
    /// The server's time, since the Unix epoch.
    server: Duration,
}

/// An experiment with everything that does not depend on the subject.
#[derive(Debug)]
struct Prepared {
    experiment: Experiment,
    name: Arc<str>,
    arms: Vec<PreparedArm>,
    eligibility_salt: String,
    arm_salt: String,
    exclusion_salt: String,
}

#[derive(Debug)]
struct PreparedArm {
    name: Arc<str>,
    model: Arc<str>,
    version: Option<Arc<str>>,
}

/// The aliases of models: by model and alias, the version.
pub type Aliases = HashMap<String, HashMap<String, String>>;

impl Snapshot {
    /// Makes a snapshot that was read now, at the time `server`, since the Unix epoch; `broken` are records that could not
    /// be read (`experiment <name>`, `flag <name>`), and why.
    #[must_use]
    pub fn new(
        experiments: Vec<Experiment>,
        flags: Vec<Flag>,
        aliases: &Aliases,
        broken: BTreeMap<String, String>,
        server: Duration,
    ) -> Self {
        let prepare =
            |experiment: Experiment| (experiment.name.clone(), Prepared::new(experiment, aliases));
        Self {
            experiments: experiments.into_iter().map(prepare).collect(),
            flags: flags.into_iter().map(|flag| (flag.name.clone(), flag)).collect(),
            broken,
            loaded: Some(Loaded { at: Instant::now(), server }),
        }
    }

    /// Decides which model a subject gets; no I/O, less than a microsecond.
    ///
    /// # Errors
    ///
    /// [`Error::NotLoaded`] before the first load; [`Error::Unknown`] if there is no such experiment; [`Error::Record`] if
    /// it could not be read.
    pub fn route(&self, experiment: &str, subject: &Subject) -> Result<Decision> {
        let loaded = self.loaded.as_ref().ok_or(Error::NotLoaded)?;
        match self.experiments.get(experiment) {
            Some(prepared) => {
                let now = loaded.server + loaded.at.elapsed();
                let (arm, reason) = prepared.choose(subject, now.as_secs());
                Ok(prepared.decision(arm, reason))
            }
            None => Err(self.missing("experiment", experiment)),
        }
    }

    /// Decides what a flag says to a subject; no I/O.
    ///
    /// # Errors
    ///
    /// As [`route`](Self::route).
    pub fn flag(&self, flag: &str, subject: &Subject) -> Result<FlagDecision> {
        self.loaded.as_ref().ok_or(Error::NotLoaded)?;
        match self.flags.get(flag) {
            Some(flag) => Ok(flag.evaluate(subject)),
            None => Err(self.missing("flag", flag)),
        }
    }

    /// Returns an experiment.
    #[must_use]
    pub fn experiment(&self, name: &str) -> Option<&Experiment> {
        self.experiments.get(name).map(|prepared| &prepared.experiment)
    }

    /// Returns all experiments, in no order.
    pub fn experiments(&self) -> impl Iterator<Item = &Experiment> {
        self.experiments.values().map(|prepared| &prepared.experiment)
    }

    /// Returns all flags, in no order.
    pub fn flags(&self) -> impl Iterator<Item = &Flag> {
        self.flags.values()
    }

    /// Returns how long ago it was loaded; `None` if it never was.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.loaded.as_ref().map(|loaded| loaded.at.elapsed())
    }

    /// Returns the records that could not be read, with the reasons.
    pub fn broken(&self) -> impl Iterator<Item = (&str, &str)> {
        self.broken.iter().map(|(what, why)| (what.as_str(), why.as_str()))
    }

    /// Returns what a decision comes to if its unit was given `arm` before; `None` if the experiment has no such arm by now.
    #[must_use]
    pub fn stick(&self, decision: &Decision, arm: &str) -> Option<Decision> {
        let prepared = self.experiments.get(&*decision.experiment)?;
        let place = prepared.arms.iter().position(|other| &*other.name == arm)?;
        Some(prepared.decision(place, Reason::Sticky))
    }

    fn missing(&self, what: &str, name: &str) -> Error {
        let what = format!("{what} {name}");
        match self.broken.get(&what) {
            Some(problem) => Error::record(what, problem.clone()),
            None => Error::Unknown { what },
        }
    }
}

impl Prepared {
    fn new(experiment: Experiment, aliases: &Aliases) -> Self {
        let arms = experiment.arms.iter().map(|arm| PreparedArm {
            name: arm.name.as_str().into(),
            model: arm.target.model_name().into(),
            version: match &arm.target {
                Target::Alias { model, alias } => aliases
                    .get(model)
                    .and_then(|of| of.get(alias))
                    .map(|version| version.as_str().into()),
                Target::Version { version, .. } => Some(version.as_str().into()),
                Target::Model { .. } => None,
            },
        });
        let group = experiment.exclusion.as_ref().map(|exclusion| exclusion.group.as_str());
        Self {
            name: experiment.name.as_str().into(),
            arms: arms.collect(),
            eligibility_salt: experiment.salt(Stage::Eligibility),
            arm_salt: experiment.salt(Stage::Arm),
            exclusion_salt: format!("exclusion:{}:", group.unwrap_or_default()),
            experiment,
        }
    }

    /// The place of the arm that a subject gets.
    fn choose(&self, subject: &Subject, now: u64) -> (usize, Reason) {
        let experiment = &self.experiment;
        match &experiment.status {
            Status::Paused => return (0, Reason::Paused),
            Status::Concluded(arm) => return (self.place_of(arm), Reason::Concluded),
            Status::Running => {}
        }
        let Some(unit) = subject.unit(&experiment.unit) else { return (0, Reason::NoUnit) };
        if let Some(arm) = experiment.overrides.get(unit) {
            return (self.place_of(arm), Reason::Override);
        }
        if experiment.start.is_some_and(|start| now < start) {
            return (0, Reason::NotStarted);
        }
        if experiment.end.is_some_and(|end| end <= now) {
            return (0, Reason::Ended);
        }
        if experiment.targeting.as_ref().is_some_and(|condition| !condition.holds(subject)) {
            return (0, Reason::NotTargeted);
        }
        let place = |stage, salt: &str, total| experiment.bucketing.place(stage, salt, unit, total);
        if let Some(exclusion) = &experiment.exclusion
            && !exclusion.ranges.contains(place(Stage::Eligibility, &self.exclusion_salt, TOTAL))
        {
            return (0, Reason::Excluded);
        }
        let everybody = experiment.eligible.len() == experiment.total;
        if !everybody
            && !experiment.eligible.contains(place(
                Stage::Eligibility,
                &self.eligibility_salt,
                experiment.total,
            ))
        {
            return (0, Reason::NotEligible);
        }
        let here = place(Stage::Arm, &self.arm_salt, experiment.total);
        match experiment.arms.iter().position(|arm| arm.ranges.contains(here)) {
            Some(arm) => (arm, Reason::Split),
            None => (0, Reason::NotEligible),
        }
    }

    fn place_of(&self, arm: &str) -> usize {
        self.arms.iter().position(|other| &*other.name == arm).unwrap_or(0)
    }

    fn decision(&self, arm: usize, reason: Reason) -> Decision {
        // Checked experiments have an arm in every place that is chosen.
        let (name, model, version) = match self.arms.get(arm).or_else(|| self.arms.first()) {
            Some(arm) => (Arc::clone(&arm.name), Arc::clone(&arm.model), arm.version.clone()),
            None => ("".into(), "".into(), None),
        };
        Decision {
            experiment: Arc::clone(&self.name),
            arm: name,
            model,
            version,
            reason,
            revision: self.experiment.revision,
        }
    }
}

/// The models behind whose aliases arms stand.
pub(crate) fn aliased(experiments: &[Experiment]) -> BTreeSet<String> {
    let targets = experiments.iter().flat_map(|experiment| &experiment.arms).map(|arm| &arm.target);
    targets
        .filter_map(|target| match target {
            Target::Alias { model, .. } => Some(model.clone()),
            Target::Model { .. } | Target::Version { .. } => None,
        })
        .collect()
}
