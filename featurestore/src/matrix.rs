use std::time::{Duration, SystemTime};

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::input::{Cell, ModelInput, OnStale, PlannedGroup, Take};
use crate::packed::{PackedRow, array};
use crate::row::Record;
use crate::schema::{DataType, Group};
use crate::store::rows_of;
use crate::value::{Value, event_micros, micros, narrow, time};

/// Whether a matrix holds the stored value of a feature.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Status {
    /// The stored value.
    #[default]
    Present,
    /// The writer said that there is no value.
    Null,
    /// There is no row of the entity, or it was written before the feature was appended.
    Missing,
    /// There is a value, and its event is older than the group's freshness.
    Stale,
}

/// What a model takes: one row of floats for each request, in the order of a [`ModelInput`], without gaps.
///
/// A matrix can be read into again and again; then nothing is allocated.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matrix {
    values: Vec<f32>,
    statuses: Vec<Status>,
    /// The time of the event of each group's row; [`MISSING`] without one.
    events: Vec<u64>,
    rows: usize,
    width: usize,
    columns: usize,
    groups: usize,
    now: Option<u64>,
}

const MISSING: u64 = u64::MAX;

impl Matrix {
    /// Makes an empty matrix, to read into.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns how many floats a row has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns all floats, row after row.
    #[must_use]
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the floats of a row; none if there is no such row.
    #[must_use]
    pub fn row(&self, row: usize) -> &[f32] {
        self.values.get(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    /// Returns the floats of a column in a row: one, or a whole embedding.
    #[must_use]
    pub fn cell(&self, row: usize, column: &crate::ColumnPlace) -> &[f32] {
        self.row(row).get(column.start..column.start + column.width).unwrap_or_default()
    }

    /// Returns the statuses of a row, one for each column of the input.
    #[must_use]
    pub fn statuses(&self, row: usize) -> &[Status] {
        self.statuses.get(row * self.columns..(row + 1) * self.columns).unwrap_or_default()
    }

    /// Returns when the event of a row came about, for a group by its place among those of the input; `None` if there is
    /// no row.
    #[must_use]
    pub fn event(&self, row: usize, group: usize) -> Option<SystemTime> {
        let at = *self.events.get(row * self.groups..(row + 1) * self.groups)?.get(group)?;
        time(i64::try_from(at).ok()?)
    }

    /// Returns how old the event of a row was when it was read, by the store's clock.
    ///
    /// `None` if there is no row, or nothing in the input depends on the time: a freshness bound or a column of an age.
    #[must_use]
    pub fn age(&self, row: usize, group: usize) -> Option<Duration> {
        let at = *self.events.get(row * self.groups..(row + 1) * self.groups)?.get(group)?;
        (at != MISSING).then(|| Some(Duration::from_micros(self.now?.saturating_sub(at))))?
    }

    /// Fills the matrix from records, for an implementor of [`FeatureStore`](crate::FeatureStore): `find` returns what is
    /// stored of an entity in a group, and `now` is the store's clock.
    ///
    /// # Errors
    ///
    /// As [`FeatureStore::read_into`](crate::FeatureStore::read_into), and what `find` fails with.
    pub fn fill(
        &mut self,
        input: &ModelInput,
        entities: &[Entity],
        now: SystemTime,
        find: impl Fn(&Group, &Entity) -> Result<Option<Record>>,
    ) -> Result<()> {
        let rows = rows_of(input, entities)?;
        let now = micros(now).and_then(|now| u64::try_from(now).ok());
        self.begin(input, rows, now.filter(|_| input.0.needs_time));
        let types = input.0.entity_types.len().max(1);
        for (row, entities) in entities.chunks(types).enumerate() {
            for (group, planned) in input.0.groups.iter().enumerate() {
                let place = Place { row, group };
                let Some(entity) = entities.get(planned.entity) else { continue };
                let Some(record) = find(&planned.group, entity)? else {
                    self.fill_missing(planned, place)?;
                    continue;
                };
                let at = event_micros(record.at())?;
                self.fill_values(planned, place, at, |position| {
                    let value = record.values.get(position).and_then(|(_, value)| value.clone());
                    Ok(value.map(Stored::Value))
                })?;
            }
        }
        Ok(())
    }

    /// Makes room for `rows` rows of `input`; all statuses are [`Status::Present`] and all rows missing.
    pub(crate) fn begin(&mut self, input: &ModelInput, rows: usize, now: Option<u64>) {
        let plan = &input.0;
        self.rows = rows;
        self.now = now;
        (self.width, self.columns, self.groups) =
            (plan.width, plan.columns.len(), plan.groups.len());
        // What is left in there is written over: every cell is filled.
        self.values.resize(rows * self.width, 0.0);
        self.statuses.clear();
        self.statuses.resize(rows * self.columns, Status::Present);
        self.events.clear();
        self.events.resize(rows * self.groups, MISSING);
    }

    /// Fills a group's cells of a row from a packed row, or from none.
    pub(crate) fn fill_packed(
        &mut self,
        planned: &PlannedGroup,
        place: Place,
        stored: Option<&[u8]>,
    ) -> Result<()> {
        let Some(stored) = stored else { return self.fill_missing(planned, place) };
        let group = &planned.group;
        let row = PackedRow::read(group, stored)?;
        self.set_event(place, row.at);
        let stale = self.stale(planned, row.at);
        if let (Some(runs), true, None, true) =
            (&planned.runs, planned.reach <= row.common, stale, row.is_full())
        {
            let out = self.row_mut(place.row);
            for run in runs {
                copy(row.cell(run.offset, 4 * run.floats), out, run.start);
            }
            return Ok(());
        }
        for cell in &planned.cells {
            let found = match cell.take {
                Take::EventAge => Found::Number(self.seconds_since(row.at)),
                Take::Value(position) | Take::AgeOf(position) if row.common <= position => {
                    Found::Missing
                }
                Take::Value(position) | Take::AgeOf(position) if row.is_null(position) => {
                    Found::Null
                }
                Take::Value(position) => {
                    match group.features().get(position).map(|own| own.data_type) {
                        Some(data_type @ (DataType::F32 | DataType::Vector(_))) => {
                            let offset = group.offsets().get(position).copied().unwrap_or_default();
                            Found::Floats(row.cell(offset, data_type.width()))
                        }
                        _ => match row.value(group, position)? {
                            Some(value) => number(planned, position, &value)?,
                            None => Found::Missing,
                        },
                    }
                }
                Take::AgeOf(position) => match row.value(group, position)? {
                    Some(value) => self.age_of(&value),
                    None => Found::Missing,
                },
            };
            self.settle(planned, cell, place.row, &found, stale)?;
        }
        Ok(())
    }

    /// Fills a group's cells of a row from what `find` finds: `None` is missing.
    pub(crate) fn fill_values<'v>(
        &mut self,
        planned: &PlannedGroup,
        place: Place,
        at: u64,
        find: impl Fn(usize) -> Result<Option<Stored<'v>>>,
    ) -> Result<()> {
        self.set_event(place, at);
        let stale = self.stale(planned, at);
        for cell in &planned.cells {
            let Some(position) = cell.take.position() else {
                let found = Found::Number(self.seconds_since(at));
                self.settle(planned, cell, place.row, &found, stale)?;
                continue;
            };
            let stored = find(position)?;
            let found = match (&stored, cell.take) {
                (None, _) => Found::Missing,
                (Some(Stored::Floats(bytes)), _) => Found::Floats(bytes),
                (Some(Stored::Value(value)), Take::AgeOf(_)) => self.age_of(value),
                (Some(Stored::Value(Value::Vector(values))), _) => Found::Values(values),
                (Some(Stored::Value(value)), _) => number(planned, position, value)?,
            };
            self.settle(planned, cell, place.row, &found, stale)?;
        }
        Ok(())
    }

    /// Fills a group's cells of a row that is not there.
    pub(crate) fn fill_missing(&mut self, planned: &PlannedGroup, place: Place) -> Result<()> {
        for cell in &planned.cells {
            self.settle(planned, cell, place.row, &Found::Missing, None)?;
        }
        Ok(())
    }

    fn settle(
        &mut self,
        planned: &PlannedGroup,
        cell: &Cell,
        row: usize,
        found: &Found<'_>,
        stale: Option<Duration>,
    ) -> Result<()> {
        let name = || {
            let own =
                cell.take.position().and_then(|position| planned.group.features().get(position));
            own.map_or("age", |own| own.name()).to_owned()
        };
        let group = || planned.group.label();
        let mut fill = false;
        let status = match (found, stale) {
            (Found::Null | Found::Missing, _) if cell.required => {
                let status = if matches!(found, Found::Null) { "null" } else { "missing" };
                return Err(Error::Absent { group: group(), feature: name(), status, row });
            }
            (Found::Null | Found::Missing, _) => {
                fill = true;
                if matches!(found, Found::Null) { Status::Null } else { Status::Missing }
            }
            (_, Some(age)) => {
                if cell.on_stale == OnStale::Error {
                    return Err(Error::Stale { group: group(), feature: name(), row, age });
                }
                fill = cell.on_stale == OnStale::Fill;
                Status::Stale
            }
            (_, None) => Status::Present,
        };
        let out =
            self.row_mut(row).get_mut(cell.start..cell.start + cell.width).unwrap_or_default();
        match found {
            _ if fill => out.fill(cell.fill),
            Found::Number(number) => out.fill(*number),
            Found::Floats(bytes) if bytes.len() == 4 * cell.width => copy(bytes, out, 0),
            Found::Values(values) if values.len() == cell.width => out.copy_from_slice(values),
            _ => {
                let problem = format!("feature {} has another length", name());
                return Err(Error::corrupt(planned.group.label_str(), problem));
            }
        }
        if status != Status::Present
            && let Some(place) = self.statuses.get_mut(row * self.columns + cell.column)
        {
            *place = status;
        }
        Ok(())
    }

    fn row_mut(&mut self, row: usize) -> &mut [f32] {
        self.values.get_mut(row * self.width..(row + 1) * self.width).unwrap_or_default()
    }

    fn set_event(&mut self, place: Place, at: u64) {
        if let Some(event) = self.events.get_mut(place.row * self.groups + place.group) {
            *event = at;
        }
    }

    /// The age of a stale event.
    fn stale(&self, planned: &PlannedGroup, at: u64) -> Option<Duration> {
        let age = Duration::from_micros(self.now?.saturating_sub(at));
        (planned.group.freshness()? < age).then_some(age)
    }

    fn seconds_since(&self, at: u64) -> f32 {
        Duration::from_micros(self.now.unwrap_or_default().saturating_sub(at)).as_secs_f32()
    }

    /// Seconds since a moment; negative if it is still to come.
    fn age_of(&self, value: &Value) -> Found<'static> {
        let Value::Time(at) = value else { return Found::Null };
        let now = i64::try_from(self.now.unwrap_or_default()).unwrap_or(i64::MAX);
        let age = now.saturating_sub(micros(*at).unwrap_or_default());
        let seconds = Duration::from_micros(age.unsigned_abs()).as_secs_f32();
        Found::Number(if age < 0 { -seconds } else { seconds })
    }
}

