use std::cmp::Ordering;
use std::fmt;

use crate::{Error, Result};

/// A cosine similarity: 1 for the same direction, 0 for unrelated, -1 for the opposite.
///
/// # Examples
///
/// ```
/// use inferkit_vectorsearch::{Distance, Similarity};
///
/// let threshold = Similarity::new(0.95)?;
/// let found = Distance::new(0.03)?.to_similarity();
/// assert!(threshold <= found);
/// assert!(Similarity::new(95.0).is_err());
/// # Ok::<(), inferkit_vectorsearch::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq)]
pub struct Similarity(f64);

impl Similarity {
    /// Makes a similarity.
    ///
    /// # Errors
    ///
    /// [`Error::SimilarityOutOfRange`] if `value` is NaN or not from -1 to 1.
    pub fn new(value: f64) -> Result<Self> {
        Self::checked(value).ok_or(Error::SimilarityOutOfRange { value })
    }

    /// Makes a similarity, or none if `value` is NaN or not from -1 to 1; for constants.
    #[must_use]
    pub const fn checked(value: f64) -> Option<Self> {
        // Adding zero turns -0 into 0, so that equal values order as equal.
        if -1.0 <= value && value <= 1.0 { Some(Self(value + 0.0)) } else { None }
    }

    /// Returns the number.
    #[must_use]
    pub const fn as_f64(self) -> f64 {
        self.0
    }

    /// Returns the cosine distance, 1 minus the similarity.
    #[must_use]
    pub const fn to_distance(self) -> Distance {
        Distance(1.0 - self.0)
    }
}

/// The distance of a hit as the server computes it: a finite number, smaller is nearer.
///
/// What it means depends on the [`Metric`](crate::Metric): 1 minus the cosine (0 to 2), the *squared* Euclidean
/// distance, or 1 minus the inner product (which can be negative).
/// The server computes in 32-bit floats, so the distance of a vector to itself is noise around 0.
#[derive(Clone, Copy, PartialEq)]
pub struct Distance(f64);

impl Distance {
    /// Makes a distance.
    ///
    /// # Errors
    ///
    /// [`Error::NotADistance`] if `value` is NaN or infinite.
    pub fn new(value: f64) -> Result<Self> {
        if value.is_finite() { Ok(Self(value + 0.0)) } else { Err(Error::NotADistance { value }) }
    }

    /// Returns the number.
    #[must_use]
    pub const fn as_f64(self) -> f64 {
        self.0
    }

    /// Returns the similarity of a cosine distance: 1 minus the distance, held to -1 to 1.
    ///
    /// For the other metrics the answer has no meaning.
    #[must_use]
    pub const fn to_similarity(self) -> Similarity {
        Similarity((1.0 - self.0).clamp(-1.0, 1.0))
    }
}

macro_rules! ordered {
    ($($type:ident),*) => {$(
        impl Eq for $type {}

        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                self.0.total_cmp(&other.0)
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($type), "({})"), self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
ordered!(Distance, Similarity);

#[cfg(test)]
mod tests {
    use super::*;

    const STRICT: Similarity = Similarity::checked(0.97).unwrap();

    #[test]
    fn only_cosines_are_similarities() {
        for value in [-1.0, -0.5, 0.0, 1.0] {
            assert!((Similarity::new(value).unwrap().as_f64() - value).abs() < f64::EPSILON);
        }
        for value in [1.000_001, -1.000_001, f64::NAN, f64::INFINITY, 95.0] {
            assert!(matches!(Similarity::new(value), Err(Error::SimilarityOutOfRange { .. })));
        }
        assert!(STRICT < Similarity::new(0.98).unwrap());
        assert_eq!(Similarity::new(-0.0).unwrap(), Similarity::new(0.0).unwrap());
        assert_eq!(
            Similarity::new(-0.0).unwrap().cmp(&Similarity::new(0.0).unwrap()),
            Ordering::Equal
        );
    }

    #[test]
    fn the_noise_of_a_self_distance_is_held_to_the_range() {
        let similarity = |distance| Distance::new(distance).unwrap().to_similarity().as_f64();
        assert!((similarity(-1.19e-7) - 1.0).abs() < f64::EPSILON);
        assert!((similarity(2.000_000_1) + 1.0).abs() < f64::EPSILON);
        assert!((similarity(0.25) - 0.75).abs() < f64::EPSILON);
        assert!((STRICT.to_distance().as_f64() - 0.03).abs() < 1e-12);
    }

    #[test]
    fn what_is_not_finite_is_no_distance() {
        for value in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(Distance::new(value), Err(Error::NotADistance { .. })));
        }
    }
}
