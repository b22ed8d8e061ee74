//! The bucketing of Unleash (client specification 6).

use super::murmur::murmur3;

/// The seed of gradual rollouts.
pub const ROLLOUT_SEED: u32 = 0;

/// The seed of variants; another one, so that the variants inside a rollout keep their weights.
pub const VARIANT_SEED: u32 = 86_028_157;

/// Returns the normalized value of a unit, 1 to `total`: `murmur3_32(group ‖ ":" ‖ unit) mod total + 1`; 0 if `total` is 0.
///
/// A rollout takes units whose value for 100 is at most its percentage; a variant takes those up to its cumulative weight.
#[must_use]
pub fn normalized(group: &str, unit: &str, total: u32, seed: u32) -> u32 {
    murmur3(&[group, ":", unit], seed).checked_rem(total).map_or(0, |rest| rest + 1)
}
