use std::sync::Arc;

use crate::error::{Error, Result};
use crate::schema::{DataType, Group};

/// What a matrix holds where a value is stale: older than its group's [freshness](crate::FeatureGroup::freshness).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnStale {
    /// The value as it is, with the status [`Stale`](crate::Status::Stale).
    #[default]
    Serve,
    /// What stands there for a missing value, with the status [`Stale`](crate::Status::Stale).
    Fill,
    /// No matrix: the read fails with [`Error::Stale`].
    Error,
}

/// One feature of a [`ModelInput`]: one column of the matrix, or as many as a vector is long.
#[derive(Clone, Debug)]
#[must_use]
pub struct Column {
    group: Group,
    what: What,
    required: bool,
    fill: Option<f32>,
    on_stale: OnStale,
}

#[derive(Clone, Debug)]
enum What {
    Value(String),
    AgeOf(String),
    EventAge,
}

impl Column {
    /// Takes the value of a feature: a number, a bool (1 or 0) or a vector.
    ///
    /// Integers and 64-bit floats are rounded to 32 bits.
    pub fn feature(group: &Group, feature: impl Into<String>) -> Self {
        Self::new(group, What::Value(feature.into()))
    }

    /// Takes how many seconds ago a feature of type [`DataType::Time`] was, by the store's clock.
    pub fn age_of(group: &Group, feature: impl Into<String>) -> Self {
        Self::new(group, What::AgeOf(feature.into()))
    }

    /// Takes how many seconds ago the event of the group's row was, by the store's clock.
    pub fn event_age(group: &Group) -> Self {
        Self::new(group, What::EventAge)
    }

    fn new(group: &Group, what: What) -> Self {
        let group = group.clone();
        Self { group, what, required: false, fill: None, on_stale: OnStale::default() }
    }

    /// Lets a read fail with [`Error::Absent`] where the value is null or missing.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Sets what the matrix holds where the value is null or missing, in the place of the feature's default.
    pub fn or(mut self, fill: f32) -> Self {
        self.fill = Some(fill);
        self
    }

    /// Sets what the matrix holds where the value is stale.
    pub fn on_stale(mut self, on_stale: OnStale) -> Self {
        self.on_stale = on_stale;
        self
    }
}

/// Which features a model takes, and in which order: declared once, and read with ever after.
///
/// Cloning is cheap.
///
/// # Examples
///
/// ```
/// use inferkit_featurestore::{Column, DataType, FeatureGroup, FeatureStore, MemoryFeatureStore, ModelInput};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), inferkit_featurestore::Error> {
/// let store = MemoryFeatureStore::new();
/// let profile = FeatureGroup::builder("user", "profile")
///     .feature("age", DataType::F32)
///     .feature("taste", DataType::Vector(8))
///     .build()?;
/// let profile = store.register(&profile).await?;
/// let input = ModelInput::builder()
///     .column(Column::feature(&profile, "age").required())
///     .features(&profile, ["taste"])
///     .build()?;
/// assert_eq!(input.width(), 9);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ModelInput(pub(crate) Arc<Plan>);

#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<PlannedGroup>,
    /// The entity types of a row, with the number of their keys.
    pub(crate) entity_types: Vec<(String, usize)>,
    pub(crate) columns: Vec<ColumnPlace>,
    pub(crate) width: usize,
    /// Whether something is compared with the time now.
    pub(crate) needs_time: bool,
}

/// Where a feature stands in the rows of a matrix.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ColumnPlace {
    /// `<group>:<feature>`; an age has `:age` behind it.
    pub name: String,
    /// The first of its floats in a row.
    pub start: usize,
    /// How many floats it has.
    pub width: usize,
}

#[derive(Debug)]
pub(crate) struct PlannedGroup {
    pub(crate) group: Group,
    /// Which of the row's entities it is of.
    pub(crate) entity: usize,
    pub(crate) cells: Vec<Cell>,
    /// What is copied as it is, where a packed row has all cells and no nulls; `None` where cells are converted.
    pub(crate) runs: Option<Vec<Run>>,
    /// Features that a row must have so that none of the cells is missing.
    pub(crate) reach: usize,
    /// The positions of the features that are wanted, each once.
    pub(crate) wanted: Vec<usize>,
}

#[derive(Debug)]
pub(crate) struct Cell {
    /// Of the input's columns.
    pub(crate) column: usize,
    pub(crate) start: usize,
    pub(crate) width: usize,
    pub(crate) take: Take,
    pub(crate) required: bool,
    pub(crate) fill: f32,
    pub(crate) on_stale: OnStale,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Take {
    Value(usize),
    AgeOf(usize),
    EventAge,
}

impl Take {
    pub(crate) fn position(self) -> Option<usize> {
        match self {
            Self::Value(position) | Self::AgeOf(position) => Some(position),
            Self::EventAge => None,
        }
    }
}

/// Floats that lie side by side both in a packed row and in the matrix.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) offset: usize,
    pub(crate) start: usize,
    pub(crate) floats: usize,
}

impl ModelInput {
    /// Starts a declaration.
    pub fn builder() -> InputBuilder {
        InputBuilder::default()
    }

    /// Returns the columns, in order.
    #[must_use]
    pub fn columns(&self) -> &[ColumnPlace] {
        &self.0.columns
    }

    /// Returns how many floats a row of the matrix has.
    #[must_use]
    pub fn width(&self) -> usize {
        self.0.width
    }

