use std::sync::Arc;

/// Which model a subject gets, and why.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Decision {
    /// The experiment.
    pub experiment: Arc<str>,
    /// The arm.
    pub arm: Arc<str>,
    /// The model.
    pub model: Arc<str>,
    /// The version, if the arm names one or its alias was known when the snapshot was loaded.
    pub version: Option<Arc<str>>,
    /// Why.
    pub reason: Reason,
    /// The revision of the experiment.
    pub revision: u64,
}

impl Decision {
    /// Tells whether the subject takes part in the experiment, so that what it does counts.
    #[must_use]
    pub fn is_assigned(&self) -> bool {
        matches!(self.reason, Reason::Split | Reason::Sticky)
    }
}

/// Why a decision is as it is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reason {
    /// The experiment is over, and this arm won.
    Concluded,
    /// Nothing else holds.
    Default,
    /// It is over.
    Ended,
    /// The unit belongs to another experiment of the exclusion group.
    Excluded,
    /// The subject has no such attribute, or it is no text.
    NoUnit,
    /// The unit is not among those who take part.
    NotEligible,
    /// It has not begun.
    NotStarted,
    /// The subject does not meet the condition.
    NotTargeted,
    /// The unit was given this arm by name.
    Override,
    /// It is switched off.
    Paused,
    /// The unit's place belongs to the arm.
    Split,
    /// The unit was assigned before.
    Sticky,
    /// A rule is for this subject.
    Targeted,
}

impl Reason {
    /// Returns a word for logs and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Concluded => "concluded",
            Self::Default => "default",
            Self::Ended => "ended",
            Self::Excluded => "excluded",
            Self::NoUnit => "no_unit",
            Self::NotEligible => "not_eligible",
            Self::NotStarted => "not_started",
            Self::NotTargeted => "not_targeted",
            Self::Override => "override",
            Self::Paused => "paused",
            Self::Split => "split",
            Self::Sticky => "sticky",
            Self::Targeted => "targeted",
        }
    }
}
