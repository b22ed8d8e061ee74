use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::bucketing::{Bucketing, Stage};
use crate::condition::Condition;
use crate::error::{Error, Result, name};
use crate::ranges::Ranges;
use crate::subject::ID;

/// The places of a stage: hundredths of a percent.
pub const TOTAL: u32 = 10_000;

/// A test of models against each other, or a canary: who gets which model.
///
/// Arms own ranges of places, and each unit has a place that never changes, so a unit keeps its arm as long as its place
/// belongs to it: [`ramp`](Self::ramp) gives an arm places of another one and takes none from those who are in it.
/// Whether a unit takes part and which arm it gets are placed by different salts, so that they do not depend on each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    pub(crate) name: String,
    pub(crate) revision: u64,
    pub(crate) status: Status,
    pub(crate) bucketing: Bucketing,
    pub(crate) bucket_version: u32,
    pub(crate) unit: String,
    pub(crate) total: u32,
    pub(crate) salts: Option<Salts>,
    pub(crate) eligible: Ranges,
    pub(crate) arms: Vec<Arm>,
    pub(crate) exclusion: Option<Exclusion>,
    pub(crate) start: Option<u64>,
    pub(crate) end: Option<u64>,
    pub(crate) targeting: Option<Condition>,
    pub(crate) overrides: BTreeMap<String, String>,
}

/// Whether an experiment assigns.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// It assigns.
    #[default]
    Running,
    /// Everybody gets the first arm: the kill switch.
    Paused,
    /// It is over, and everybody gets this arm.
    Concluded(String),
}

/// One of the alternatives.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Arm {
    /// Its name, such as `control`.
    pub name: String,
    /// What it serves.
    pub target: Target,
    /// Which places it owns.
    pub(crate) ranges: Ranges,
}

/// A model, in a version or behind an alias.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Target {
    /// What an alias of the model means when the snapshot is loaded.
    Alias {
        /// The model.
        model: String,
        /// The alias, such as `champion`.
        alias: String,
    },
    /// This very version.
    Version {
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
    /// The model, whose version somebody else decides.
    Model {
        /// The model.
        model: String,
    },
}

impl Target {
    /// A version of a model.
    #[must_use]
    pub fn version(model: impl Into<String>, version: impl Into<String>) -> Self {
        Self::Version { model: model.into(), version: version.into() }
    }

    /// An alias of a model.
    #[must_use]
    pub fn alias(model: impl Into<String>, alias: impl Into<String>) -> Self {
        Self::Alias { model: model.into(), alias: alias.into() }
    }

    /// A model.
    #[must_use]
    pub fn model(model: impl Into<String>) -> Self {
        Self::Model { model: model.into() }
    }

    /// Returns the model's name.
    #[must_use]
    pub fn model_name(&self) -> &str {
        match self {
            Self::Alias { model, .. } | Self::Version { model, .. } | Self::Model { model } => {
                model
            }
        }
    }
}

/// By which texts units are placed, where they are not made of the experiment's name.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Salts {
    /// Whether it takes part.
    pub eligibility: String,
    /// Which arm.
    pub arm: String,
}

/// Which part of an exclusion group the experiment has: two experiments with parts that do not overlap never share a unit.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Exclusion {
    /// The group.
    pub group: String,
    /// The places of the group, of [`TOTAL`].
    pub(crate) ranges: Ranges,
}

impl Experiment {
    /// Begins a definition; `first` is the arm that is served where nothing is assigned.
    ///
    /// Give arms their weights with [`with_arm`](Self::with_arm); the first has what the others leave.
    #[must_use]
    pub fn new(experiment: impl Into<String>, first: impl Into<String>, target: Target) -> Self {
        let arm = Arm { name: first.into(), target, ranges: Ranges::upto(TOTAL) };
        Self {
            name: experiment.into(),
            revision: 0,
            status: Status::Running,
            bucketing: Bucketing::default(),
            bucket_version: 1,
            unit: ID.to_owned(),
            total: TOTAL,
            salts: None,
            eligible: Ranges::upto(TOTAL),
            arms: vec![arm],
            exclusion: None,
            start: None,
            end: None,
            targeting: None,
            overrides: BTreeMap::new(),
        }
    }

