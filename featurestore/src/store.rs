use std::fmt::Debug;
use std::time::SystemTime;

use async_trait::async_trait;

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::input::ModelInput;
use crate::matrix::Matrix;
use crate::row::{Record, Row};
use crate::schema::{FeatureGroup, Group};
use crate::value::Value;

/// What became of written rows.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Written {
    /// Rows that are stored now.
    pub applied: u64,
    /// Rows that were left out, because a newer event is stored.
    pub older: u64,
}

impl Written {
    /// Counts rows, for an implementor of [`FeatureStore`].
    #[must_use]
    pub fn new(applied: u64, older: u64) -> Self {
        Self { applied, older }
    }

    /// Adds the counts of more rows.
    pub fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.older += other.older;
    }
}

/// A page of a group's entities; see [`FeatureStore::entities`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct EntityPage {
    /// Entities that have a row.
    pub entities: Vec<Entity>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<String>,
}

impl EntityPage {
    /// Makes a page, for an implementor of [`FeatureStore`].
    #[must_use]
    pub fn new(entities: Vec<Entity>, next: Option<String>) -> Self {
        Self { entities, next }
    }
}

/// Online features: the contract with those who implement a store.
///
/// Callers use [`FeatureStoreExt`] besides.
/// Times of events come from the caller; expiry and staleness go by the store's clock.
#[async_trait]
pub trait FeatureStore: Debug + Send + Sync + 'static {
    /// Registers a group's definition and returns what its rows are written and read with.
    ///
    /// It may be called any number of times, by every process at its start.
    /// A definition that appends features to the registered one becomes its next version; one that is an older version is
    /// taken as it is, so that older and newer processes work side by side.
    ///
    /// # Errors
    ///
    /// [`Error::Incompatible`] if the registered definition is neither a beginning of this one nor the other way round;
    /// [`Error::Backend`].
    async fn register(&self, group: &FeatureGroup) -> Result<Group>;

    /// Returns the newest registered definition of a group.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] if it cannot be read; [`Error::Backend`].
    async fn definition(
        &self,
        entity_type: &str,
        group: &str,
        generation: u16,
    ) -> Result<Option<FeatureGroup>>;

    /// Stores rows, each unless a newer event of its entity is stored; of events at the same time the last one stays.
    ///
    /// A row is written as a whole, at once.
    /// Rows are checked before anything is sent; after an [`Error::Backend`] some may be stored, and writing them again is
    /// safe.
    ///
    /// # Errors
    ///
    /// [`Error::TypeMismatch`], [`Error::RowLength`], [`Error::EntityKeys`], [`Error::Invalid`]: nothing is stored;
    /// [`Error::Backend`].
    async fn write(&self, group: &Group, rows: &[Row]) -> Result<Written>;

    /// Stores rows without looking at what is there: for a group, or a generation of it, that nobody writes to otherwise.
    ///
    /// # Errors
    ///
    /// As [`write`](Self::write).
    async fn write_unguarded(&self, group: &Group, rows: &[Row]) -> Result<()>;

    /// Reads the features of `input` into `matrix`, a row for each entity, in order.
    ///
    /// Where the input has groups of several entity types, a row takes one entity of each, in the order of
    /// [`ModelInput::entity_types`]; they follow each other in `entities`.
    /// After an error the matrix holds nothing of use.
    ///
    /// # Errors
    ///
    /// [`Error::Absent`] and [`Error::Stale`], where a column asks for them; [`Error::Corrupt`];
    /// [`Error::OtherLineage`]; [`Error::EntityCount`], [`Error::EntityKeys`], [`Error::Invalid`]; [`Error::Backend`].
    async fn read_into(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()>;

    /// Reads what is stored of entities in a group, with its types; `None` where there is no row.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`]; [`Error::OtherLineage`]; [`Error::EntityKeys`], [`Error::Invalid`]; [`Error::Backend`].
    async fn records(&self, group: &Group, entities: &[Entity]) -> Result<Vec<Option<Record>>>;

    /// Adds to a number in a group of [`Layout::Hash`](crate::Layout::Hash) and returns the sum; null and missing count
    /// as zero.
    ///
    /// `by` is [`Value::Int`] for integers and [`Value::Float`] for floats.
    /// The event's time becomes `at` if that is newer, and the row lives its TTL anew.
    /// This is no idempotent call: after an [`Error::Backend`] that may have been applied, it is not known whether it was.
    ///
    /// # Errors
    ///
    /// [`Error::Layout`] for a packed group; [`Error::TypeMismatch`]; [`Error::UnknownFeature`]; [`Error::Backend`].
    async fn increment(
        &self,
        group: &Group,
        entity: &Entity,
        feature: &str,
        by: &Value,
        at: SystemTime,
    ) -> Result<Value>;

    /// Removes the rows of entities and returns how many there were.
    ///
    /// # Errors
    ///
    /// [`Error::EntityKeys`], [`Error::Invalid`]; [`Error::Backend`].
    async fn remove(&self, group: &Group, entities: &[Entity]) -> Result<u64>;

    /// Returns entities that have a row in a group, from where the last page ended; `None` is the beginning.
    ///
    /// An entity that was there all the time comes at least once, and may come twice.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`].
    async fn entities(&self, group: &Group, from: Option<&str>) -> Result<EntityPage>;

    /// Removes a group: its registration, and its rows and no others; returns how many rows there were.
    ///
    /// Writers must have stopped: what they write afterwards is not removed. Who registers the group anew gets
    /// [`Error::OtherLineage`] for such a packed row; a hash has its features by name.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`]; what was removed until then is gone, and the call can be repeated.
    async fn drop_group(&self, group: &Group) -> Result<u64>;
}

