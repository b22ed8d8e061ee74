use std::fmt;
use std::sync::Arc;

use inferkit_core::ToArg;

use crate::{Error, Metric, Result, Similarity};

/// The most dimensions that a vector can have.
pub const MAX_DIMENSIONS: usize = 32_768;

/// A vector that can be indexed and compared: 32-bit floats, all finite, with a direction.
///
/// The server accepts vectors of NaN or zeros, and answers `nan` for their distance ever after; so they cannot be made.
/// Cloning is cheap: clones share the components.
/// `Debug` prints the number of dimensions, never the components, from which text can be guessed.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Error, Vector};
///
/// let vector = Vector::new(vec![3.0, 4.0])?;
/// assert_eq!(vector.dimensions(), 2);
/// assert_eq!(Vector::from_le_bytes(&vector.to_le_bytes())?, vector);
/// assert!(matches!(Vector::new([0.0, f32::NAN]), Err(Error::NotFinite { index: 1, .. })));
/// # Ok::<(), Error>(())
/// ```
#[derive(Clone)]
pub struct Vector {
    components: Arc<[f32]>,
    norm: f64,
}

impl Vector {
    /// Makes a vector of a `Vec<f32>`, a slice or an array.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyVector`]; [`Error::TooManyDimensions`] above [`MAX_DIMENSIONS`]; [`Error::NotFinite`];
    /// [`Error::ZeroVector`] and [`Error::NormTooLarge`] if the Euclidean norm is not a normal 32-bit float.
    pub fn new(components: impl Into<Arc<[f32]>>) -> Result<Self> {
        let components = components.into();
        check_length(components.len())?;
        if let Some(index) = components.iter().position(|component| !component.is_finite()) {
            return Err(Error::NotFinite { index });
        }
        let norm = dot(&components, &components).sqrt();
        if norm < f64::from(f32::MIN_POSITIVE) {
            return Err(Error::ZeroVector);
        }
        if f64::from(f32::MAX) < norm {
            return Err(Error::NormTooLarge);
        }
        Ok(Self { components, norm })
    }

    /// Reads a vector from little-endian 32-bit floats, the form of a vector field; `bytes` need not be aligned.
    ///
    /// # Errors
    ///
    /// [`Error::VectorBytes`] if the length is not a multiple of 4, else as [`Vector::new`].
    pub fn from_le_bytes(bytes: &[u8]) -> Result<Self> {
        if !bytes.len().is_multiple_of(size_of::<f32>()) {
            return Err(Error::VectorBytes { len: bytes.len() });
        }
        check_length(bytes.len() / size_of::<f32>())?;
        let components: Arc<[f32]> = if cfg!(target_endian = "little") {
            bytemuck::pod_collect_to_vec::<u8, f32>(bytes).into()
        } else {
            let (components, _) = bytes.as_chunks();
            components.iter().map(|component| f32::from_le_bytes(*component)).collect()
        };
        Self::new(components)
    }

    /// Returns the components.
    #[must_use]
    pub fn as_slice(&self) -> &[f32] {
        &self.components
    }

    /// Returns the number of components.
    #[must_use]
    pub fn dimensions(&self) -> usize {
        self.components.len()
    }

    /// Returns the components as little-endian 32-bit floats, the form of a vector field.
    ///
    /// As an argument of a [`Cmd`](inferkit_core::Cmd) a vector writes the same bytes without this copy.
    #[must_use]
    pub fn to_le_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.components.len() * size_of::<f32>());
        self.write(&mut bytes);
        bytes
    }

    /// Returns the cosine of the angle to `other`, computed in 64-bit floats.
    ///
    /// # Errors
    ///
    /// [`Error::DimensionMismatch`] if `other` has another number of dimensions.
    pub fn cosine_similarity(&self, other: &Self) -> Result<Similarity> {
        if self.dimensions() != other.dimensions() {
            return Err(Error::DimensionMismatch {
                expected: self.dimensions(),
                got: other.dimensions(),
            });
        }
        let cosine = dot(&self.components, &other.components) / (self.norm * other.norm);
        Similarity::new(cosine.clamp(-1.0, 1.0))
    }
}

impl Vector {
    /// The distance to a vector with as many dimensions, computed in 64-bit floats.
    pub(crate) fn distance(&self, other: &Self, metric: Metric) -> f64 {
        let (a, b) = (&self.components, &other.components);
        match metric {
            Metric::Cosine => 1.0 - (dot(a, b) / (self.norm * other.norm)).clamp(-1.0, 1.0),
            Metric::InnerProduct => 1.0 - dot(a, b),
            Metric::L2 => {
                a.iter().zip(b.iter()).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
            }
        }
    }
}

