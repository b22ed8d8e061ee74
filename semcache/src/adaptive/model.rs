//! The probability that a near answer is wrong: one logistic model over all entries of a namespace, with an intercept of its own for each entry.
//!
//! What tells right from wrong is less how similar the nearest prompt is than how much more similar it is than the nearest
//! one with another answer, and how many neighbors have the same answer: that is classification by nearest neighbors, where
//! judgments tell which answers agree.
//!
//! The model is fitted to a bounded histogram ([`Pool`]) by Newton's method, with a Gaussian prior on its weights, and
//! brings the covariance of the weights along (Laplace's approximation), so that what was seen seldom counts as unsure.
//! That each entry has its own curve, and that answers are served where a confidence bound allows it, is the idea of vCache
//! (arXiv 2502.03771); the pool makes up for entries that were seen only a few times.

use std::f64::consts::PI;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How similar prompts must be to be looked at.
pub(crate) const FLOOR: f64 = 0.6;
const SIMILARITY_BINS: usize = 16;
const SIMILARITY_STEP: f64 = (1.0 - FLOOR) / 16.0;
/// The upper ends of all bins of margins but the last.
const MARGIN_ENDS: [f64; 9] = [0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3];
const MARGINS: [f64; 10] =
    [0.005, 0.015, 0.0275, 0.0425, 0.0625, 0.0875, 0.125, 0.175, 0.25, WIDEST];
/// A margin that is wider says no more.
const WIDEST: f64 = 0.35;
/// How similar another answer is taken to be, at least, if there is none among the neighbors.
pub(crate) const UNSEEN: f64 = 0.4;
const SUPPORTS: usize = 5;
/// How many cells the histogram has.
pub(crate) const CELLS: usize = SIMILARITY_BINS * MARGINS.len() * SUPPORTS;

/// How many weights the model has: a constant, similarity, margin, how many agree, and the margin with that.
const WEIGHTS: usize = 5;
type Weights = [f64; WEIGHTS];

/// Before anything is seen: similarity and agreement speak for an answer.
const PRIOR: Weights = [-1.5, 2.0, 0.5, 0.5, 0.0];
/// The least they become: nothing that speaks for an answer ever speaks against it, however few were seen.
const LEAST: Weights = [f64::NEG_INFINITY, 0.2, 0.0, 0.0, 0.0];
/// The standard deviations of the prior.
const PRIOR_SPREAD: Weights = [2.0, 1.5, 1.0, 1.0, 1.0];
/// The standard deviation of the entries' own intercepts: wide, since some entries are asked about what they do not answer.
const ENTRY_SPREAD: f64 = 1.5;
/// How many standard deviations of the weights a probability is held to be worse, when much was seen; twice as many after
/// [`FEW`] observations, and more before.
const CAUTION: f64 = 0.5;
const FEW: f64 = 50.0;
const NEWTON_STEPS: usize = 12;

/// What speaks for and against the most similar candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Evidence {
    /// How similar its prompt is.
    pub(crate) similarity: f64,
    /// How much less similar the nearest one with another answer is.
    pub(crate) margin: f64,
    /// How many others among the neighbors have the same answer.
    pub(crate) support: f64,
}

impl Evidence {
    /// The place in the histogram.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "held to the bins")]
    pub(crate) fn cell(self) -> u16 {
        let bin = ((self.similarity - FLOOR) / SIMILARITY_STEP).max(0.0) as usize;
        let bin = bin.min(SIMILARITY_BINS - 1);
        let margin = MARGIN_ENDS.iter().filter(|end| **end <= self.margin).count();
        let support = match self.support {
            few if few < 2.5 => few.round() as usize,
            some if some < 4.5 => 3,
            _ => 4,
        };
        ((bin * MARGINS.len() + margin) * SUPPORTS + support) as u16
    }

    /// The middle of a cell.
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn of_cell(cell: usize) -> Self {
        let (rest, support) = (cell / SUPPORTS, cell % SUPPORTS);
        let (bin, margin) = (rest / MARGINS.len(), rest % MARGINS.len());
        Self {
            similarity: FLOOR + (bin as f64 + 0.5) * SIMILARITY_STEP,
            margin: MARGINS.get(margin).copied().unwrap_or_default(),
            support: match support {
                few @ 0..=2 => few as f64,
                3 => 3.5,
                _ => 6.0,
            },
        }
    }

