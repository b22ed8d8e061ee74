use std::time::{Duration, SystemTime};

use crate::entity::Entity;
use crate::error::Result;
use crate::row::Row;
use crate::schema::Group;
use crate::store::FeatureStore;
use crate::value::{Value, event_micros, micros};

/// How a sample of offline rows compares with what is served.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Comparison {
    /// Rows that were compared.
    pub rows: u64,
    /// Rows whose entity has none online.
    pub missing: u64,
    /// Rows whose entity has an older event online.
    pub behind: u64,
    /// Rows whose entity has a newer event online, so that values may differ.
    pub ahead: u64,
    /// Rows of the same event with other values online.
    pub different: u64,
    /// For each feature that differs: its name, in how many rows, and one of the entities.
    pub features: Vec<(String, u64, Entity)>,
}

impl Comparison {
    /// Tells whether what is served is what the offline rows say, or newer.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        self.missing == 0 && self.behind == 0 && self.different == 0
    }
}

/// Compares offline rows with what is served; take a sample where there are many.
///
/// Values of the same event are equal if they are the same in the feature's type.
///
/// Round trips: one for every 512 rows.
///
/// # Errors
///
/// [`Error::TypeMismatch`](crate::Error::TypeMismatch) for an offline value that does not fit; what reading fails with.
pub async fn compare(store: &dyn FeatureStore, group: &Group, rows: &[Row]) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    for rows in rows.chunks(512) {
        let entities: Vec<Entity> = rows.iter().map(|row| row.entity.clone()).collect();
        let records = store.records(group, &entities).await?;
        for (row, record) in rows.iter().zip(records) {
            comparison.rows += 1;
            let Some(record) = record else {
                comparison.missing += 1;
                continue;
            };
            let at = event_micros(row.at)?;
            let online = event_micros(record.at())?;
            if online != at {
                let count =
                    if online < at { &mut comparison.behind } else { &mut comparison.ahead };
                *count += 1;
                continue;
            }
            let offline = row.typed(group)?;
            let mut differs = false;
            for (feature, offline) in group.features().iter().zip(offline) {
                let online = record.get(&feature.name);
                if online.is_some_and(|online| same(online, &offline)) {
                    continue;
                }
                differs = true;
                match comparison.features.iter_mut().find(|(name, ..)| *name == feature.name) {
                    Some((_, count, _)) => *count += 1,
                    None => {
                        comparison.features.push((feature.name.clone(), 1, row.entity.clone()));
                    }
                }
            }
            comparison.different += u64::from(differs);
        }
    }
    Ok(comparison)
}

fn same(online: &Value, offline: &Value) -> bool {
    match (online, offline) {
        // Not a number is what it is, whichever bits say so.
        (Value::Float(a), Value::Float(b)) => a == b || (a.is_nan() && b.is_nan()),
        (Value::Vector(a), Value::Vector(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || (a.is_nan() && b.is_nan()))
        }
        // Feast keeps whole seconds.
        (Value::Time(a), Value::Time(b)) => {
            let cut = |at| micros(at).map(|micros| micros.div_euclid(1_000_000) * 1_000_000);
            a == b || micros(*a) == cut(*b)
        }
        (a, b) => a == b,
    }
}

/// What a sample of a group's rows is like.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Profile {
    /// Rows that were looked at.
    pub rows: u64,
    /// The age of the events, from the youngest to the oldest, by this process's clock.
    pub ages: Vec<Duration>,
    /// For each feature: its name, and the share of rows in which it is null or missing, from 0 to 1.
    pub absent: Vec<(String, f64)>,
}

impl Profile {
    /// Returns the age that a share of the events does not exceed, such as 0.99 of them.
    #[must_use]
    pub fn age(&self, share: f64) -> Option<Duration> {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            reason = "a share of a length is a place in it"
        )]
        let place = (share.clamp(0.0, 1.0) * self.ages.len() as f64).ceil() as usize;
        self.ages.get(place.saturating_sub(1)).copied()
    }
}

/// Looks at up to `sample` rows of a group: how old their events are, and how often each feature has no value.
///
/// Which rows these are is up to the store's order.
/// Round trips: for each page of entities two.
///
/// # Errors
///
/// What reading fails with.
pub async fn profile(store: &dyn FeatureStore, group: &Group, sample: usize) -> Result<Profile> {
    let now = SystemTime::now();
    let mut profile = Profile::default();
    let mut absent = vec![0_u64; group.features().len()];
    let mut next: Option<String> = None;
    while profile.ages.len() < sample {
        let mut page = store.entities(group, next.as_deref()).await?;
        page.entities.truncate(sample - profile.ages.len());
        for record in store.records(group, &page.entities).await?.into_iter().flatten() {
            profile.ages.push(now.duration_since(record.at()).unwrap_or_default());
            for (count, (_, value)) in absent.iter_mut().zip(record.iter()) {
                *count += u64::from(value.is_none_or(Value::is_null));
            }
        }
        next = page.next;
        if next.is_none() {
            break;
        }
    }
    profile.ages.sort_unstable();
    profile.rows = profile.ages.len() as u64;
    #[expect(clippy::cast_precision_loss, reason = "a share")]
    let share = |count: u64| count as f64 / profile.rows.max(1) as f64;
    profile.absent = group
        .features()
        .iter()
        .zip(absent)
        .map(|(feature, count)| (feature.name.clone(), share(count)))
        .collect();
    Ok(profile)
}
