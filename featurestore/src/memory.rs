use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use inferkit_core::{Clock, SystemClock};

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::input::ModelInput;
use crate::matrix::Matrix;
use crate::row::{Record, Row};
use crate::schema::{FeatureGroup, Group};
use crate::store::{EntityPage, FeatureStore, Meeting, Written, increment_position, meet};
use crate::value::{Value, event_micros, time};

/// Features in memory: for tests and tools.
///
/// It keeps the values themselves, so it says what a store of bytes ought to answer.
#[derive(Debug)]
pub struct MemoryFeatureStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By entity type and label.
    groups: BTreeMap<(String, String), Registered>,
    /// By entity type, label and entity.
    rows: BTreeMap<(String, String, Entity), Kept>,
    lineages: u16,
}

#[derive(Debug)]
struct Registered {
    lineage: u16,
    versions: Vec<FeatureGroup>,
}

#[derive(Clone, Debug)]
struct Kept {
    lineage: u16,
    at: u64,
    /// `None` is a feature that the row's writer did not know.
    values: Vec<Option<Value>>,
    expires: Option<Duration>,
}

impl Default for MemoryFeatureStore {
    fn default() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }
}

impl MemoryFeatureStore {
    /// Makes an empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an empty store that goes by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, Duration) -> T) -> T {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.rows.retain(|_, kept| kept.expires.is_none_or(|expires| now < expires));
        act(&mut state, now)
    }

    fn store(&self, group: &Group, rows: &[Row], is_guarded: bool) -> Result<Written> {
        let mut checked = Vec::with_capacity(rows.len());
        for row in rows {
            row.entity.check(group.entity_type(), group.keys().len())?;
            checked.push((event_micros(row.at)?, row.typed(group)?));
        }
        Ok(self.with(|state, now| {
            let mut written = Written::default();
            for (row, (at, values)) in rows.iter().zip(checked) {
                let newer = |kept: &Kept| kept.lineage == group.lineage() && at < kept.at;
                let key = key(group, &row.entity);
                if is_guarded && state.rows.get(&key).is_some_and(newer) {
                    written.older += 1;
                    continue;
                }
                let expires = expiry(group, now);
                let values = values.into_iter().map(Some).collect();
                state.rows.insert(key, Kept { lineage: group.lineage(), at, values, expires });
                written.applied += 1;
            }
            written
        }))
    }

    fn record_of(&self, group: &Group, entity: &Entity) -> Result<Option<Record>> {
        let Some(kept) = self.kept(group, entity)? else { return Ok(None) };
        let at = i64::try_from(kept.at).ok().and_then(time).unwrap_or(SystemTime::UNIX_EPOCH);
        let values = group.features().iter().enumerate().map(|(position, feature)| {
            (feature.name.clone(), kept.values.get(position).cloned().flatten())
        });
        Ok(Some(Record::new(at, values.collect())))
    }

    fn kept(&self, group: &Group, entity: &Entity) -> Result<Option<Kept>> {
        let kept = self.with(|state, _| state.rows.get(&key(group, entity)).cloned());
        match kept {
            Some(kept) if kept.lineage != group.lineage() => {
                Err(Error::OtherLineage { group: group.label() })
            }
            kept => Ok(kept),
        }
    }
}

/// When a row that is written now ends.
fn expiry(group: &Group, now: Duration) -> Option<Duration> {
    Some(now + group.ttl()?)
}

fn key(group: &Group, entity: &Entity) -> (String, String, Entity) {
    // A number is its decimal text, as on Redis.
    let entity = Entity::composite(entity.parts().map(|part| part.into_owned()));
    (group.entity_type().to_owned(), group.label(), entity)
}