    fn features(self) -> Weights {
        let similarity = (self.similarity - 0.85) / 0.1;
        let margin = 4.0 * self.margin.clamp(0.0, WIDEST).sqrt();
        let support = (1.0 + self.support).log2();
        [1.0, similarity, margin, support, margin * support / 2.0]
    }
}

/// How often candidates were right and wrong, by [`Evidence::cell`]; what was drawn at random counts as often as it stands for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pool {
    /// Right and wrong, cell by cell.
    counts: Vec<[u16; 2]>,
}

impl Default for Pool {
    fn default() -> Self {
        Self { counts: vec![[0; 2]; CELLS] }
    }
}

impl Pool {
    /// Reads the counters as the server packs them: 16 bits each, the higher byte first, right before wrong.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Self {
        let mut pool = Self::default();
        // The server keeps no more bytes than were written: the last pair may lack its second counter.
        let (counters, _) = bytes.as_chunks::<2>();
        for (counter, bytes) in pool.counts.iter_mut().flatten().zip(counters) {
            *counter = u16::from_be_bytes(*bytes);
        }
        pool
    }

    pub(crate) fn count(&mut self, cell: u16, correct: bool, weight: u16) {
        let Some([right, wrong]) = self.counts.get_mut(usize::from(cell)) else { return };
        let counter = if correct { right } else { wrong };
        *counter = counter.saturating_add(weight);
        if FULL <= *counter {
            self.counts.iter_mut().flatten().for_each(|counter| *counter /= 2);
        }
    }

    /// How many observations it holds.
    pub(crate) fn total(&self) -> u64 {
        self.counts.iter().flatten().copied().map(u64::from).sum()
    }
}

/// What an instance knows of a pool that others write to as well; it is read again after a second, and after each report of
/// its own.
#[derive(Debug, Default)]
pub(crate) struct PoolCopy(Mutex<Copied>);

#[derive(Debug, Default)]
struct Copied {
    pool: Arc<Pool>,
    read: Option<Instant>,
}

impl PoolCopy {
    fn lock(&self) -> MutexGuard<'_, Copied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn fresh(&self) -> Option<Arc<Pool>> {
        let copied = self.lock();
        let read = copied.read.filter(|read| read.elapsed() < FRESH);
        read.map(|_| Arc::clone(&copied.pool))
    }

    /// Takes what was read; the same as before stays the same pool.
    pub(crate) fn refresh(&self, bytes: &[u8]) -> Arc<Pool> {
        let pool = Pool::from_bytes(bytes);
        let mut copied = self.lock();
        if *copied.pool != pool {
            copied.pool = Arc::new(pool);
        }
        copied.read = Some(Instant::now());
        Arc::clone(&copied.pool)
    }

    pub(crate) fn forget(&self) {
        self.lock().read = None;
    }
}

/// For how long a copy of a pool is used.
const FRESH: Duration = Duration::from_secs(1);

/// At this many observations of one kind all counters are halved, so that what is old weighs less.
pub(crate) const FULL: u16 = 4096;

/// What was seen of one entry: cells, and whether it was right.
pub(crate) type Observation = (u16, bool);

/// A fitted model.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    weights: Weights,
    covariance: [Weights; WEIGHTS],
    pub(crate) seen: u64,
}

impl Model {
    pub(crate) fn fit(pool: &Pool) -> Self {
        let cells: Vec<(Weights, f64, f64)> = pool
            .counts
            .iter()
            .enumerate()
            .filter(|(_, counts)| **counts != [0; 2])
            .map(|(cell, [right, wrong])| {
                (Evidence::of_cell(cell).features(), f64::from(*right), f64::from(*wrong))
            })
            .collect();
        let mut weights = PRIOR;
        let mut covariance = [[0.0; WEIGHTS]; WEIGHTS];
        for _ in 0..NEWTON_STEPS {
            let mut gradient = [0.0; WEIGHTS];
            let mut hessian = [[0.0; WEIGHTS]; WEIGHTS];
            let prior = weights.iter().zip(PRIOR).zip(PRIOR_SPREAD);
            let rows = gradient.iter_mut().zip(&mut hessian).enumerate();
            for ((index, (place, row)), ((weight, mean), spread)) in rows.zip(prior) {
                let precision = 1.0 / (spread * spread);
                *place = precision * (mean - weight);
                if let Some(diagonal) = row.get_mut(index) {
                    *diagonal = precision;
                }
            }
            for (features, right, wrong) in &cells {
                let p = sigmoid(dot(&weights, features));
                let residual = right - (right + wrong) * p;
                let weight = (right + wrong) * p * (1.0 - p);
                for ((place, row), a) in gradient.iter_mut().zip(&mut hessian).zip(features) {
                    *place += residual * a;
                    for (cell, b) in row.iter_mut().zip(features) {
                        *cell += weight * a * b;
                    }
                }
            }
            covariance = inverse(hessian);
            let mut longest = 0.0_f64;
            for ((weight, row), least) in weights.iter_mut().zip(&covariance).zip(LEAST) {
                let moved = (*weight + dot(row, &gradient).clamp(-2.0, 2.0)).max(least);
                longest = longest.max((moved - *weight).abs());
                *weight = moved;
            }
            if longest < 1e-4 {
                break;
            }
        }
        Self { weights, covariance, seen: pool.total() }
    }