impl AsRef<[f32]> for Vector {
    fn as_ref(&self) -> &[f32] {
        &self.components
    }
}

impl fmt::Debug for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vector").field("dimensions", &self.dimensions()).finish_non_exhaustive()
    }
}

impl PartialEq for Vector {
    fn eq(&self, other: &Self) -> bool {
        self.components == other.components
    }
}

impl ToArg for Vector {
    fn write(&self, out: &mut Vec<u8>) {
        if cfg!(target_endian = "little") {
            out.extend_from_slice(bytemuck::cast_slice(&self.components));
        } else {
            out.extend(self.components.iter().flat_map(|component| component.to_le_bytes()));
        }
    }
}

impl TryFrom<Vec<f32>> for Vector {
    type Error = Error;

    fn try_from(components: Vec<f32>) -> Result<Self> {
        Self::new(components)
    }
}

fn check_length(dimensions: usize) -> Result<()> {
    if dimensions == 0 {
        return Err(Error::EmptyVector);
    }
    if MAX_DIMENSIONS < dimensions {
        return Err(Error::TooManyDimensions { got: dimensions, max: MAX_DIMENSIONS });
    }
    Ok(())
}

/// Multiplies in 64-bit floats, in which no sum of [`MAX_DIMENSIONS`] products of 32-bit floats overflows.
fn dot(left: &[f32], right: &[f32]) -> f64 {
    left.iter().zip(right).map(|(left, right)| f64::from(*left) * f64::from(*right)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_has_no_direction_is_refused() {
        assert!(matches!(Vector::new(Vec::new()), Err(Error::EmptyVector)));
        assert!(matches!(Vector::new([0.0, -0.0]), Err(Error::ZeroVector)));
        assert!(matches!(Vector::new([1e-40]), Err(Error::ZeroVector)));
        assert!(matches!(Vector::new([f32::MAX, f32::MAX]), Err(Error::NormTooLarge)));
        assert!(matches!(Vector::new([1.0, f32::INFINITY]), Err(Error::NotFinite { index: 1 })));
        let wide = vec![1.0; MAX_DIMENSIONS + 1];
        assert!(matches!(Vector::new(wide), Err(Error::TooManyDimensions { got: 32_769, .. })));
        assert!(Vector::new(vec![1.0; MAX_DIMENSIONS]).is_ok());
    }

    #[test]
    fn bytes_are_little_endian_floats_at_any_alignment() {
        let vector = Vector::new([1.0, -2.5]).unwrap();
        assert_eq!(vector.to_le_bytes(), [0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        let mut shifted = vec![0xff];
        shifted.extend(vector.to_le_bytes());
        assert_eq!(Vector::from_le_bytes(&shifted[1..]).unwrap(), vector);
        assert!(matches!(Vector::from_le_bytes(&shifted), Err(Error::VectorBytes { len: 9 })));
        assert!(matches!(Vector::from_le_bytes(&[]), Err(Error::EmptyVector)));
    }

    #[test]
    fn cosine_ignores_length_and_refuses_other_dimensions() {
        let vector = |components: [f32; 2]| Vector::new(components).unwrap();
        let cosine = |a, b| vector(a).cosine_similarity(&vector(b)).unwrap().as_f64();
        assert!((cosine([1.0, 1.0], [7.0, 7.0]) - 1.0).abs() < 1e-12);
        assert!(cosine([1.0, 0.0], [0.0, 2.0]).abs() < 1e-12);
        assert!((cosine([1.0, 0.0], [-3.0, 0.0]) + 1.0).abs() < 1e-12);
        let other = Vector::new([1.0]).unwrap();
        assert!(matches!(
            vector([1.0, 0.0]).cosine_similarity(&other),
            Err(Error::DimensionMismatch { expected: 2, got: 1 })
        ));
    }

    #[test]
    fn debug_shows_no_component() {
        assert_eq!(format!("{:?}", Vector::new([0.125]).unwrap()), "Vector { dimensions: 1, .. }");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(vector) = Vector::from_le_bytes(&bytes) {
                prop_assert_eq!(vector.to_le_bytes(), bytes);
            }
        }

        #[test]
        fn every_pair_has_a_cosine(
            pair in prop::collection::vec((any::<f32>(), any::<f32>()), 1..20),
        ) {
            let (left, right): (Vec<f32>, Vec<f32>) = pair.into_iter().unzip();
            if let (Ok(left), Ok(right)) = (Vector::new(left), Vector::new(right)) {
                prop_assert!(left.cosine_similarity(&right).is_ok());
            }
        }
    }
}
