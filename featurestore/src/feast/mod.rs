//! Stores that [Feast](https://feast.dev) 0.50 to 0.67 fills and reads (feature `feast`).
//!
//! One hash for each project and entity holds the fields of all views: a hash of `<view>:<feature>` for each value, and
//! `_ts:<view>` for the time of the event.
//! Feast keeps its definitions in a registry of its own, so [`register`](FeatureStore::register) sends nothing: declare
//! each view as a group with the view's name, its join keys and its features in any order.
//!
//! - [`DataType::F32`] is Feast's Float32, `F64` Float64, `I32` Int32, `I64` Int64, `Bool` Bool, `Str`
//!   String, `Bytes` Bytes, `Time` UnixTimestamp (whole seconds), `Vector(n)` `Array(Float32)` of that length.
//!   [`FeastStore::values`] reads the other lists.
//! - An [`EntityKey`](crate::EntityKey) of a number is an INT64, unless its join key was
//!   [named](FeastStore::with_int32_key) as INT32; Feast takes them for different entities.
//! - A view without entities is a group keyed by nothing.
//! - Times to live are of whole entities, as Feast's `key_ttl_seconds`; a group's own `ttl` is not looked at.
//! - Unlike Feast's own writer, a newer event is never replaced by an older one, also if both are written at once.

mod key;
mod wire;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use inferkit_core::{Batch, Cmd, DriverExt as _, DynDriver, FromReply as _, Reply, Script, Slot};
pub use wire::FeastValue;

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::input::{ModelInput, PlannedGroup};
use crate::matrix::{Matrix, Place, Stored};
use crate::nodes::Nodes;
use crate::row::{Record, Row};
use crate::schema::{DataType, FeatureGroup, Group};
use crate::store::{EntityPage, FeatureStore, Written, rows_of};
use crate::value::{Value, event_micros, micros, server_micros};

static PUT: Script = Script::new(include_str!("../scripts/put_feast.lua"));

/// How many rows go to the server in one pipeline, and keys into one step of a scan.
const CHUNK: usize = 512;

/// From so many fields on, the whole hash is read: a search for each costs the server more.
const NAMED: usize = 64;

/// Features in the layout of Feast's Redis online store.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct FeastStore {
    driver: DynDriver,
    project: String,
    int32_keys: BTreeSet<String>,
    key_ttl: Option<Duration>,
    nodes: Nodes,
}

