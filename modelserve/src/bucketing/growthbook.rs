//! The bucketing of GrowthBook's SDKs (their specification 0.8).
//!
//! Texts are hashed as UTF-8, as GrowthBook's SDKs for servers do; its JavaScript SDK hashes UTF-16 code units, and puts
//! ids that are not ASCII into other buckets.

use super::murmur::joined;

/// Returns the bucket of a value, 0 to 1 without 1: version 1 has a thousand buckets and version 2 ten thousand; `None`
/// for other versions.
///
/// Version 1 correlates experiments with similar names; new experiments take version 2.
#[must_use]
pub fn hash(seed: &str, value: &str, version: u32) -> Option<f64> {
    match version {
        1 => Some(f64::from(fnv1a(&[value, seed]) % 1_000) / 1_000.0),
        2 => Some(f64::from(bucket(seed, value)) / 10_000.0),
        _ => None,
    }
}

/// Version 2, 0 to 9999.
pub(super) fn bucket(seed: &str, value: &str) -> u32 {
    let first = fnv1a(&[seed, value]).to_string();
    fnv1a(&[&first]) % 10_000
}

/// FNV-1a with 32 bits, by Fowler, Noll and Vo.
fn fnv1a(pieces: &[&str]) -> u32 {
    joined(pieces, |bytes| {
        bytes
            .iter()
            .fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    })
}

/// Returns `count` equal weights whose sum is 1.
#[must_use]
pub fn equal_weights(count: usize) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "there are few variations")]
    let weight = 1.0 / count as f64;
    vec![weight; count]
}

/// Returns the half-open range of buckets of each of `count` variations, of which each takes `coverage` of its share from
/// the start.
///
/// Weights that are not as many as variations, or whose sum is not 1 to a hundredth, are replaced by equal ones.
#[must_use]
pub fn bucket_ranges(count: usize, coverage: f64, weights: Option<&[f64]>) -> Vec<(f64, f64)> {
    let coverage = coverage.clamp(0.0, 1.0);
    let usable = |weights: &&[f64]| {
        weights.len() == count && (0.99..=1.01).contains(&weights.iter().sum::<f64>())
    };
    let weights = weights.filter(usable).map_or_else(|| equal_weights(count), <[f64]>::to_vec);
    let mut start = 0.0;
    weights
        .into_iter()
        .map(|weight| {
            let range = (start, start + coverage * weight);
            start += weight;
            range
        })
        .collect()
}

/// Returns the variation into whose range a bucket falls.
#[must_use]
pub fn choose_variation(bucket: f64, ranges: &[(f64, f64)]) -> Option<usize> {
    ranges.iter().position(|(start, end)| *start <= bucket && bucket < *end)
}

/// Tells whether a user is in the part of a namespace that an experiment has.
#[must_use]
pub fn in_namespace(user: &str, namespace: &str, start: f64, end: f64) -> bool {
    hash(&format!("__{namespace}"), user, 1).is_some_and(|place| start <= place && place < end)
}
