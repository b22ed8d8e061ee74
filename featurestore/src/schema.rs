use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How many features a group may have.
pub const MAX_FEATURES: usize = 4_096;

/// The type of a feature.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DataType {
    /// A 32-bit float.
    F32,
    /// A 64-bit float.
    F64,
    /// A 32-bit integer.
    I32,
    /// A 64-bit integer.
    I64,
    /// True or false.
    Bool,
    /// Text in UTF-8.
    Str,
    /// Any bytes.
    Bytes,
    /// A moment, to the microsecond.
    Time,
    /// A vector of so many 32-bit floats, such as an embedding.
    Vector(u16),
}

impl DataType {
    /// How many bytes its cell takes in a packed row; texts and bytes keep their place and length there.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::Bool => 1,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 | Self::Time | Self::Str | Self::Bytes => 8,
            Self::Vector(length) => 4 * usize::from(length),
        }
    }

    /// How many columns of a matrix it fills; none if it is no number.
    pub(crate) fn columns(self) -> Option<usize> {
        match self {
            Self::Str | Self::Bytes | Self::Time => None,
            Self::Vector(length) => Some(length.into()),
            _ => Some(1),
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::F32 => f.write_str("f32"),
            Self::F64 => f.write_str("f64"),
            Self::I32 => f.write_str("i32"),
            Self::I64 => f.write_str("i64"),
            Self::Bool => f.write_str("bool"),
            Self::Str => f.write_str("text"),
            Self::Bytes => f.write_str("bytes"),
            Self::Time => f.write_str("time"),
            Self::Vector(length) => write!(f, "a vector of {length}"),
        }
    }
}

/// How the rows of a group are stored.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Layout {
    /// One string for each entity: a header, the event's time, a bitmap of nulls, and cells of fixed width.
    #[default]
    Packed,
    /// A hash with the features' names as fields and text as values, which anybody can read and add to.
    Hash,
}

impl Layout {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Packed => "packed",
            Self::Hash => "a hash",
        }
    }
}

/// One feature of a group.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Feature {
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) data_type: DataType,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) default: Option<f32>,
}

impl Feature {
    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the type.
    #[must_use]
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Returns what a matrix holds where there is no value; not a number if none was declared.
    #[must_use]
    pub fn default_value(&self) -> Option<f32> {
        self.default
    }
}

/// Features that are written together: their names, types and order, and how they are kept.
///
/// A definition costs nothing; [`FeatureStore::register`](crate::FeatureStore::register) makes a [`Group`] of it.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inferkit_featurestore::{DataType, FeatureGroup};
///
/// let profile = FeatureGroup::builder("user", "profile")
///     .feature("age", DataType::F32)
///     .feature_or("clicks_7d", DataType::F32, 0.0)
///     .feature("taste", DataType::Vector(8))
///     .ttl(Duration::from_secs(7 * 24 * 3600))
///     .build()?;
/// assert_eq!(profile.features().len(), 3);
/// # Ok::<(), inferkit_featurestore::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct FeatureGroup {
    pub(crate) entity_type: String,
    pub(crate) keys: Vec<String>,
    pub(crate) name: String,
    pub(crate) generation: u16,
    pub(crate) layout: Layout,
    pub(crate) features: Vec<Feature>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ttl: Option<Duration>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) freshness: Option<Duration>,
}

impl FeatureGroup {
    /// Starts the definition of a group of an entity type, such as `user` and `profile`.
    pub fn builder(entity_type: impl Into<String>, name: impl Into<String>) -> GroupBuilder {
        let entity_type = entity_type.into();
        GroupBuilder(Self {
            keys: vec![format!("{entity_type}_id")],
            entity_type,
            name: name.into(),
            generation: 0,
            layout: Layout::default(),
            features: Vec::new(),
            ttl: None,
            freshness: None,
        })
    }

    /// Returns the entity type.
    #[must_use]
    pub fn entity_type(&self) -> &str {
        &self.entity_type
    }