/// Where in a matrix: the row, and the group among those of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) row: usize,
    pub(crate) group: usize,
}

/// A value as a store has it.
#[derive(Debug)]
pub(crate) enum Stored<'v> {
    Value(Value),
    /// Floats, little-endian.
    Floats(&'v [u8]),
}

enum Found<'v> {
    Missing,
    Null,
    Number(f32),
    Floats(&'v [u8]),
    Values(&'v [f32]),
}

/// A value as a number of 32 bits.
fn number(planned: &PlannedGroup, position: usize, value: &Value) -> Result<Found<'static>> {
    #[expect(clippy::cast_precision_loss, reason = "rounding is documented")]
    Ok(Found::Number(match value {
        Value::Null => return Ok(Found::Null),
        Value::Bool(value) => f32::from(u8::from(*value)),
        Value::Int(value) => *value as f32,
        Value::Float(value) => narrow(*value).ok_or_else(|| {
            let name = planned.group.features().get(position).map_or("", |own| own.name());
            let problem = format!("feature {name} is beyond the range of 32-bit floats");
            Error::corrupt(planned.group.label_str(), problem)
        })?,
        other => {
            return Err(Error::corrupt(
                planned.group.label_str(),
                format!("{} is no number", other.kind()),
            ));
        }
    }))
}

fn copy(bytes: &[u8], out: &mut [f32], start: usize) {
    let (values, _) = bytes.as_chunks::<4>();
    let out = out.get_mut(start..start + values.len()).unwrap_or_default();
    for (out, bytes) in out.iter_mut().zip(values) {
        *out = f32::from_le_bytes(array(bytes));
    }
}
