use std::sync::atomic::Ordering;

use bytes::Bytes;
use inferkit_core::{Answers, Batch, Cmd, DriverExt as _, ErrorKind, FromReply as _, Reply, Slot};

use super::RedisFeatureStore;
use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::input::{ModelInput, PlannedGroup};
use crate::matrix::{Matrix, Place, Stored};
use crate::packed::PackedRow;
use crate::row::Record;
use crate::schema::{DataType, Group, Layout};
use crate::store::rows_of;
use crate::text;
use crate::value::{Value, server_micros, time};

/// From so many fields on, all fields of a hash are read at once if a quarter of them is wanted.
///
/// Named fields cost the server a search each, and the client half of the strings: up to here they are the cheaper ones
/// together.
const NAMED: usize = 64;

/// The reads of a matrix, in a batch that may hold reads of others.
#[derive(Debug)]
pub struct ReadSlots {
    time: Option<Slot<Vec<u64>>>,
    /// In the order of rows, then entities of the row, then groups of the entity.
    rows: Vec<RowSlot>,
    count: usize,
}

#[derive(Debug)]
enum RowSlot {
    /// The packed rows of one entity: a string, or an array of several.
    Packed(Slot<Reply>),
    Hash(Slot<Reply>),
}

impl RedisFeatureStore {
    /// Appends the reads of a matrix to a batch, so that they share its round trip; see
    /// [`FeatureStore::read_into`](crate::FeatureStore::read_into).
    ///
    /// For each entity a `GET` or `MGET` of its packed rows and an `HGETALL` or `HMGET` of each other, and one `TIME` where
    /// something is compared with the time.
    ///
    /// # Errors
    ///
    /// [`Error::EntityCount`], [`Error::EntityKeys`], [`Error::Invalid`]: nothing is appended.
    pub fn push(
        &self,
        batch: &mut Batch,
        input: &ModelInput,
        entities: &[Entity],
    ) -> Result<ReadSlots> {
        let count = rows_of(input, entities)?;
        let plan = &input.0;
        let mut rows = Vec::with_capacity(count * plan.groups.len());
        for row in entities.chunks(plan.entity_types.len().max(1)) {
            for (position, entity) in row.iter().enumerate() {
                let of = |layout: Layout| {
                    let own = move |planned: &&PlannedGroup| {
                        planned.entity == position && planned.group.layout() == layout
                    };
                    plan.groups.iter().filter(own)
                };
                let mut packed = of(Layout::Packed);
                if let Some(first) = packed.next() {
                    let key = self.key(&first.group, entity);
                    let mut cmd = match packed.clone().next() {
                        None => Cmd::with_capacity("GET", 96),
                        Some(_) => Cmd::with_capacity("MGET", 192),
                    };
                    cmd = cmd.key(key);
                    for planned in packed {
                        cmd = cmd.key(self.key(&planned.group, entity));
                    }
                    rows.push(RowSlot::Packed(batch.push(cmd.readonly())));
                }
                for planned in of(Layout::Hash) {
                    rows.push(RowSlot::Hash(batch.push(self.hash_cmd(planned, entity))));
                }
            }
        }
        let time = plan.needs_time.then(|| batch.push(Cmd::new("TIME").readonly()));
        Ok(ReadSlots { time, rows, count })
    }

    /// Takes the answers to [`push`](Self::push), for the same input.
    ///
    /// # Errors
    ///
    /// As [`FeatureStore::read_into`](crate::FeatureStore::read_into).
    pub fn take(
        &self,
        answers: &mut Answers,
        slots: ReadSlots,
        input: &ModelInput,
        matrix: &mut Matrix,
    ) -> Result<()> {
        let now =
            slots.time.map(|slot| answers.take(slot)).transpose()?.map(|time| server_micros(&time));
        matrix.begin(input, slots.count, now);
        let mut rows = slots.rows.into_iter();
        for row in 0..slots.count {
            for entity in 0..input.0.entity_types.len() {
                let groups =
                    input.0.groups.iter().enumerate().filter(|(_, own)| own.entity == entity);
                let of =
                    |layout| groups.clone().filter(move |(_, own)| own.group.layout() == layout);
                let packed = of(Layout::Packed).count();
                if 0 < packed {
                    let Some(RowSlot::Packed(slot)) = rows.next() else {
                        return Err(other_input());
                    };
                    let reply = answers.take(slot)?;
                    let stored = if packed == 1 { vec![reply] } else { reply.into_array()? };
                    for ((group, planned), stored) in of(Layout::Packed).zip(stored) {
                        let stored = Option::<Bytes>::from_reply(stored)?;
                        matrix.fill_packed(planned, Place { row, group }, stored.as_deref())?;
                    }
                }
                for (group, planned) in of(Layout::Hash) {
                    let Some(RowSlot::Hash(slot)) = rows.next() else { return Err(other_input()) };
                    fill_hash(matrix, planned, Place { row, group }, answers.take(slot)?)?;
                }
            }
        }
        Ok(())
    }

