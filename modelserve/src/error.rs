/// The result of a call to this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused, or could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// A version is there already, with other contents.
    #[error(
        "version {version} of model {model} is there already, and versions never change: publish another version"
    )]
    VersionExists {
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
    /// There is no such model, version or alias.
    #[error(
        "model {model} has no {what}: publish it, or look at the list of the model's versions and aliases"
    )]
    UnknownModel {
        /// The model.
        model: String,
        /// What was asked for.
        what: String,
    },
    /// A version is not to be served any more.
    #[error(
        "version {version} of model {model} is deprecated: move the alias to an active version, or activate it first"
    )]
    Deprecated {
        /// The model.
        model: String,
        /// The version.
        version: String,
    },
    /// A version is in use.
    #[error("version {version} of model {model} is what {alias} means: move the alias first")]
    InUse {
        /// The model.
        model: String,
        /// The version.
        version: String,
        /// The alias.
        alias: String,
    },
    /// Somebody else changed it since it was read.
    #[error("{what} was changed since you read it: read it again, and decide again")]
    Conflict {
        /// What was to be changed.
        what: String,
        /// What is there now: a version or a revision; empty if nothing is there.
        current: String,
    },
    /// A change would move users from one arm to another.
    #[error(
        "the change of experiment {experiment} would move users between arms: use `ramp`, or raise the bucket version"
    )]
    MovesUsers {
        /// The experiment.
        experiment: String,
    },
    /// An experiment or a flag is not there.
    #[error("there is no {what}: publish it, or refresh the snapshot")]
    Unknown {
        /// What was asked for.
        what: String,
    },
    /// The snapshot has not been loaded yet.
    #[error("nothing has been loaded yet: call `refresh` once at start, and spawn `run`")]
    NotLoaded,
    /// Records changed all the time while they were read.
    #[error(
        "the records changed all the time while they were read: the older snapshot stays; try again"
    )]
    Unsettled,
    /// A name is empty or too long.
    #[error("the {what} is empty or longer than 256 bytes")]
    InvalidName {
        /// Of what.
        what: &'static str,
    },
    /// A definition makes no sense.
    #[error("{what}: {problem}")]
    Invalid {
        /// What was defined.
        what: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// What is stored cannot be read.
    #[error("{what} cannot be read: {problem}")]
    Record {
        /// What was read.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), problem: problem.into() }
    }

    pub(crate) fn record(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Record { what: what.into(), problem: problem.into() }
    }
}

/// Checks a name that a caller gave.
pub(crate) fn name<'n>(what: &'static str, name: &'n str) -> Result<&'n str> {
    if name.trim().is_empty() || 256 < name.len() {
        Err(Error::InvalidName { what })
    } else {
        Ok(name)
    }
}
