use std::borrow::Cow;

use crate::{Error, Result, Vector};

/// How the components of a vector field are stored, little-endian.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum DataType {
    /// 32-bit floats.
    #[default]
    F32,
    /// 64-bit floats: twice the memory for no better vectors; for what others stored.
    F64,
    /// 16-bit floats (IEEE 754): 0.58 times the memory of a document with 384 dimensions; RediSearch 2.10 or later.
    ///
    /// It takes the feature `half`.
    F16,
    /// 16-bit floats with the range of 32-bit ones (bfloat16); RediSearch 2.10 or later.
    ///
    /// It takes the feature `half`.
    BF16,
    /// Signed 8-bit integers; Redis 8.0 or later, only rendered: a [`Vector`] is not stored so.
    I8,
    /// Unsigned 8-bit integers; Redis 8.0 or later, only rendered: a [`Vector`] is not stored so.
    U8,
}

impl DataType {
    #[cfg(any(test, feature = "yaml"))]
    pub(crate) const ALL: [Self; 6] =
        [Self::F32, Self::F64, Self::F16, Self::BF16, Self::I8, Self::U8];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::F32 => "FLOAT32",
            Self::F64 => "FLOAT64",
            Self::F16 => "FLOAT16",
            Self::BF16 => "BFLOAT16",
            Self::I8 => "INT8",
            Self::U8 => "UINT8",
        }
    }

    /// Returns the number of bytes of a component.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
            Self::F16 | Self::BF16 => 2,
            Self::I8 | Self::U8 => 1,
        }
    }

    /// Returns a vector in its stored form; without a copy for 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`Error::DoesNotFit`] if a component is too large for the type, or all are too small for it.
    /// [`Error::DataTypeUnsupported`] for integers, and for 16-bit floats without the feature `half`.
    pub fn encode(self, vector: &Vector) -> Result<Cow<'_, [u8]>> {
        let components = vector.as_slice();
        match self {
            Self::F32 if cfg!(target_endian = "little") => {
                Ok(Cow::Borrowed(bytemuck::cast_slice(components)))
            }
            Self::F32 => Ok(Cow::Owned(vector.to_le_bytes())),
            Self::F64 => {
                let bytes = |component: &f32| f64::from(*component).to_le_bytes();
                Ok(Cow::Owned(components.iter().flat_map(bytes).collect()))
            }
            #[cfg(feature = "half")]
            Self::F16 => {
                let halves = components.iter().map(|component| half::f16::from_f32(*component));
                let halves: Vec<half::f16> = halves.collect();
                let fits = halves.iter().all(|half| half.is_finite());
                self.fitting(fits && halves.iter().any(|half| half.to_f32() != 0.0))?;
                Ok(Cow::Owned(halves.iter().flat_map(|half| half.to_le_bytes()).collect()))
            }
            #[cfg(feature = "half")]
            Self::BF16 => {
                let halves = components.iter().map(|component| half::bf16::from_f32(*component));
                let halves: Vec<half::bf16> = halves.collect();
                self.fitting(halves.iter().all(|half| half.is_finite()))?;
                Ok(Cow::Owned(halves.iter().flat_map(|half| half.to_le_bytes()).collect()))
            }
            other => Err(Error::DataTypeUnsupported { data_type: other.as_str() }),
        }
    }

    /// Reads the stored form of a vector.
    ///
    /// # Errors
    ///
    /// [`Error::VectorBytes`] if the length is not a multiple of the [size](Self::size) of a component; those of
    /// [`Vector::new`]; [`Error::DataTypeUnsupported`] as [`encode`](Self::encode).
    pub fn decode(self, bytes: &[u8]) -> Result<Vector> {
        if !bytes.len().is_multiple_of(self.size()) {
            return Err(Error::VectorBytes { len: bytes.len() });
        }
        match self {
            Self::F32 => Vector::from_le_bytes(bytes),
            Self::F64 => {
                #[expect(clippy::cast_possible_truncation, reason = "to the nearest 32-bit float")]
                let component = |bytes: &[u8; 8]| f64::from_le_bytes(*bytes) as f32;
                Vector::new(bytes.as_chunks().0.iter().map(component).collect::<Vec<_>>())
            }
            #[cfg(feature = "half")]
            Self::F16 => {
                let component = |bytes: &[u8; 2]| half::f16::from_le_bytes(*bytes).to_f32();
                Vector::new(bytes.as_chunks().0.iter().map(component).collect::<Vec<_>>())
            }
            #[cfg(feature = "half")]
            Self::BF16 => {
                let component = |bytes: &[u8; 2]| half::bf16::from_le_bytes(*bytes).to_f32();
                Vector::new(bytes.as_chunks().0.iter().map(component).collect::<Vec<_>>())
            }
            other => Err(Error::DataTypeUnsupported { data_type: other.as_str() }),
        }
    }

    #[cfg(feature = "half")]
    fn fitting(self, fits: bool) -> Result<()> {
        if fits { Ok(()) } else { Err(Error::DoesNotFit { data_type: self.as_str() }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_back_as_exactly_as_their_type_holds_them() {
        let vector = Vector::new([1.0, -2.5, 0.333_333_34]).unwrap();
        for data_type in DataType::ALL {
            let Ok(stored) = data_type.encode(&vector) else {
                let unsupported = Error::DataTypeUnsupported { data_type: data_type.as_str() };
                assert_eq!(
                    data_type.decode(&[1, 2]).unwrap_err().to_string(),
                    unsupported.to_string()
                );
                continue;
            };
            assert_eq!(stored.len(), 3 * data_type.size());
            let read = data_type.decode(&stored).unwrap();
            let off = match data_type {
                DataType::F16 => 1e-3,
                DataType::BF16 => 1e-2,
                _ => f32::MIN_POSITIVE,
            };
            for (was, is) in vector.as_slice().iter().zip(read.as_slice()) {
                assert!((was - is).abs() < off, "{data_type:?}");
            }
            if 1 < data_type.size() {
                assert!(matches!(data_type.decode(&[0; 5]), Err(Error::VectorBytes { len: 5 })));
            }
        }
    }

    #[cfg(feature = "half")]
    #[test]
    fn what_does_not_fit_is_refused() {
        for components in [[70_000.0, 1.0], [1e-10, 1e-9]] {
            let refused = DataType::F16.encode(&Vector::new(components).unwrap()).unwrap_err();
            assert!(matches!(refused, Error::DoesNotFit { data_type: "FLOAT16" }), "{refused}");
        }
    }
}