/// What callers do with a [`FeatureStore`] besides.
#[async_trait]
pub trait FeatureStoreExt: FeatureStore {
    /// Reads the features of `input` for entities into a new matrix; see [`FeatureStore::read_into`].
    ///
    /// # Errors
    ///
    /// As [`FeatureStore::read_into`].
    async fn read(&self, input: &ModelInput, entities: &[Entity]) -> Result<Matrix> {
        let mut matrix = Matrix::new();
        self.read_into(input, entities, &mut matrix).await?;
        Ok(matrix)
    }

    /// Reads what is stored of one entity; see [`FeatureStore::records`].
    ///
    /// # Errors
    ///
    /// As [`FeatureStore::records`].
    async fn record(&self, group: &Group, entity: &Entity) -> Result<Option<Record>> {
        let records = self.records(group, std::slice::from_ref(entity)).await?;
        Ok(records.into_iter().next().flatten())
    }
}

impl<S: FeatureStore + ?Sized> FeatureStoreExt for S {}

/// Checks the entities of a read and returns how many rows they make.
pub(crate) fn rows_of(input: &ModelInput, entities: &[Entity]) -> Result<usize> {
    let types = &input.0.entity_types;
    if types.is_empty() {
        return Ok(entities.len());
    }
    if !entities.len().is_multiple_of(types.len()) {
        return Err(Error::EntityCount { types: types.len(), entities: entities.len() });
    }
    for (entity, (name, keys)) in entities.iter().zip(types.iter().cycle()) {
        entity.check(name, *keys)?;
    }
    Ok(entities.len() / types.len())
}

/// Checks what is added to a feature, and returns the feature's position.
pub(crate) fn increment_position(group: &Group, feature: &str, by: &Value) -> Result<usize> {
    use crate::schema::{DataType, Layout};
    let position = group.position(feature)?;
    if group.layout() != Layout::Hash {
        return Err(Error::Layout {
            group: group.label(),
            layout: group.layout().as_str(),
            operation: "adding to a number",
        });
    }
    let Some(own) = group.features().get(position) else { return Ok(position) };
    let fits = match (own.data_type, by) {
        (DataType::I32 | DataType::I64, Value::Int(_)) => true,
        (DataType::F32 | DataType::F64, Value::Float(by)) => by.is_finite(),
        _ => false,
    };
    if fits {
        return Ok(position);
    }
    Err(group.mismatch(own, by.kind()))
}

/// The registered definition that a new one meets.
#[derive(Debug)]
pub(crate) enum Meeting {
    /// It is this version, or begins like it.
    Known(u16),
    /// It appends to the newest version.
    Next,
}

/// Decides what a definition is beside the registered ones, from version 1 on.
pub(crate) fn meet(group: &FeatureGroup, versions: &[FeatureGroup]) -> Result<Meeting> {
    let Some(newest) = versions.last() else { return Ok(Meeting::Next) };
    if let Some(problem) = group.difference(newest) {
        return Err(Error::Incompatible { group: group.label(), problem });
    }
    if newest.features.len() < group.features.len() {
        return Ok(Meeting::Next);
    }
    let count = group.features.len();
    let older = versions.iter().take_while(|version| version.features.len() <= count).count();
    Ok(Meeting::Known(u16::try_from(older.max(1)).unwrap_or(u16::MAX)))
}