impl FeastStore {
    /// Makes a store of a Feast project; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, project: impl Into<String>) -> Self {
        let nodes = Nodes::new([Arc::clone(&driver)]);
        let project = project.into();
        Self { driver, project, int32_keys: BTreeSet::new(), key_ttl: None, nodes }
    }

    /// Names a join key whose numbers are INT32.
    #[must_use]
    pub fn with_int32_key(mut self, join_key: impl Into<String>) -> Self {
        self.int32_keys.insert(join_key.into());
        self
    }

    /// Sets how long an entity lives after any of its views was written, as Feast's `key_ttl_seconds`.
    #[must_use]
    pub fn with_key_ttl(mut self, ttl: Duration) -> Self {
        self.key_ttl = Some(ttl);
        self
    }

    /// Gives a driver for each primary of a cluster, for [`FeatureStore::entities`] and [`FeatureStore::drop_group`].
    #[must_use]
    pub fn with_nodes(mut self, nodes: impl IntoIterator<Item = DynDriver>) -> Self {
        self.nodes = Nodes::new(nodes);
        self
    }

    /// Reads values of a view as Feast knows them; `None` if the entity has no row of the view, and `None` in the place of
    /// a feature that was never written.
    ///
    /// One `HMGET`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`]; [`Error::EntityKeys`], [`Error::Invalid`]; [`Error::Backend`].
    pub async fn values(
        &self,
        group: &Group,
        entity: &Entity,
        features: &[&str],
    ) -> Result<Option<(SystemTime, Vec<Option<FeastValue>>)>> {
        let view = key::view(group);
        let cmd = Cmd::new("HMGET").key(self.key(group, entity)?).arg(key::time_field(&view));
        let cmd = cmd.args(features.iter().map(|feature| key::field(&view, feature)));
        let fields: Vec<Option<Bytes>> = self.driver.query(cmd.readonly()).await?;
        let Some((Some(at), stored)) = fields.split_first() else { return Ok(None) };
        let values = stored.iter().zip(features).map(|(stored, feature)| {
            let decode =
                |stored: &Bytes| FeastValue::decode(stored).ok_or_else(|| no_value(group, feature));
            stored.as_ref().map(decode).transpose()
        });
        Ok(Some((event(group, at)?, values.collect::<Result<_>>()?)))
    }

    /// Writes values as Feast knows them, also of features that the group does not declare; `false` if a newer event of
    /// the view is stored.
    ///
    /// One `EVALSHA`.
    ///
    /// # Errors
    ///
    /// [`Error::EntityKeys`], [`Error::Invalid`]; [`Error::Backend`].
    pub async fn put_values(
        &self,
        group: &Group,
        entity: &Entity,
        at: SystemTime,
        values: &[(&str, FeastValue)],
    ) -> Result<bool> {
        let view = key::view(group);
        let fields = values.iter().map(|(name, value)| (key::field(&view, name), value.encode()));
        let cmd = self.put_cmd(group, entity, event_micros(at)?, fields)?;
        Ok(self.driver.query::<i64>(cmd).await? == 1)
    }

    fn key(&self, group: &FeatureGroup, entity: &Entity) -> Result<Vec<u8>> {
        entity.check(group.entity_type(), group.keys().len())?;
        Ok(key::encode(group, entity, &self.project, |name| self.int32_keys.contains(name)))
    }

    fn put_cmd(
        &self,
        group: &Group,
        entity: &Entity,
        at: u64,
        fields: impl Iterator<Item = ([u8; 4], Vec<u8>)>,
    ) -> Result<Cmd> {
        let millis =
            self.key_ttl.map_or(0, |ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
        let mut cmd = Cmd::eval(&PUT, &[self.key(group, entity)?])
            .arg(key::time_field(&key::view(group)))
            .arg(wire::encode_time(at))
            .arg(at / 1_000_000)
            .arg(at % 1_000_000 * 1_000)
            .arg(millis);
        for (field, value) in fields {
            cmd = cmd.arg(field).arg(value);
        }
        Ok(cmd.idempotent())
    }

    fn row_cmd(&self, group: &Group, row: &Row) -> Result<Cmd> {
        let view = key::view(group);
        let values = row.typed(group)?;
        let fields = group.features().iter().zip(values).map(|(feature, value)| {
            (
                key::field(&view, feature.name()),
                FeastValue::of(&value, feature.data_type()).encode(),
            )
        });
        self.put_cmd(group, &row.entity, event_micros(row.at)?, fields)
    }

    async fn has_view(&self, group: &Group, keys: &[Bytes]) -> Result<Vec<bool>> {
        let field = key::time_field(&key::view(group));
        let mut batch = Batch::new();
        let slots: Vec<Slot<bool>> = keys
            .iter()
            .map(|key| batch.push(Cmd::new("HEXISTS").key(key).arg(&field).readonly()))
            .collect();
        let mut answers = self.driver.run(batch).await?;
        slots.into_iter().map(|slot| Ok(answers.take(slot)?)).collect()
    }
}

/// The fields that a row of a matrix takes from one entity's hash.
struct Fields<'p> {
    /// The group's place among those of the input, the group, and where its fields begin.
    groups: Vec<(usize, &'p PlannedGroup, usize)>,
    names: Vec<Bytes>,
    /// The place of each name, where the whole hash is read.
    places: HashMap<Bytes, usize>,
}

impl<'p> Fields<'p> {
    fn of(input: &'p ModelInput, entity: usize) -> Self {
        let mut fields = Self { groups: Vec::new(), names: Vec::new(), places: HashMap::new() };
        for (place, planned) in input.0.groups.iter().enumerate() {
            if planned.entity != entity {
                continue;
            }
            fields.groups.push((place, planned, fields.names.len()));
            let view = key::view(&planned.group);
            fields.names.push(Bytes::from(key::time_field(&view)));
            for position in &planned.wanted {
                let name = planned.group.features().get(*position).map_or("", |own| own.name());
                fields.names.push(Bytes::copy_from_slice(&key::field(&view, name)));
            }
        }
        if fields.reads_all() {
            fields.places = fields.names.iter().cloned().zip(0..).collect();
        }
        fields
    }

    fn reads_all(&self) -> bool {
        NAMED < self.names.len()
    }

    fn cmd(&self, key: Vec<u8>) -> Cmd {
        if self.reads_all() {
            return Cmd::with_capacity("HGETALL", 96).key(key).readonly();
        }
        let cmd = Cmd::with_capacity("HMGET", 96 + 8 * self.names.len()).key(key);
        cmd.args(&self.names).readonly()
    }

