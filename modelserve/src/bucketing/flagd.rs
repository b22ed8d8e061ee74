//! The bucketing of flagd's `fractional`, version 2 (OpenFeature, 2026).

use super::murmur::murmur3;

/// Returns the bucket of a unit, 0 to `total - 1`: `(murmur3_32(key ‖ unit) · total) >> 32`.
///
/// `total` is the sum of the integer weights; the bucket belongs to the variant into whose part of the sum it falls.
#[must_use]
pub fn bucket(key: &str, unit: &str, total: u32) -> u32 {
    let product = u64::from(murmur3(&[key, unit], 0)) * u64::from(total);
    u32::try_from(product >> 32).unwrap_or(u32::MAX)
}
