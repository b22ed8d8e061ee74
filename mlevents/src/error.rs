/// The result of a call to this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused, or could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// A name is empty, too long or holds control characters.
    #[error("the {what} is empty, longer than 256 bytes or holds control characters")]
    InvalidName {
        /// Of what.
        what: &'static str,
    },
    /// A setting makes no sense.
    #[error("{what}: {problem}")]
    Invalid {
        /// What was set.
        what: &'static str,
        /// What is wrong, and what to do.
        problem: &'static str,
    },
    /// The data of an event is not what was asked for.
    #[error("event {id} of type {kind} does not hold what was asked for")]
    Data {
        /// The event's id.
        id: String,
        /// The event's type.
        kind: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A value cannot be the data of an event.
    #[error("a value cannot be the data of an event")]
    Encode(#[source] serde_json::Error),
    /// A group is not there.
    #[error("group {group} of topic {topic} is not there: call `create_group`")]
    NoGroup {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
    },
    /// A partition is not one of the topic's.
    #[error("topic {topic} has {partitions} partitions, and {partition} was asked for")]
    NoPartition {
        /// The topic.
        topic: String,
        /// How many it has.
        partitions: u16,
        /// Which was asked for.
        partition: u16,
    },
}

impl Error {
    pub(crate) fn is_transient(&self) -> bool {
        matches!(self, Self::Backend(error) if error.is_transient())
    }
}

/// Checks a name that a caller gave.
pub(crate) fn name(what: &'static str, name: &str) -> Result<()> {
    if name.trim().is_empty() || 256 < name.len() || name.chars().any(char::is_control) {
        Err(Error::InvalidName { what })
    } else {
        Ok(())
    }
}
