//! The bucketing of Eppo's universal flag configuration.

use md5::{Digest as _, Md5};

/// Returns the shard of a subject, 0 to `total - 1`: the first 4 bytes of `MD5(salt ‖ "-" ‖ subject)`, big-endian,
/// modulo `total`; 0 if `total` is 0.
#[must_use]
pub fn shard(salt: &str, subject: &str, total: u32) -> u32 {
    let mut hasher = Md5::new();
    hasher.update(salt);
    hasher.update("-");
    hasher.update(subject);
    let digest: [u8; 16] = hasher.finalize().into();
    let [a, b, c, d, ..] = digest;
    u32::from_be_bytes([a, b, c, d]).checked_rem(total).unwrap_or(0)
}