    pub(super) async fn read_matrix(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()> {
        let all_packed = input.0.groups.iter().all(|own| own.group.layout() == Layout::Packed);
        let keys = entities.len() * input.0.groups.len();
        if all_packed && 1 < keys && !self.is_cluster.load(Ordering::Relaxed) {
            match self.read_at_once(input, entities, matrix).await {
                Err(Error::Backend(error)) if error.kind() == ErrorKind::CrossSlot => {
                    self.is_cluster.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        let mut batch = Batch::new();
        let slots = self.push(&mut batch, input, entities)?;
        let mut answers = self.driver.run(batch).await?;
        self.take(&mut answers, slots, input, matrix)
    }

    /// Reads packed rows with one `MGET`: the least work for the server and for the client.
    async fn read_at_once(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()> {
        let count = rows_of(input, entities)?;
        let plan = &input.0;
        let types = plan.entity_types.len();
        let mut cmd = Cmd::with_capacity("MGET", 64 * entities.len() * plan.groups.len());
        for row in entities.chunks(types.max(1)) {
            for planned in &plan.groups {
                if let Some(entity) = row.get(planned.entity) {
                    cmd = cmd.key(self.key(&planned.group, entity));
                }
            }
        }
        let cmd = cmd.readonly();
        let (reply, now) = if plan.needs_time {
            let mut batch = Batch::new();
            let (rows, time) = (batch.push::<Reply>(cmd), batch.push(Cmd::new("TIME").readonly()));
            let mut answers = self.driver.run(batch).await?;
            (answers.take(rows)?, Some(server_micros(&answers.take::<Vec<u64>>(time)?)))
        } else {
            (self.driver.query::<Reply>(cmd).await?, None)
        };
        matrix.begin(input, count, now);
        let mut stored = reply.into_array()?.into_iter();
        for row in 0..count {
            for (group, planned) in plan.groups.iter().enumerate() {
                let stored = Option::<Bytes>::from_reply(stored.next().unwrap_or(Reply::Nil))?;
                matrix.fill_packed(planned, Place { row, group }, stored.as_deref())?;
            }
        }
        Ok(())
    }

    fn hash_cmd(&self, planned: &PlannedGroup, entity: &Entity) -> Cmd {
        let key = self.key(&planned.group, entity);
        if reads_all(planned) {
            return Cmd::with_capacity("HGETALL", 96).key(key).readonly();
        }
        let cmd =
            Cmd::with_capacity("HMGET", 96 + 24 * planned.wanted.len()).key(key).arg(text::TIME);
        let features = planned.group.features();
        let wanted = planned.wanted.iter().filter_map(|position| features.get(*position));
        wanted.fold(cmd, |cmd, feature| cmd.arg(feature.name.as_str())).readonly()
    }

    pub(super) async fn read_records(
        &self,
        group: &Group,
        entities: &[Entity],
    ) -> Result<Vec<Option<Record>>> {
        let mut batch = Batch::new();
        let name = match group.layout() {
            Layout::Packed => "GET",
            Layout::Hash => "HGETALL",
        };
        let slots: Vec<Slot<Reply>> = self
            .keys_of(group, entities)?
            .iter()
            .map(|key| batch.push(Cmd::new(name).key(key).readonly()))
            .collect();
        let mut answers = self.driver.run(batch).await?;
        slots.into_iter().map(|slot| record(group, answers.take(slot)?)).collect()
    }
}

/// Whether all fields of a hash are read, and not only those that are wanted.
fn reads_all(planned: &PlannedGroup) -> bool {
    NAMED < planned.wanted.len() && planned.group.features().len() < 4 * planned.wanted.len()
}

fn fill_hash(
    matrix: &mut Matrix,
    planned: &PlannedGroup,
    place: Place,
    reply: Reply,
) -> Result<()> {
    let group = &planned.group;
    // The stored text of each wanted feature, in the order of `wanted`.
    let (at, texts): (Option<Bytes>, Vec<Option<Bytes>>) = if reads_all(planned) {
        let mut at = None;
        let mut texts = vec![None; planned.wanted.len()];
        let features = group.features();
        let is = |place: usize, name: &[u8]| {
            let position = planned.wanted.get(place).copied().unwrap_or(usize::MAX);
            features.get(position).is_some_and(|own| own.name.as_bytes() == name)
        };
        // A server that keeps the order in which a row was written gives the features in theirs.
        let mut next = 0;
        for (name, value) in reply.into_pairs()? {
            let (name, value) = (Bytes::from_reply(name)?, Bytes::from_reply(value)?);
            if name == text::TIME {
                at = Some(value);
                continue;
            }
            let found = if is(next, &name) {
                Some(next)
            } else {
                (0..planned.wanted.len()).find(|place| is(*place, &name))
            };
            if let Some(found) = found {
                next = found + 1;
                if let Some(text) = texts.get_mut(found) {
                    *text = Some(value);
                }
            }
        }
        (at, texts)
    } else {
        let mut fields = reply.into_array()?.into_iter().map(Option::<Bytes>::from_reply);
        let at = fields.next().transpose()?.flatten();
        (at, fields.collect::<Result<_, _>>()?)
    };
    if at.is_none() && texts.iter().all(Option::is_none) {
        return matrix.fill_missing(planned, place);
    }
    let at = event(group, at.as_deref())?;
    matrix.fill_values(planned, place, at, |position| {
        let Some(text) = planned
            .wanted
            .binary_search(&position)
            .ok()
            .and_then(|place| texts.get(place))
            .and_then(Option::as_deref)
        else {
            return Ok(None);
        };
        let data_type = group.features().get(position).map(|own| own.data_type);
        if matches!(data_type, Some(DataType::Vector(_))) && !text.is_empty() {
            return Ok(Some(Stored::Floats(text)));
        }
        Ok(Some(Stored::Value(text::decode(group, position, text)?)))
    })
}

fn event(group: &Group, stored: Option<&[u8]>) -> Result<u64> {
    stored
        .and_then(|text| str::from_utf8(text).ok()?.parse().ok())
        .ok_or_else(|| Error::corrupt(group.label_str(), format!("it has no {}", text::TIME)))
}

fn record(group: &Group, reply: Reply) -> Result<Option<Record>> {
    let features = group.features();
    let mut values: Vec<(String, Option<Value>)> = Vec::with_capacity(features.len());
    let at = match group.layout() {
        Layout::Packed => {
            let Some(stored) = Option::<Bytes>::from_reply(reply)? else { return Ok(None) };
            let row = PackedRow::read(group, &stored)?;
            for (position, feature) in features.iter().enumerate() {
                values.push((feature.name.clone(), row.value(group, position)?));
            }
            row.at
        }
        Layout::Hash => {
            let mut fields = std::collections::HashMap::<Bytes, Bytes>::from_reply(reply)?;
            if fields.is_empty() {
                return Ok(None);
            }
            let at = event(group, fields.remove(text::TIME.as_bytes()).as_deref())?;
            for (position, feature) in features.iter().enumerate() {
                let stored = fields.remove(feature.name.as_bytes());
                let value = stored.map(|text| text::decode(group, position, &text)).transpose()?;
                values.push((feature.name.clone(), value));
            }
            at
        }
    };
    let at = i64::try_from(at).ok().and_then(time);
    let at = at.ok_or_else(|| Error::corrupt(group.label_str(), "its time is out of range"))?;
    Ok(Some(Record::new(at, values)))
}

fn other_input() -> Error {
    Error::invalid("a read", "these slots were made for another input")
}