    /// Returns the entity types, in the order in which a row takes its entities.
    pub fn entity_types(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.entity_types.iter().map(|(name, _)| name.as_str())
    }
}

/// The declaration of a [`ModelInput`] under way.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct InputBuilder(Vec<Column>);

impl InputBuilder {
    /// Appends features of a group.
    pub fn features<N: Into<String>>(
        self,
        group: &Group,
        features: impl IntoIterator<Item = N>,
    ) -> Self {
        features
            .into_iter()
            .fold(self, |input, feature| input.column(Column::feature(group, feature)))
    }

    /// Appends all features of a group, in its order.
    pub fn all(self, group: &Group) -> Self {
        let names: Vec<String> = group.features().iter().map(|own| own.name().to_owned()).collect();
        self.features(group, names)
    }

    /// Appends a column with rules of its own.
    pub fn column(mut self, column: Column) -> Self {
        self.0.push(column);
        self
    }

    /// Finishes the declaration.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownFeature`]; [`Error::Invalid`] if a feature is no number, or two entity types of one name have
    /// different keys.
    pub fn build(self) -> Result<ModelInput> {
        let mut plan = Plan::default();
        for column in self.0 {
            plan.push(column)?;
        }
        for group in &mut plan.groups {
            group.finish();
        }
        Ok(ModelInput(Arc::new(plan)))
    }
}

impl Plan {
    fn push(&mut self, column: Column) -> Result<()> {
        let group = &column.group;
        let place = match self.groups.iter().position(|planned| planned.group.is(group)) {
            Some(place) => place,
            None => self.push_group(group)?,
        };
        let number = |feature: &str| -> Result<(usize, usize)> {
            let position = group.position(feature)?;
            let data_type =
                group.features().get(position).map_or(DataType::Str, |own| own.data_type);
            let what = || format!("column {}:{feature}", group.label());
            let width = data_type.columns().ok_or_else(|| match data_type {
                DataType::Time => Error::invalid(
                    what(),
                    "a time is no number: take its age with `Column::age_of`",
                ),
                _ => Error::invalid(
                    what(),
                    format!("{data_type} is no number: read it with `records`"),
                ),
            })?;
            Ok((position, width))
        };
        let (name, take, width, default) = match &column.what {
            What::Value(feature) => {
                let (position, width) = number(feature)?;
                let default = group.features().get(position).and_then(|own| own.default);
                (format!("{}:{feature}", group.label()), Take::Value(position), width, default)
            }
            What::AgeOf(feature) => {
                let position = group.position(feature)?;
                let own = group.features().get(position);
                if own.is_none_or(|own| own.data_type != DataType::Time) {
                    return Err(Error::invalid(
                        format!("column {}:{feature}:age", group.label()),
                        "only a feature of type time has an age",
                    ));
                }
                (format!("{}:{feature}:age", group.label()), Take::AgeOf(position), 1, None)
            }
            What::EventAge => (format!("{}:age", group.label()), Take::EventAge, 1, None),
        };
        self.needs_time |= group.freshness().is_some() || !matches!(take, Take::Value(_));
        let cell = Cell {
            column: self.columns.len(),
            start: self.width,
            width,
            take,
            required: column.required,
            fill: column.fill.or(default).unwrap_or(f32::NAN),
            on_stale: column.on_stale,
        };
        self.columns.push(ColumnPlace { name, start: self.width, width });
        self.width += width;
        if let Some(planned) = self.groups.get_mut(place) {
            planned.cells.push(cell);
        }
        Ok(())
    }

    fn push_group(&mut self, group: &Group) -> Result<usize> {
        let keys = group.keys().len();
        let known = self.entity_types.iter().position(|(name, _)| name == group.entity_type());
        let entity = match known {
            Some(entity) => entity,
            None => {
                self.entity_types.push((group.entity_type().to_owned(), keys));
                self.entity_types.len() - 1
            }
        };
        if self.entity_types.get(entity).is_some_and(|(_, own)| *own != keys) {
            return Err(Error::invalid(
                format!("entity type {}", group.entity_type()),
                "its groups have different keys: give them the same",
            ));
        }
        self.groups.push(PlannedGroup {
            group: group.clone(),
            entity,
            cells: Vec::new(),
            runs: None,
            reach: 0,
            wanted: Vec::new(),
        });
        Ok(self.groups.len() - 1)
    }
}

impl PlannedGroup {
    fn finish(&mut self) {
        self.wanted = self.cells.iter().filter_map(|cell| cell.take.position()).collect();
        self.wanted.sort_unstable();
        self.wanted.dedup();
        self.reach = self.wanted.last().map_or(0, |last| last + 1);
        let mut runs: Vec<Run> = Vec::new();
        for cell in &self.cells {
            let Take::Value(position) = cell.take else { return };
            let data_type = self.group.features().get(position).map(|own| own.data_type);
            let (Some(DataType::F32 | DataType::Vector(_)), Some(offset)) =
                (data_type, self.group.offsets().get(position).copied())
            else {
                return;
            };
            match runs.last_mut() {
                Some(run)
                    if run.offset + 4 * run.floats == offset
                        && run.start + run.floats == cell.start =>
                {
                    run.floats += cell.width;
                }
                _ => runs.push(Run { offset, start: cell.start, floats: cell.width }),
            }
        }
        self.runs = Some(runs);
    }
}