    /// Adds an arm that gets `weight` of [`TOTAL`] places, which the first arm gives.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if the first arm has not so many left, or the name is taken.
    pub fn with_arm(mut self, arm: impl Into<String>, target: Target, weight: u32) -> Result<Self> {
        let arm = arm.into();
        if self.arms.iter().any(|other| other.name == arm) {
            return Err(self.invalid(format!("has two arms {arm}: give them different names")));
        }
        self.arms.push(Arm { name: arm.clone(), target, ranges: Ranges::default() });
        self.ramp(&arm, weight)?;
        Ok(self)
    }

    /// Makes an arm's share `weight` of the places: what it lacks it gets from the first arm, and what it has too much the
    /// first arm gets back. Units that are in the arm stay as long as it grows.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] if there is no such arm; [`Error::Invalid`] if the first arm has not enough, or it is the first.
    pub fn ramp(&mut self, arm: &str, weight: u32) -> Result<()> {
        let unknown = || Error::Unknown { what: format!("arm {arm} in experiment {}", self.name) };
        let place = self.arms.iter().position(|other| other.name == arm).ok_or_else(unknown)?;
        let left = self.arms.first().map_or(0, |first| first.ranges.len());
        let Some((first, rest)) = self.arms.split_first_mut() else { return Err(unknown()) };
        let Some(grown) = place.checked_sub(1).and_then(|place| rest.get_mut(place)) else {
            return Err(
                self.invalid("its first arm has what the others leave: ramp another".to_owned())
            );
        };
        match weight.checked_sub(grown.ranges.len()) {
            Some(more) if left < more => Err(self.invalid(format!(
                "has {left} places left in its first arm, and arm {arm} needs {more} more: take less, or take them from another arm before"
            ))),
            Some(more) => {
                grown.ranges.add(first.ranges.take_last(more));
                Ok(())
            }
            None => {
                let less = grown.ranges.len() - weight;
                first.ranges.add(grown.ranges.take_first(less));
                Ok(())
            }
        }
    }

    /// Lets only `share` of [`TOTAL`] units take part; raising it later keeps those who do.
    #[must_use]
    pub fn with_eligible(mut self, share: u32) -> Self {
        self.eligible = Ranges::upto(share.min(self.total));
        self
    }

    /// Sets the formula by which units are placed.
    #[must_use]
    pub fn with_bucketing(mut self, bucketing: Bucketing) -> Self {
        self.bucketing = bucketing;
        self
    }

    /// Sets the salts, such as those of a system in which the experiment runs already.
    #[must_use]
    pub fn with_salts(mut self, eligibility: impl Into<String>, arm: impl Into<String>) -> Self {
        self.salts = Some(Salts { eligibility: eligibility.into(), arm: arm.into() });
        self
    }

    /// Sets the attribute by which units are told apart, `id` unless set: `session` for a chat.
    #[must_use]
    pub fn with_unit(mut self, attribute: impl Into<String>) -> Self {
        self.unit = attribute.into();
        self
    }

    /// Places everybody anew when it is raised; arms may be changed in any way then.
    #[must_use]
    pub fn with_bucket_version(mut self, version: u32) -> Self {
        self.bucket_version = version;
        self
    }

    /// Limits it to places `from` to `to` (without `to`), of [`TOTAL`], of an exclusion group.
    #[must_use]
    pub fn with_exclusion(mut self, group: impl Into<String>, from: u32, to: u32) -> Self {
        self.exclusion = Some(Exclusion { group: group.into(), ranges: Ranges::of(from, to) });
        self
    }

    /// Sets when it begins, in seconds since the Unix epoch.
    #[must_use]
    pub fn with_start(mut self, seconds: u64) -> Self {
        self.start = Some(seconds);
        self
    }

    /// Sets when it ends, in seconds since the Unix epoch.
    #[must_use]
    pub fn with_end(mut self, seconds: u64) -> Self {
        self.end = Some(seconds);
        self
    }

    /// Sets for whom it is.
    #[must_use]
    pub fn with_targeting(mut self, condition: Condition) -> Self {
        self.targeting = Some(condition);
        self
    }

    /// Gives one unit an arm, whatever else holds: for testers.
    #[must_use]
    pub fn with_override(mut self, unit: impl Into<String>, arm: impl Into<String>) -> Self {
        self.overrides.insert(unit.into(), arm.into());
        self
    }