    /// The stored value of each name.
    fn stored(&self, reply: Reply) -> Result<Vec<Option<Bytes>>> {
        if !self.reads_all() {
            return Ok(Vec::<Option<Bytes>>::from_reply(reply)?);
        }
        let mut stored = vec![None; self.names.len()];
        for (name, value) in reply.into_pairs()? {
            let name = Bytes::from_reply(name)?;
            if let Some(place) = self.places.get(&name).and_then(|place| stored.get_mut(*place)) {
                *place = Some(Bytes::from_reply(value)?);
            }
        }
        Ok(stored)
    }
}

#[async_trait]
impl FeatureStore for FeastStore {
    /// Nothing is sent: the definitions are in Feast's registry.
    async fn register(&self, group: &FeatureGroup) -> Result<Group> {
        Ok(Group::new(group.clone(), 1, 0))
    }

    /// Always an error: the definitions are in Feast's registry.
    async fn definition(&self, _: &str, _: &str, _: u16) -> Result<Option<FeatureGroup>> {
        Err(Error::Unsupported(
            "definitions of views are in Feast's registry: declare the view as a group",
        ))
    }

    /// One pipeline of an `EVALSHA` for each row, for every 512 rows.
    async fn write(&self, group: &Group, rows: &[Row]) -> Result<Written> {
        let cmds = rows.iter().map(|row| self.row_cmd(group, row)).collect::<Result<Vec<_>>>()?;
        let mut written = Written::default();
        let mut cmds = cmds.into_iter().peekable();
        while cmds.peek().is_some() {
            let mut batch = Batch::new();
            let slots: Vec<Slot<i64>> =
                cmds.by_ref().take(CHUNK).map(|cmd| batch.push(cmd)).collect();
            let mut answers = self.driver.run(batch).await?;
            for slot in slots {
                match answers.take(slot)? {
                    0 => written.older += 1,
                    _ => written.applied += 1,
                }
            }
        }
        Ok(written)
    }

    /// Always an error: others write to the same hashes.
    async fn write_unguarded(&self, _: &Group, _: &[Row]) -> Result<()> {
        Err(Error::Unsupported("Feast's own writers share these hashes: use `write`"))
    }