    /// Returns the names of the entity's keys.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.keys
    }

    /// Returns the name, without the generation.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the generation.
    #[must_use]
    pub fn generation(&self) -> u16 {
        self.generation
    }

    /// Returns the layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Returns the features, in order.
    #[must_use]
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// Returns how long a row lives after it was written, if not for ever.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        self.ttl
    }

    /// Returns the age from which values are stale.
    #[must_use]
    pub fn freshness(&self) -> Option<Duration> {
        self.freshness
    }

    /// Returns the position of a feature.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFeature`].
    pub fn position(&self, feature: &str) -> Result<usize> {
        self.features.iter().position(|own| own.name == feature).ok_or_else(|| {
            Error::UnknownFeature { group: self.label(), feature: feature.to_owned() }
        })
    }

    /// The last part of the group's keys, and its name in messages.
    pub(crate) fn label(&self) -> String {
        label(&self.name, self.generation)
    }

    /// Checks that a row has a value for each feature.
    pub(crate) fn check_length(&self, got: usize) -> Result<()> {
        let expected = self.features.len();
        if got == expected {
            return Ok(());
        }
        Err(Error::RowLength { group: self.label(), expected, got })
    }

    /// The error of a value that does not fit a feature.
    pub(crate) fn mismatch(&self, feature: &Feature, got: String) -> Error {
        Error::TypeMismatch {
            group: self.label(),
            feature: feature.name.clone(),
            expected: feature.data_type.to_string(),
            got,
        }
    }

    pub(crate) fn ttl_millis(&self) -> u64 {
        self.ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
    }

    /// Why rows of `other`, which is registered, could not be read with this definition, or the other way round.
    pub(crate) fn difference(&self, other: &Self) -> Option<String> {
        if self.layout != other.layout {
            let layout = |group: &Self| group.layout.as_str();
            return Some(format!("its layout is {}, not {}", layout(other), layout(self)));
        }
        if self.keys != other.keys {
            return Some(format!("its entities are keyed by {}", other.keys.join(", ")));
        }
        let both = self.features.iter().zip(&other.features);
        both.enumerate().find_map(|(position, (own, theirs))| {
            (own.name != theirs.name || own.data_type != theirs.data_type).then(|| {
                format!(
                    "feature {position} is {} ({}), not {} ({})",
                    theirs.name, theirs.data_type, own.name, own.data_type
                )
            })
        })
    }
}

/// The name of a generation of a group.
pub(crate) fn label(name: &str, generation: u16) -> String {
    match generation {
        0 => name.to_owned(),
        generation => format!("{name}@{generation}"),
    }
}

/// The definition of a [`FeatureGroup`] under way.
#[derive(Clone, Debug)]
#[must_use]
pub struct GroupBuilder(FeatureGroup);

impl GroupBuilder {
    /// Appends a feature; where it has no value, a matrix holds not a number.
    pub fn feature(mut self, name: impl Into<String>, data_type: DataType) -> Self {
        self.0.features.push(Feature { name: name.into(), data_type, default: None });
        self
    }

    /// Appends a feature; where it has no value, a matrix holds `default`.
    pub fn feature_or(
        mut self,
        name: impl Into<String>,
        data_type: DataType,
        default: f32,
    ) -> Self {
        self.0.features.push(Feature { name: name.into(), data_type, default: Some(default) });
        self
    }

    /// Appends several features of one type.
    pub fn features<N: Into<String>>(
        self,
        names: impl IntoIterator<Item = N>,
        data_type: DataType,
    ) -> Self {
        names.into_iter().fold(self, |group, name| group.feature(name, data_type))
    }

    /// Names the keys of the entities, in order; `<entity type>_id` if this is not called.
    ///
    /// A group keyed by nothing has one row, of [`Entity::none`](crate::Entity::none).
    pub fn keyed_by<N: Into<String>>(mut self, keys: impl IntoIterator<Item = N>) -> Self {
        self.0.keys = keys.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the layout; [`Layout::Packed`] if this is not called.
    pub fn layout(mut self, layout: Layout) -> Self {
        self.0.layout = layout;
        self
    }

    /// Sets how long a row lives after it was last written; for ever if this is not called.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.0.ttl = Some(ttl);
        self
    }

    /// Sets the age of an event from which its values are stale; never if this is not called.
    pub fn fresh_for(mut self, freshness: Duration) -> Self {
        self.0.freshness = Some(freshness);
        self
    }