#[async_trait]
impl FeatureStore for MemoryFeatureStore {
    async fn register(&self, group: &FeatureGroup) -> Result<Group> {
        let key = (group.entity_type().to_owned(), group.label());
        self.with(|state, _| {
            let lineage = state.lineages + 1;
            let own = || Registered { lineage, versions: Vec::new() };
            let registered = state.groups.entry(key).or_insert_with(own);
            let version = match meet(group, &registered.versions)? {
                Meeting::Known(version) => version,
                Meeting::Next => {
                    registered.versions.push(group.clone());
                    u16::try_from(registered.versions.len()).unwrap_or(u16::MAX)
                }
            };
            let lineage = registered.lineage;
            state.lineages = state.lineages.max(lineage);
            Ok(Group::new(group.clone(), version, lineage))
        })
    }

    async fn definition(
        &self,
        entity_type: &str,
        group: &str,
        generation: u16,
    ) -> Result<Option<FeatureGroup>> {
        let key = (entity_type.to_owned(), crate::schema::label(group, generation));
        let newest = |registered: &Registered| registered.versions.last().cloned();
        Ok(self.with(|state, _| state.groups.get(&key).and_then(newest)))
    }

    async fn write(&self, group: &Group, rows: &[Row]) -> Result<Written> {
        self.store(group, rows, true)
    }

    async fn write_unguarded(&self, group: &Group, rows: &[Row]) -> Result<()> {
        self.store(group, rows, false).map(|_| ())
    }

    async fn read_into(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()> {
        let now = SystemTime::UNIX_EPOCH + self.clock.now();
        matrix.fill(input, entities, now, |group, entity| self.record_of(group, entity))
    }

    async fn records(&self, group: &Group, entities: &[Entity]) -> Result<Vec<Option<Record>>> {
        entities
            .iter()
            .map(|entity| {
                entity.check(group.entity_type(), group.keys().len())?;
                self.record_of(group, entity)
            })
            .collect()
    }

    async fn increment(
        &self,
        group: &Group,
        entity: &Entity,
        feature: &str,
        by: &Value,
        at: SystemTime,
    ) -> Result<Value> {
        let position = increment_position(group, feature, by)?;
        entity.check(group.entity_type(), group.keys().len())?;
        let at = event_micros(at)?;
        self.with(|state, now| {
            let own = || Kept { lineage: group.lineage(), at, values: Vec::new(), expires: None };
            let kept = state.rows.entry(key(group, entity)).or_insert_with(own);
            kept.at = kept.at.max(at);
            kept.expires = expiry(group, now);
            if kept.values.len() <= position {
                kept.values.resize(position + 1, None);
            }
            let stored = kept.values.get_mut(position).map(|stored| {
                let sum = match (stored.as_ref(), by) {
                    (Some(Value::Int(stored)), Value::Int(by)) => {
                        Value::Int(stored.wrapping_add(*by))
                    }
                    (Some(Value::Float(stored)), Value::Float(by)) => Value::Float(stored + by),
                    (_, by) => by.clone(),
                };
                stored.insert(sum).clone()
            });
            Ok(stored.unwrap_or(Value::Null))
        })
    }

    async fn remove(&self, group: &Group, entities: &[Entity]) -> Result<u64> {
        for entity in entities {
            entity.check(group.entity_type(), group.keys().len())?;
        }
        let removed = |state: &mut State, _| {
            let gone =
                entities.iter().filter(|entity| state.rows.remove(&key(group, entity)).is_some());
            gone.count() as u64
        };
        Ok(self.with(removed))
    }

    async fn entities(&self, group: &Group, _: Option<&str>) -> Result<EntityPage> {
        let (entity_type, label) = (group.entity_type(), group.label());
        let own = |(own_type, own_label, _): &&(String, String, Entity)| {
            own_type == entity_type && *own_label == label
        };
        let entities =
            self.with(|state, _| state.rows.keys().filter(own).map(|key| key.2.clone()).collect());
        Ok(EntityPage::new(entities, None))
    }

    async fn drop_group(&self, group: &Group) -> Result<u64> {
        let of = (group.entity_type().to_owned(), group.label());
        Ok(self.with(|state, _| {
            let before = state.rows.len();
            state.rows.retain(|key, _| (&key.0, &key.1) != (&of.0, &of.1));
            state.groups.remove(&of);
            (before - state.rows.len()) as u64
        }))
    }
}
