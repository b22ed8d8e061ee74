//! The stored form: version, kind and dimensions (u16, little-endian) in 4 bytes, the components, and perhaps the text.

use bytes::Bytes;
use half::f16;
use half::slice::HalfFloatSliceExt as _;

use crate::{Error, Result};

/// The version of the stored form that this release writes and reads.
pub const FORMAT_VERSION: u8 = 1;

const KIND_F32: u8 = 1;
const KIND_F16: u8 = 2;
const KIND_I8: u8 = 3;
/// Set beside the kind if the text follows the components.
const WITH_TEXT: u8 = 0x80;
const HEADER: usize = 4;

/// How exactly a stored vector is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Precision {
    /// 32-bit floats: 4 bytes a component, exact.
    #[default]
    F32,
    /// 16-bit floats (IEEE 754): 2 bytes a component.
    ///
    /// A component is off by at most a 2048th of itself, or 3e-8 near zero; the cosine of two stored vectors was measured
    /// to be off by less than 1e-4.
    /// Components beyond 65 504 are refused.
    F16,
    /// 8-bit integers and one scale: 1 byte a component.
    ///
    /// A component is off by at most a 254th of the largest component of its vector; the cosine of two stored vectors was
    /// measured to be off by less than 0.01.
    I8,
}

/// Returns the stored form of a vector: a 4-byte header and little-endian 32-bit floats.
///
/// # Errors
///
/// [`Error::TooManyDimensions`] above 65 535; [`Error::NotFinite`]; [`Error::ZeroVector`].
pub fn encode(vector: &[f32]) -> Result<Bytes> {
    encode_as(vector, Precision::F32, None)
}

/// Returns the stored form of a vector in some precision, perhaps with the text that it stands for.
///
/// # Errors
///
/// As [`encode`], and [`Error::NotFinite`] if a component does not fit into 16 bits.
pub fn encode_as(vector: &[f32], precision: Precision, text: Option<&str>) -> Result<Bytes> {
    check(vector)?;
    let dimensions = u16::try_from(vector.len())
        .map_err(|_| Error::TooManyDimensions { got: vector.len(), max: usize::from(u16::MAX) })?;
    let text = text.map(str::as_bytes);
    let mut stored =
        Vec::with_capacity(2 * HEADER + size_of_val(vector) + text.map_or(0, <[u8]>::len));
    let kind = match precision {
        Precision::F32 => KIND_F32,
        Precision::F16 => KIND_F16,
        Precision::I8 => KIND_I8,
    };
    stored.extend([FORMAT_VERSION, kind | text.map_or(0, |_| WITH_TEXT)]);
    stored.extend(dimensions.to_le_bytes());
    match precision {
        Precision::F32 if cfg!(target_endian = "little") => {
            stored.extend_from_slice(bytemuck::cast_slice(vector));
        }
        Precision::F32 => stored.extend(vector.iter().flat_map(|value| value.to_le_bytes())),
        Precision::F16 => {
            let mut halves = vec![f16::ZERO; vector.len()];
            halves.convert_from_f32_slice(vector);
            if let Some(index) = halves.iter().position(|half| !half.is_finite()) {
                return Err(Error::NotFinite { index });
            }
            stored.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
        }
        Precision::I8 => {
            let largest = vector.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            let scale = largest / 127.0;
            if scale < f32::MIN_POSITIVE {
                return Err(Error::ZeroVector);
            }
            stored.extend(scale.to_le_bytes());
            #[expect(clippy::cast_possible_truncation, reason = "at most 127 by the scale")]
            let byte = |value: &f32| ((value / scale).round() as i8).to_le_bytes();
            stored.extend(vector.iter().flat_map(byte));
        }
    }
    stored.extend_from_slice(text.unwrap_or_default());
    Ok(stored.into())
}

/// What is in the stored form, with nothing read yet.
struct Parts<'a> {
    kind: u8,
    dimensions: usize,
    components: &'a [u8],
    text: Option<&'a [u8]>,
}

fn split(stored: &[u8]) -> Result<Parts<'_>> {
    let Some((&[version, kind, low, high], payload)) = stored.split_first_chunk::<HEADER>() else {
        return Err(Error::Damaged { problem: "it has no whole header" });
    };
    match version {
        FORMAT_VERSION => {}
        0 => return Err(Error::Damaged { problem: "its version is 0" }),
        found => return Err(Error::UnknownVersion { found, known: FORMAT_VERSION }),
    }
    let dimensions = usize::from(u16::from_le_bytes([low, high]));
    let bytes = match kind & !WITH_TEXT {
        KIND_F32 => dimensions * size_of::<f32>(),
        KIND_F16 => dimensions * size_of::<f16>(),
        KIND_I8 => size_of::<f32>() + dimensions,
        _ => return Err(Error::Damaged { problem: "its kind is unknown" }),
    };
    let with_text = kind & WITH_TEXT != 0;
    match payload.split_at_checked(bytes) {
        Some((components, rest)) if with_text || rest.is_empty() => Ok(Parts {
            kind: kind & !WITH_TEXT,
            dimensions,
            components,
            text: with_text.then_some(rest),
        }),
        _ => Err(Error::Damaged { problem: "its length does not fit its dimensions" }),
    }
}

