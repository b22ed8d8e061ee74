use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How many models are told apart.
const MAX_MODELS: usize = 1024;
/// The part of the newest answer in the averages; those of TCP's round-trip times (RFC 6298).
const MEAN_PART: f64 = 1.0 / 8.0;
const DEVIATION_PART: f64 = 1.0 / 4.0;
/// How many deviations above the mean are reserved.
const DEVIATIONS: f64 = 2.0;

/// Estimates what a request will use: the input, and the output that its model was seen to write.
///
/// Per model it keeps the moving average of the outputs and of their deviation, as TCP does of round-trip times, and
/// reserves the average and two deviations.
/// A model that was not seen yet is expected to write all that it may.
/// At most 1024 models are told apart; further ones are never learned.
#[derive(Debug)]
pub struct TokenEstimator {
    default_output: u64,
    // A `std` mutex: it is held for arithmetic, never across an await.
    models: Mutex<HashMap<String, Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    mean: f64,
    deviation: f64,
}

impl TokenEstimator {
    /// Makes an estimator that expects `default_output` tokens of a model that was not seen yet and has no maximum.
    #[must_use]
    pub fn new(default_output: u64) -> Self {
        Self { default_output, models: Mutex::default() }
    }

    /// Estimates the tokens of a request, from its counted input and the `max_tokens` that it asks for.
    #[must_use]
    pub fn estimate(&self, model: &str, input_tokens: u64, max_tokens: Option<u64>) -> u64 {
        let seen = self.lock().get(model).copied();
        let learned = seen.map(|seen| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "averages of token counts, not negative"
            )]
            {
                (seen.mean + DEVIATIONS * seen.deviation).ceil() as u64
            }
        });
        let output = match (learned, max_tokens) {
            (Some(learned), Some(most)) => learned.min(most),
            (Some(learned), None) => learned,
            (None, most) => most.unwrap_or(self.default_output),
        };
        input_tokens.saturating_add(output)
    }

    /// Learns how many tokens a model wrote.
    pub fn learn(&self, model: &str, output_tokens: u64) {
        let output = crate::limit::to_f64(output_tokens.min(crate::demand::MAX_AMOUNT));
        let mut models = self.lock();
        if let Some(seen) = models.get_mut(model) {
            let error = output - seen.mean;
            seen.deviation += DEVIATION_PART * (error.abs() - seen.deviation);
            seen.mean += MEAN_PART * error;
        } else if models.len() < MAX_MODELS {
            models.insert(model.to_owned(), Seen { mean: output, deviation: output / 2.0 });
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Seen>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_learns_what_a_model_writes() {
        let estimator = TokenEstimator::new(500);
        assert_eq!(estimator.estimate("m", 100, None), 600);
        assert_eq!(estimator.estimate("m", 100, Some(4000)), 4100);
        for _ in 0..100 {
            estimator.learn("m", 200);
        }
        let learned = estimator.estimate("m", 100, Some(4000));
        assert!((300..310).contains(&learned), "{learned}");
        assert_eq!(estimator.estimate("m", 100, Some(50)), 150, "never more than it may");
        // Nine of ten later answers fit into what is reserved.
        let outputs = |n: u64| 100 + (n * 7919) % 200;
        (0..200).for_each(|n| estimator.learn("m", outputs(n)));
        let reserved = estimator.estimate("m", 0, None);
        let fit = (200..1200).filter(|n| outputs(*n) <= reserved).count();
        assert!(900 <= fit, "{fit} of 1000 fit into {reserved}");
        assert_eq!(estimator.estimate("m", u64::MAX, None), u64::MAX);
    }

    #[test]
    fn models_are_limited() {
        let estimator = TokenEstimator::new(7);
        (0..2000).for_each(|n| estimator.learn(&n.to_string(), 1));
        assert_eq!(estimator.lock().len(), MAX_MODELS);
        assert_eq!(estimator.estimate("1999", 0, None), 7);
    }
}
