//! The bucketing of LaunchDarkly's server SDKs.

use sha1::{Digest as _, Sha1};

/// Returns the bucket of a unit, 0 to 1: the first 15 hexadecimal digits of `SHA1(key ‖ "." ‖ salt ‖ "." ‖ unit)` as a
/// share of the largest such number, as a 32-bit float.
#[must_use]
pub fn bucket(key: &str, salt: &str, unit: &str) -> f32 {
    of(&format!("{key}.{salt}"), unit)
}

/// Returns the bucket of a unit under a rollout's seed: as [`bucket`], of `seed ‖ "." ‖ unit`.
#[must_use]
pub fn seeded_bucket(seed: i64, unit: &str) -> f32 {
    of(&seed.to_string(), unit)
}

#[expect(clippy::cast_precision_loss, reason = "the definition is a 32-bit float")]
pub(super) fn of(prefix: &str, unit: &str) -> f32 {
    const LONGEST: u64 = 0x0fff_ffff_ffff_ffff;
    let mut hasher = Sha1::new();
    hasher.update(prefix);
    hasher.update(".");
    hasher.update(unit);
    let digest: [u8; 20] = hasher.finalize().into();
    let [a, b, c, d, e, f, g, h, ..] = digest;
    // 15 digits are 60 bits.
    let value = u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 4;
    value as f32 / LONGEST as f32
}