    /// One pipeline of an `HMGET` or, from 64 fields on, an `HGETALL` for each entity, and a `TIME` where something is
    /// compared with the time.
    async fn read_into(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()> {
        let rows = rows_of(input, entities)?;
        let types = input.0.entity_types.len().max(1);
        let fields: Vec<Fields<'_>> = (0..types).map(|entity| Fields::of(input, entity)).collect();
        let mut batch = Batch::new();
        let mut slots: Vec<Slot<Reply>> = Vec::with_capacity(entities.len());
        for (entity, fields) in entities.iter().zip(fields.iter().cycle()) {
            if let Some((_, planned, _)) = fields.groups.first() {
                slots.push(batch.push(fields.cmd(self.key(&planned.group, entity)?)));
            }
        }
        let time = input.0.needs_time.then(|| batch.push(Cmd::new("TIME").readonly()));
        let mut answers = self.driver.run(batch).await?;
        let now = time.map(|slot| answers.take::<Vec<u64>>(slot)).transpose()?;
        matrix.begin(input, rows, now.map(|time| server_micros(&time)));
        for (place, slot) in slots.into_iter().enumerate() {
            let (row, entity) = (place / types, place % types);
            let Some(fields) = fields.get(entity) else { continue };
            let stored = fields.stored(answers.take(slot)?)?;
            for (group, planned, first) in &fields.groups {
                let own = stored.get(*first..).unwrap_or_default();
                fill(matrix, planned, Place { row, group: *group }, own)?;
            }
        }
        Ok(())
    }

    /// One pipeline of an `HMGET` for each entity.
    async fn records(&self, group: &Group, entities: &[Entity]) -> Result<Vec<Option<Record>>> {
        let view = key::view(group);
        let mut batch = Batch::new();
        let mut slots: Vec<Slot<Vec<Option<Bytes>>>> = Vec::with_capacity(entities.len());
        for entity in entities {
            let cmd = Cmd::new("HMGET").key(self.key(group, entity)?).arg(key::time_field(&view));
            let fields = group.features().iter().map(|feature| key::field(&view, feature.name()));
            slots.push(batch.push(cmd.args(fields).readonly()));
        }
        let mut answers = self.driver.run(batch).await?;
        let mut records = Vec::with_capacity(slots.len());
        for slot in slots {
            let fields = answers.take(slot)?;
            let Some((Some(at), stored)) = fields.split_first() else {
                records.push(None);
                continue;
            };
            let mut values = Vec::with_capacity(stored.len());
            for (feature, stored) in group.features().iter().zip(stored) {
                let read =
                    |stored: &Bytes| value(group, feature.name(), feature.data_type(), stored);
                values.push((feature.name().to_owned(), stored.as_ref().map(read).transpose()?));
            }
            records.push(Some(Record::new(event(group, at)?, values)));
        }
        Ok(records)
    }

    /// Always an error: Feast's values are no text.
    async fn increment(
        &self,
        _: &Group,
        _: &Entity,
        _: &str,
        _: &Value,
        _: SystemTime,
    ) -> Result<Value> {
        Err(Error::Unsupported("Feast's values cannot be added to on the server: write the sum"))
    }

    /// One pipeline of an `HDEL` of the view's fields for each entity; other views of the entities stay.
    async fn remove(&self, group: &Group, entities: &[Entity]) -> Result<u64> {
        let view = key::view(group);
        let mut removed = 0;
        for entities in entities.chunks(CHUNK) {
            let mut batch = Batch::new();
            let mut slots: Vec<Slot<u64>> = Vec::with_capacity(entities.len());
            for entity in entities {
                let key = self.key(group, entity)?;
                // Whether there was a row is told by its time alone.
                let cmd = Cmd::new("HDEL").key(&key).arg(key::time_field(&view));
                slots.push(batch.push(cmd.idempotent()));
                let fields = group.features().iter().map(|own| key::field(&view, own.name()));
                batch.push::<u64>(Cmd::new("HDEL").key(&key).args(fields).idempotent());
            }
            let mut answers = self.driver.run(batch).await?;
            for slot in slots {
                removed += answers.take(slot)?;
            }
        }
        Ok(removed)
    }

    /// A `SCAN` over 512 keys of the database, and a pipeline of `HEXISTS`; keys are compared in full, so that no other
    /// project's are among them.
    async fn entities(&self, group: &Group, from: Option<&str>) -> Result<EntityPage> {
        let complete = |cmd: Cmd| cmd.arg("COUNT").arg(CHUNK).arg("TYPE").arg("hash");
        let (found, next) = self.nodes.scan(from, complete).await?;
        let mut own = Vec::new();
        let mut keys = Vec::new();
        for key in found {
            if let Some(entity) = key::decode(group, &key, &self.project) {
                own.push(entity);
                keys.push(key);
            }
        }
        let has_view = self.has_view(group, &keys).await?;
        let entities = own.into_iter().zip(has_view).filter_map(|(own, has)| has.then_some(own));
        Ok(EntityPage::new(entities.collect(), next))
    }

    /// A `SCAN` over the database and pipelines of `HDEL`; fields of features that the group does not declare stay.
    async fn drop_group(&self, group: &Group) -> Result<u64> {
        let (mut removed, mut next) = (0, None::<String>);
        loop {
            let page = self.entities(group, next.as_deref()).await?;
            removed += self.remove(group, &page.entities).await?;
            next = page.next;
            if next.is_none() {
                return Ok(removed);
            }
        }
    }
}

fn fill(
    matrix: &mut Matrix,
    planned: &PlannedGroup,
    place: Place,
    stored: &[Option<Bytes>],
) -> Result<()> {
    let group = &planned.group;
    let Some((Some(at), stored)) = stored.split_first() else {
        return matrix.fill_missing(planned, place);
    };
    let at = event_micros(event(group, at)?)?;
    matrix.fill_values(planned, place, at, |position| {
        let found = planned.wanted.binary_search(&position).ok();
        let Some(stored) = found.and_then(|found| stored.get(found)).and_then(Option::as_deref)
        else {
            return Ok(None);
        };
        let Some(feature) = group.features().get(position) else { return Ok(None) };
        if matches!(feature.data_type(), DataType::Vector(_)) && !stored.is_empty() {
            let floats = wire::floats(stored).ok_or_else(|| no_value(group, feature.name()))?;
            return Ok(Some(Stored::Floats(floats)));
        }
        Ok(Some(Stored::Value(value(group, feature.name(), feature.data_type(), stored)?)))
    })
}

fn value(group: &Group, name: &str, data_type: DataType, stored: &[u8]) -> Result<Value> {
    FeastValue::decode(stored)
        .and_then(FeastValue::into_value)
        .and_then(|value| value.of_type(data_type).ok())
        .ok_or_else(|| no_value(group, name))
}

fn no_value(group: &Group, feature: &str) -> Error {
    Error::corrupt(&group.label(), format!("feature {feature} is not of its declared type"))
}

fn event(group: &Group, stored: &[u8]) -> Result<SystemTime> {
    wire::decode_time(stored)
        .filter(|at| micros(*at).is_some())
        .ok_or_else(|| Error::corrupt(&group.label(), "its time cannot be read"))
}