    /// How probable it is that the candidate is wrong, drawn towards one half where little was seen.
    pub(crate) fn wrong(&self, evidence: Evidence, observations: &[Observation]) -> f64 {
        let features = evidence.features();
        let mut spread = 0.0;
        for (row, a) in self.covariance.iter().zip(&features) {
            spread += a * dot(row, &features);
        }
        let logit = dot(&self.weights, &features) + self.intercept(observations);
        // The mean of a logistic over a Gaussian (MacKay 1992).
        let caution = CAUTION * (1.0 + (FEW / self.seen.max(1) as f64).sqrt());
        let logit = logit - caution * spread.max(0.0).sqrt();
        sigmoid(-logit / (1.0 + PI * spread.max(0.0) / 8.0).sqrt())
    }

    /// How much better or worse an entry is than all of them: the most probable value.
    fn intercept(&self, observations: &[Observation]) -> f64 {
        let precision = 1.0 / (ENTRY_SPREAD * ENTRY_SPREAD);
        let mut intercept = 0.0;
        for _ in 0..NEWTON_STEPS {
            let (mut gradient, mut hessian) = (-precision * intercept, precision);
            for (cell, correct) in observations {
                let features = Evidence::of_cell(usize::from(*cell)).features();
                let p = sigmoid(dot(&self.weights, &features) + intercept);
                gradient += f64::from(u8::from(*correct)) - p;
                hessian += p * (1.0 - p);
            }
            let step: f64 = gradient / hessian;
            intercept += step.clamp(-2.0, 2.0);
            if step.abs() < 1e-4 {
                break;
            }
        }
        intercept
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

fn dot(a: &Weights, b: &Weights) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The inverse of a symmetric positive definite matrix, by Gauss and Jordan: without pivoting, which it does not need.
fn inverse(mut matrix: [Weights; WEIGHTS]) -> [Weights; WEIGHTS] {
    let mut inverse = [[0.0; WEIGHTS]; WEIGHTS];
    for (place, row) in inverse.iter_mut().enumerate() {
        if let Some(diagonal) = row.get_mut(place) {
            *diagonal = 1.0;
        }
    }
    for pivot in 0..WEIGHTS {
        let (Some(mut left), Some(mut right)) =
            (matrix.get(pivot).copied(), inverse.get(pivot).copied())
        else {
            continue;
        };
        let scale = left.get(pivot).copied().unwrap_or(1.0);
        left.iter_mut().chain(&mut right).for_each(|cell| *cell /= scale);
        for (row, (to_left, to_right)) in matrix.iter_mut().zip(&mut inverse).enumerate() {
            if row == pivot {
                (*to_left, *to_right) = (left, right);
                continue;
            }
            let factor = to_left.get(pivot).copied().unwrap_or(0.0);
            for (cell, by) in to_left.iter_mut().zip(&left).chain(to_right.iter_mut().zip(&right)) {
                *cell -= factor * by;
            }
        }
    }
    inverse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_is_read_as_far_as_it_was_written() {
        let pool = Pool::from_bytes(&[0, 1, 0, 2, 1, 0]);
        let mut expected = Pool::default();
        expected.count(0, true, 1);
        expected.count(0, false, 2);
        expected.count(1, true, 256);
        assert_eq!(pool, expected);
        assert_eq!(Pool::from_bytes(&[]), Pool::default());
    }

    #[test]
    fn cells_and_their_middles_agree() {
        for cell in 0..CELLS {
            assert_eq!(usize::from(Evidence::of_cell(cell).cell()), cell);
        }
    }

    #[test]
    fn a_full_pool_forgets_half() {
        let mut pool = Pool::default();
        pool.count(3, false, 100);
        pool.count(7, true, FULL);
        assert_eq!(pool.total(), u64::from(FULL) / 2 + 50);
    }
}
