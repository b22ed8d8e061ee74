use std::time::Duration;

/// The result of a call to this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call was refused, or could not be answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The server could not be asked, or refused.
    #[error(transparent)]
    Backend(#[from] inferkit_core::Error),
    /// A definition makes no sense.
    #[error("{what}: {problem}")]
    Invalid {
        /// What was defined.
        what: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The group is registered with other features.
    #[error(
        "group {group} is registered with other features: {problem}; features are only appended: give the group \
         another generation to change them, and copy the rows"
    )]
    Incompatible {
        /// The group.
        group: String,
        /// The first difference.
        problem: String,
    },
    /// A group has no such feature.
    #[error("group {group} has no feature {feature}: look at its definition")]
    UnknownFeature {
        /// The group.
        group: String,
        /// The feature that was named.
        feature: String,
    },
    /// A value does not fit its feature.
    #[error("feature {feature} of group {group} is {expected}, and got {got}: convert the value")]
    TypeMismatch {
        /// The group.
        group: String,
        /// The feature.
        feature: String,
        /// Its type.
        expected: String,
        /// What was given.
        got: String,
    },
    /// A row has more or fewer values than its group has features.
    #[error(
        "a row of group {group} has {got} values, and the group {expected} features: give one for each, `Value::Null` \
         where there is none"
    )]
    RowLength {
        /// The group.
        group: String,
        /// Features of the group.
        expected: usize,
        /// Values of the row.
        got: usize,
    },
    /// An entity has other keys than its type.
    #[error("an entity of type {entity_type} has {expected} keys, and got {got}")]
    EntityKeys {
        /// The entity type.
        entity_type: String,
        /// Keys of the type.
        expected: usize,
        /// Keys that were given.
        got: usize,
    },
    /// The number of entities is no multiple of the entity types of the input.
    #[error("the input asks for {types} entities a row, and {entities} is no multiple of that")]
    EntityCount {
        /// Entity types of the input.
        types: usize,
        /// Entities that were given.
        entities: usize,
    },
    /// A value is not there, and its column asked for an error then.
    #[error(
        "feature {feature} of group {group} is {status} for row {row}, and its column takes no other value for it"
    )]
    Absent {
        /// The group.
        group: String,
        /// The feature.
        feature: String,
        /// `null` or `missing`.
        status: &'static str,
        /// The row of the matrix.
        row: usize,
    },
    /// A value is older than its group's freshness, and its column asked for an error then.
    #[error("feature {feature} of group {group} is {age:?} old for row {row}: its writer is late")]
    Stale {
        /// The group.
        group: String,
        /// The feature.
        feature: String,
        /// The row of the matrix.
        row: usize,
        /// The age of the event.
        age: Duration,
    },
    /// A stored row cannot be read.
    #[error("a row of group {group} cannot be read: {problem}")]
    Corrupt {
        /// The group.
        group: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A row was written under another registration of its group.
    #[error(
        "a row of group {group} belongs to another registration of the group: it was dropped and registered again; \
         register it in this process again"
    )]
    OtherLineage {
        /// The group.
        group: String,
    },
    /// The operation needs the other layout.
    #[error("group {group} is {layout}, and {operation} needs the other layout")]
    Layout {
        /// The group.
        group: String,
        /// Its layout.
        layout: &'static str,
        /// What was asked for.
        operation: &'static str,
    },
    /// The store cannot do this.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A file or a stream of rows failed.
    #[error("the source of the rows failed at row {row}")]
    Source {
        /// The row.
        row: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Error {
    pub(crate) fn invalid(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { what: what.into(), problem: problem.into() }
    }

    /// What a source of rows failed with; an error of this crate stays what it is.
    pub(crate) fn source(row: u64, error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        match error.downcast::<Self>() {
            Ok(own) => *own,
            Err(source) => Self::Source { row, source },
        }
    }

    pub(crate) fn corrupt(group: &str, problem: impl Into<String>) -> Self {
        Self::Corrupt { group: group.to_owned(), problem: problem.into() }
    }
}
