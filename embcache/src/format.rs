//! The stored form: version, kind and dimensions (u16, little-endian) in 4 bytes, then little-endian 32-bit floats.

use bytes::Bytes;

use crate::{Error, Result};

/// The version of the stored form that this release writes and reads.
pub const FORMAT_VERSION: u8 = 1;

const KIND_F32: u8 = 1;
const HEADER: usize = 4;

/// Returns the stored form of a vector: a 4-byte header and little-endian 32-bit floats.
///
/// # Errors
///
/// [`Error::TooManyDimensions`] above 65 535; [`Error::NotFinite`]; [`Error::ZeroVector`].
pub fn encode(vector: &[f32]) -> Result<Bytes> {
    check(vector)?;
    let dimensions = u16::try_from(vector.len())
        .map_err(|_| Error::TooManyDimensions { got: vector.len(), max: usize::from(u16::MAX) })?;
    let mut stored = Vec::with_capacity(HEADER + size_of_val(vector));
    stored.extend([FORMAT_VERSION, KIND_F32]);
    stored.extend(dimensions.to_le_bytes());
    if cfg!(target_endian = "little") {
        stored.extend_from_slice(bytemuck::cast_slice(vector));
    } else {
        stored.extend(vector.iter().flat_map(|component| component.to_le_bytes()));
    }
    Ok(stored.into())
}

/// Reads the stored form of a vector of `dimensions` components; `stored` need not be aligned.
///
/// # Errors
///
/// [`Error::UnknownVersion`] if a later release wrote it; [`Error::DimensionMismatch`]; [`Error::Damaged`] for any other
/// bytes that [`encode`] does not make.
pub fn decode(stored: &[u8], dimensions: usize) -> Result<Vec<f32>> {
    let Some((&[version, kind, low, high], payload)) = stored.split_first_chunk::<HEADER>() else {
        return Err(Error::Damaged { problem: "it has no whole header" });
    };
    match (version, kind) {
        (FORMAT_VERSION, KIND_F32) => {}
        (0, _) => return Err(Error::Damaged { problem: "its version is 0" }),
        (FORMAT_VERSION, _) => return Err(Error::Damaged { problem: "its kind is unknown" }),
        (found, _) => return Err(Error::UnknownVersion { found, known: FORMAT_VERSION }),
    }
    let declared = usize::from(u16::from_le_bytes([low, high]));
    if declared != dimensions {
        return Err(Error::DimensionMismatch { expected: dimensions, got: declared });
    }
    if payload.len() != declared * size_of::<f32>() {
        return Err(Error::Damaged { problem: "its length does not fit its dimensions" });
    }
    let (components, _) = payload.as_chunks();
    let vector: Vec<f32> =
        components.iter().map(|component| f32::from_le_bytes(*component)).collect();
    match check(&vector) {
        Ok(()) => Ok(vector),
        Err(Error::ZeroVector) => Err(Error::Damaged { problem: "it is a zero vector" }),
        Err(_) => Err(Error::Damaged { problem: "it holds a number that is not finite" }),
    }
}

/// Refuses what cannot be compared: numbers that are not finite, and vectors without a direction.
pub(crate) fn check(vector: &[f32]) -> Result<()> {
    // Without an early exit the compiler looks at several components at once.
    let (finite, long) = vector.iter().fold((true, false), |(finite, long), component| {
        (finite & component.is_finite(), long | (f32::MIN_POSITIVE <= component.abs()))
    });
    if finite && long {
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
        assert!(matches!(with(2, 3), Error::DimensionMismatch { expected: 2, got: 3 }));
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
        fn no_bytes_panic(
            header in prop::option::of(Just([1_u8, 1, 2, 0])),
            tail in prop::collection::vec(any::<u8>(), 0..64),
            dimensions in 0_usize..20,
        ) {
            let mut bytes = header.map(Vec::from).unwrap_or_default();
            bytes.extend(tail);
            if let Ok(vector) = decode(&bytes, dimensions) {
                prop_assert_eq!(&encode(&vector).unwrap()[..], &bytes[..]);
            }
        }
    }
}