    /// Sets whether it assigns.
    #[must_use]
    pub fn with_status(mut self, status: Status) -> Self {
        self.status = status;
        self
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the revision that was read, 0 if it was never stored.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Sets the revision under which it is stored; for implementors of [`ModelRouter`](crate::ModelRouter).
    #[must_use]
    pub fn with_revision(mut self, revision: u64) -> Self {
        self.revision = revision;
        self
    }

    /// Returns the attribute by which units are told apart.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Returns the version of the places: raising it places everybody anew.
    #[must_use]
    pub fn bucket_version(&self) -> u32 {
        self.bucket_version
    }

    /// Returns whether it assigns.
    #[must_use]
    pub fn status(&self) -> &Status {
        &self.status
    }

    /// Returns the arms, the first of which is served where nothing is assigned.
    #[must_use]
    pub fn arms(&self) -> &[Arm] {
        &self.arms
    }

    /// Returns an arm.
    #[must_use]
    pub fn arm(&self, name: &str) -> Option<&Arm> {
        self.arms.iter().find(|arm| arm.name == name)
    }

    /// Returns how many of [`TOTAL`] places an arm owns; 0 if there is no such arm.
    #[must_use]
    pub fn weight(&self, arm: &str) -> u32 {
        self.arm(arm).map_or(0, |arm| arm.ranges.len())
    }

    /// Tells whether replacing `older` by this would move units from one arm to another, rather than let them in or out.
    #[must_use]
    pub fn moves_users_of(&self, older: &Self) -> bool {
        let placed = |experiment: &Self| {
            let salts = experiment.salt(Stage::Arm);
            (experiment.bucketing, experiment.bucket_version, salts, experiment.unit.clone())
        };
        if self.bucket_version != older.bucket_version {
            return false;
        }
        if placed(self) != placed(older) {
            return true;
        }
        // Units may leave the first arm, and come back to it; nobody may go from one tested arm to another.
        older.arms.iter().skip(1).any(|before| {
            self.arms
                .iter()
                .skip(1)
                .any(|after| after.name != before.name && before.ranges.overlap(&after.ranges))
        })
    }

    /// The text by which units are placed.
    pub(crate) fn salt(&self, stage: Stage) -> String {
        let own = |word: &str| {
            let Self { name, bucket_version, .. } = self;
            format!("{name}:{bucket_version}:{word}:")
        };
        match (&self.salts, stage) {
            (Some(salts), Stage::Arm) => salts.arm.clone(),
            (Some(salts), Stage::Eligibility) => salts.eligibility.clone(),
            (None, Stage::Arm) => own("arm"),
            (None, Stage::Eligibility) => own("eligibility"),
        }
    }

    /// Checks that it makes sense, as an implementation does before it stores anything.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] or [`Error::InvalidName`].
    pub fn check(&self) -> Result<()> {
        name("experiment's name", &self.name)?;
        name("unit", &self.unit)?;
        let mut names: Vec<&str> = Vec::new();
        let mut owned = Ranges::default();
        for arm in &self.arms {
            name("arm's name", &arm.name)?;
            name("model's name", arm.target.model_name())?;
            if names.contains(&arm.name.as_str()) {
                return Err(self.invalid(format!("has two arms {}", arm.name)));
            }
            if owned.overlap(&arm.ranges) || !arm.ranges.within(self.total) {
                return Err(self.invalid(format!(
                    "gives arm {} places that another has or that do not exist",
                    arm.name
                )));
            }
            owned.add(arm.ranges.clone());
            names.push(&arm.name);
        }
        if names.is_empty() || owned.len() == 0 {
            return Err(self.invalid("has no arm with a place".to_owned()));
        }
        let concluded = match &self.status {
            Status::Concluded(arm) => Some(arm),
            Status::Paused | Status::Running => None,
        };
        for arm in self.overrides.values().chain(concluded) {
            if !names.contains(&arm.as_str()) {
                return Err(self.invalid(format!("names an arm {arm} that it does not have")));
            }
        }
        if let Some(exclusion) = &self.exclusion {
            name("exclusion group", &exclusion.group)?;
            if exclusion.ranges.len() == 0 || !exclusion.ranges.within(TOTAL) {
                return Err(self.invalid(format!(
                    "has no part of its exclusion group: give it places from 0 to {TOTAL}"
                )));
            }
        }
        if self.start.zip(self.end).is_some_and(|(start, end)| end <= start) {
            return Err(self.invalid("ends before it starts".to_owned()));
        }
        self.targeting.as_ref().map_or(Ok(()), Condition::check)
    }

    fn invalid(&self, problem: String) -> Error {
        Error::invalid(format!("experiment {}", self.name), problem)
    }
}
