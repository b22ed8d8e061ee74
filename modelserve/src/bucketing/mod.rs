//! Where a unit falls: formulas of several systems, so that an experiment that runs elsewhere gives the same user the same
//! arm here.
//!
//! All are pure functions of texts; the experiment records which one it uses, and never changes it while it runs.

pub mod eppo;
pub mod flagd;
pub mod growthbook;
pub mod launchdarkly;
mod murmur;
pub mod unleash;

use serde::{Deserialize, Serialize};

/// Which formula an experiment uses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Bucketing {
    /// Eppo's: [`eppo::shard`].
    Eppo,
    /// flagd's fractional, version 2: [`flagd::bucket`]. Integers only, at any resolution.
    #[default]
    Flagd2,
    /// GrowthBook's, version 2: [`growthbook::hash`], ten thousand buckets.
    GrowthBook2,
    /// LaunchDarkly's: [`launchdarkly::bucket`], where the salt is `key.salt`.
    LaunchDarkly,
    /// Unleash's: [`unleash::normalized`], where the salt is the group.
    Unleash,
}

/// What a unit is placed for; Unleash has a seed for each.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Stage {
    /// Which arm.
    Arm,
    /// Whether it takes part, or which part of an exclusion group it is in.
    Eligibility,
}

impl Bucketing {
    /// Returns the place of a unit under a salt, 0 to `total - 1`; 0 if `total` is 0.
    #[must_use]
    pub fn place(self, stage: Stage, salt: &str, unit: &str, total: u32) -> u32 {
        match self {
            Self::Eppo => eppo::shard(salt, unit, total),
            Self::Flagd2 => flagd::bucket(salt, unit, total),
            Self::GrowthBook2 => {
                let place = u64::from(growthbook::bucket(salt, unit)) * u64::from(total) / 10_000;
                u32::try_from(place).unwrap_or(u32::MAX)
            }
            Self::LaunchDarkly => {
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "0 to the total"
                )]
                let place = (f64::from(launchdarkly::of(salt, unit)) * f64::from(total)) as u32;
                // The largest hash is 1 exactly.
                place.min(total.saturating_sub(1))
            }
            Self::Unleash => {
                let seed = match stage {
                    Stage::Arm => unleash::VARIANT_SEED,
                    Stage::Eligibility => unleash::ROLLOUT_SEED,
                };
                unleash::normalized(salt, unit, total, seed).saturating_sub(1)
            }
        }
    }
}