/// Reads the stored form of a vector of `dimensions` components, in any precision; `stored` need not be aligned.
///
/// # Errors
///
/// [`Error::UnknownVersion`] if a later release wrote it; [`Error::DimensionMismatch`]; [`Error::Damaged`] for any other
/// bytes that [`encode_as`] does not make.
pub fn decode(stored: &[u8], dimensions: usize) -> Result<Vec<f32>> {
    let parts = split(stored)?;
    if parts.dimensions != dimensions {
        return Err(Error::DimensionMismatch { expected: dimensions, got: parts.dimensions });
    }
    let vector: Vec<f32> = match parts.kind {
        KIND_F32 if cfg!(target_endian = "little") => {
            bytemuck::pod_collect_to_vec(parts.components)
        }
        KIND_F32 => {
            parts.components.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        KIND_F16 => {
            let halves =
                parts.components.as_chunks().0.iter().map(|bytes| f16::from_le_bytes(*bytes));
            halves.map(f16::to_f32).collect()
        }
        _ => {
            let Some((scale, bytes)) = parts.components.split_first_chunk() else {
                return Err(Error::Damaged { problem: "it has no scale" });
            };
            let scale = f32::from_le_bytes(*scale);
            bytes.iter().map(|byte| f32::from(byte.cast_signed()) * scale).collect()
        }
    };
    match check(&vector) {
        Ok(()) => Ok(vector),
        Err(Error::ZeroVector) => Err(Error::Damaged { problem: "it is a zero vector" }),
        Err(_) => Err(Error::Damaged { problem: "it holds a number that is not finite" }),
    }
}

/// Returns the text that was stored with a vector, if one was.
///
/// # Errors
///
/// [`Error::UnknownVersion`] and [`Error::Damaged`], as [`decode`].
pub fn text_of(stored: &[u8]) -> Result<Option<&str>> {
    let text = split(stored)?.text.map(str::from_utf8);
    text.transpose().map_err(|_| Error::Damaged { problem: "its text is not UTF-8" })
}

/// Refuses what cannot be compared: numbers that are not finite, and vectors without a direction.
pub(crate) fn check(vector: &[f32]) -> Result<()> {
    // Without their sign, floats order as their bits do: one maximum tells of every component whether it is finite, and
    // of the largest whether it is long enough. The compiler looks at several at once.
    let largest = vector
        .iter()
        .fold(0, |largest: i32, component| largest.max(component.abs().to_bits().cast_signed()));
    let normal = f32::MIN_POSITIVE.to_bits().cast_signed()..f32::INFINITY.to_bits().cast_signed();
    if normal.contains(&largest) {
        return Ok(());
    }
    if let Some(index) = vector.iter().position(|component| !component.is_finite()) {
        return Err(Error::NotFinite { index });
    }
    // No component alone is long enough: the limit is that of a vector that can be searched.
    let square: f64 = vector.iter().map(|component| f64::from(*component).powi(2)).sum();
    if square.sqrt() < f64::from(f32::MIN_POSITIVE) {
        return Err(Error::ZeroVector);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stored_form_is_golden() {
        let stored = encode(&[1.0, -2.5]).unwrap();
        assert_eq!(stored[..], [1, 1, 2, 0, 0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        let stored = encode_as(&[1.0, -2.5], Precision::F16, Some("é")).unwrap();
        assert_eq!(stored[..], [1, 0x82, 2, 0, 0, 0x3c, 0, 0xc1, 0xc3, 0xa9]);
        let stored = encode_as(&[127.0, -63.0], Precision::I8, None).unwrap();
        assert_eq!(stored[..], [1, 3, 2, 0, 0, 0, 0x80, 0x3f, 127, 193]);
        let large = encode_as(&[1.0, 70_000.0], Precision::F16, None);
        assert!(matches!(large, Err(Error::NotFinite { index: 1 })));
    }

    #[test]
    fn what_is_unknown_damaged_or_of_another_size_is_told_apart() {
        let good = encode(&[1.0, 2.0]).unwrap();
        let with = |index: usize, byte: u8| {
            let mut bytes = good.to_vec();
            bytes[index] = byte;
            decode(&bytes, 2).unwrap_err()
        };
        assert!(matches!(with(0, 2), Error::UnknownVersion { found: 2, known: 1 }));
        assert!(matches!(with(0, 0), Error::Damaged { .. }));
        assert!(matches!(with(1, 9), Error::Damaged { .. }));
        assert!(matches!(with(1, 0x89), Error::Damaged { .. }));
        let wide = encode(&[1.0, 2.0, 3.0]).unwrap();
        let mismatch = decode(&wide, 2).unwrap_err();
        assert!(matches!(mismatch, Error::DimensionMismatch { expected: 2, got: 3 }));
        assert!(matches!(with(2, 3), Error::Damaged { .. }), "more components than bytes");
        assert!(matches!(with(7, 0xff), Error::Damaged { .. }), "0xff80.... is NaN");
        assert!(matches!(decode(&good[..11], 2), Err(Error::Damaged { .. })));
        assert!(matches!(decode(&good[..3], 2), Err(Error::Damaged { .. })));
        assert!(matches!(decode(&[], 2), Err(Error::Damaged { .. })));
        let zero = [1, 1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x80];
        assert!(matches!(decode(&zero, 2), Err(Error::Damaged { .. })));
        for zero in [&[][..], &[0.0, -0.0], &[1e-45, 0.0]] {
            assert!(matches!(encode(zero), Err(Error::ZeroVector)));
        }
        assert!(matches!(encode(&[0.0, f32::NAN]), Err(Error::NotFinite { index: 1 })));
        let wide = vec![1.0; 65_536];
        assert!(matches!(encode(&wide), Err(Error::TooManyDimensions { got: 65_536, .. })));
    }

    /// What the documents of [`Precision`] say about cosines.
    #[test]
    fn cosines_of_stored_vectors_are_nearly_those_of_the_vectors() {
        let mut state = 7_u64;
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let [.., low, high] = state.to_le_bytes();
            f32::from(i16::from_le_bytes([low, high])) / 32_768.0
        };
        let vectors: Vec<Vec<f32>> = (0..40).map(|_| (0..384).map(|_| next()).collect()).collect();
        let cosine = |a: &[f32], b: &[f32]| {
            let dot = |a: &[f32], b: &[f32]| -> f64 {
                a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
        };
        for (precision, off) in [(Precision::F16, 1e-4), (Precision::I8, 0.01)] {
            let stored = |vector: &Vec<f32>| {
                decode(&encode_as(vector, precision, None).unwrap(), 384).unwrap()
            };
            let read: Vec<Vec<f32>> = vectors.iter().map(stored).collect();
            for (a, x) in vectors.iter().zip(&read) {
                for (b, y) in vectors.iter().zip(&read) {
                    assert!((cosine(a, b) - cosine(x, y)).abs() < off, "{precision:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn vectors_come_back_unchanged(vector in prop::collection::vec(
            any::<f32>().prop_filter("finite", |component| component.is_finite()), 0..64,
        ).prop_filter("with a direction", |vector| check(vector).is_ok())) {
            let stored = encode(&vector).unwrap();
            prop_assert_eq!(decode(&stored, vector.len()).unwrap(), &vector[..]);
            let mut shifted = vec![0];
            shifted.extend_from_slice(&stored);
            prop_assert_eq!(decode(&shifted[1..], vector.len()).unwrap(), vector);
        }

        #[test]
        fn every_precision_keeps_its_promise(
            vector in prop::collection::vec(-100_f32..100.0, 1..64)
                .prop_filter("with a direction", |vector| 1e-3 < vector.iter().fold(0.0, |most: f32, x| most.max(x.abs()))),
            text in prop::option::of(".{0,20}"),
        ) {
            let largest = vector.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            for precision in [Precision::F32, Precision::F16, Precision::I8] {
                let stored = encode_as(&vector, precision, text.as_deref()).unwrap();
                prop_assert_eq!(text_of(&stored).unwrap(), text.as_deref());
                let read = decode(&stored, vector.len()).unwrap();
                for (was, is) in vector.iter().zip(&read) {
                    let off = match precision {
                        Precision::F32 => 0.0,
                        Precision::F16 => was.abs() / 2048.0 + 3e-8,
                        Precision::I8 => largest / 254.0 * 1.001,
                    };
                    prop_assert!((was - is).abs() <= off, "{:?}: {} {}", precision, was, is);
                }
            }
        }

        #[test]
        fn no_bytes_panic(
            header in prop::option::of(prop_oneof![
                Just([1_u8, 1, 2, 0]), Just([1, 2, 2, 0]), Just([1, 3, 2, 0]), Just([1, 0x81, 2, 0]), Just([1, 0x83, 2, 0]),
            ]),
            tail in prop::collection::vec(any::<u8>(), 0..64),
            dimensions in 0_usize..20,
        ) {
            let mut bytes = header.map(Vec::from).unwrap_or_default();
            bytes.extend(tail);
            let _ = text_of(&bytes);
            if let (Ok(vector), Some(&KIND_F32)) = (decode(&bytes, dimensions), bytes.get(1)) {
                prop_assert_eq!(&encode(&vector).unwrap()[..], &bytes[..]);
            }
        }
    }
}