    /// Sets the generation, 0 at first: another one has rows of its own, and may have any features and layout.
    pub fn generation(mut self, generation: u16) -> Self {
        self.0.generation = generation;
        self
    }

    /// Finishes the definition.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if a name is unfit or there twice, or there are no features or too many.
    pub fn build(self) -> Result<FeatureGroup> {
        let group = self.0;
        let problem =
            |problem: String| Err(Error::invalid(format!("group {}", group.label()), problem));
        let word = |name: &str| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
            !name.is_empty() && name.len() <= 128 && name.bytes().all(plain)
        };
        if !word(&group.name) || !word(&group.entity_type) {
            return problem(
                "names of groups and entity types are of letters, digits and _-.".to_owned(),
            );
        }
        if group.entity_type == "schema" {
            return problem(
                "`schema` is where schemas are kept: name the entity type otherwise".to_owned(),
            );
        }
        if group.features.is_empty() || MAX_FEATURES < group.features.len() {
            return problem(format!("a group has 1 to {MAX_FEATURES} features"));
        }
        if 16 < group.keys.len() || group.keys.iter().any(String::is_empty) {
            return problem("entities have up to 16 keys with names".to_owned());
        }
        let mut names = std::collections::HashSet::new();
        for feature in &group.features {
            let name = &feature.name;
            let unfit = name.is_empty()
                || 256 < name.len()
                || name.starts_with('_')
                || name.chars().any(char::is_control);
            if unfit {
                return problem(format!(
                    "feature name {name:?}: names have 1 to 256 bytes, no control characters and no _ in front"
                ));
            }
            if !names.insert(name.as_str()) {
                return problem(format!("feature {name} is there twice"));
            }
            if feature.data_type == DataType::Vector(0) {
                return problem(format!("feature {name} is a vector of 0: give its length"));
            }
        }
        for (what, span) in [("ttl", group.ttl), ("freshness", group.freshness)] {
            let most = Duration::from_secs(100 * 365 * 24 * 3_600);
            if span.is_some_and(|span| span < Duration::from_millis(1) || most < span) {
                return problem(format!("the {what} is under a millisecond or over 100 years"));
            }
        }
        Ok(group)
    }
}

/// A registered [`FeatureGroup`]: what rows are written and read with.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Group(Arc<Registered>);

#[derive(Debug)]
struct Registered {
    group: FeatureGroup,
    label: String,
    version: u16,
    lineage: u16,
    /// Where each feature's cell begins, after the bitmap; and where the last one ends.
    offsets: Vec<usize>,
    /// Whether some feature is text or bytes.
    has_variable: bool,
}

impl Group {
    /// Makes a group of a definition, for an implementor of [`FeatureStore`](crate::FeatureStore).
    ///
    /// `version` counts the definitions that were registered; `lineage` tells rows of this registration from those of
    /// one that was dropped.
    #[must_use]
    pub fn new(group: FeatureGroup, version: u16, lineage: u16) -> Self {
        let mut offsets = Vec::with_capacity(group.features.len() + 1);
        let mut end = 0;
        offsets.push(end);
        for feature in &group.features {
            end += feature.data_type.width();
            offsets.push(end);
        }
        let label = group.label();
        let is_variable = |own: &Feature| matches!(own.data_type, DataType::Str | DataType::Bytes);
        let has_variable = group.features.iter().any(is_variable);
        Self(Arc::new(Registered { group, label, version, lineage, offsets, has_variable }))
    }

    /// Returns the version of the definition, from 1.
    #[must_use]
    pub fn version(&self) -> u16 {
        self.0.version
    }

    /// Returns the number of this registration.
    #[must_use]
    pub fn lineage(&self) -> u16 {
        self.0.lineage
    }

    pub(crate) fn label_str(&self) -> &str {
        &self.0.label
    }

    pub(crate) fn has_variable(&self) -> bool {
        self.0.has_variable
    }

    pub(crate) fn offsets(&self) -> &[usize] {
        &self.0.offsets
    }

    /// Whether two are the same registration of the same group.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || (self.0.group == other.0.group && self.0.lineage == other.0.lineage)
    }
}

impl std::ops::Deref for Group {
    type Target = FeatureGroup;

    fn deref(&self) -> &FeatureGroup {
        &self.0.group
    }
}
