//! When a near answer is served: as long as wrong ones stay under a share of the lookups.

mod judge;
mod model;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

pub use judge::{Judge, SameAnswer};
pub(crate) use model::{Evidence, FLOOR, FULL, Model, Observation, Pool, PoolCopy, UNSEEN};

use crate::{EntryId, Error, Result};

/// How many candidates are compared with each other.
pub(crate) const NEIGHBORS: usize = 8;
/// How many different answers among them a judge is asked about.
pub(crate) const ANSWERS: usize = 3;
/// How many observations an entry keeps.
pub(crate) const KEPT: usize = 32;
/// The threshold as long as little was seen.
const STRICT: f64 = 0.97;
/// How probable a wrong answer at this threshold counts as: one in eight was seen with all-MiniLM-L6-v2 at 0.95.
const UNKNOWN: f64 = 0.1;
/// How many observations of a namespace are little.
const LITTLE: u64 = 40;
/// One of so many answers that could be served is checked, drawn at random, when much was seen, and more before.
const AUDIT: u64 = 25;
/// How often a checked one counts: more than once, since few of what can be served are seen, and not as often as what it stands
/// for, since a single one would decide too much.
const AUDITED: u16 = 4;
/// While little was seen, one of so many is checked at most.
const FIRST_AUDITS: u64 = 4;
/// How many wrong answers, found and expected, the trust in the model begins with.
const DOUBT: f64 = 3.0;
/// What seems wrong with at most this probability tells how mistaken the model is there, though it is not served.
const ALMOST: f64 = 0.3;
/// The model is never trusted more than this says.
const LEAST_MISTAKEN: f64 = 0.4;
/// By so much the model may be mistaken before what is little known is no longer served.
const MISTAKEN: f64 = 1.4;
/// How much of the bound is planned to be spent when much was seen.
const PLANNED: f64 = 0.9;
/// After so many observations half of that is.
const HALF: f64 = 60.0;
/// What is more probably wrong is not served, however much of the bound is left.
const WORST: f64 = 0.25;
/// Of how many lookups is known what they would have cost.
const RECENT: usize = 500;
/// The budget of how many lookups may be spent beforehand.
const CREDIT: f64 = 50.0;

/// A share of lookups, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub struct Rate(f64);

impl Rate {
    /// Makes a rate of how many lookups in a hundred are meant.
    ///
    /// # Errors
    ///
    /// [`Error::RateOutOfRange`] unless it is over 0 and under 100.
    pub fn per_hundred(value: f64) -> Result<Self> {
        if 0.0 < value && value < 100.0 {
            Ok(Self(value / 100.0))
        } else {
            Err(Error::RateOutOfRange { value })
        }
    }

    /// Returns the share, from 0 to 1.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0
    }
}

/// What is to be remembered of a candidate when it turns out to be right or wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Trial {
    pub(crate) cell: u16,
    /// How often it counts.
    pub(crate) weight: u16,
    /// How probable it seemed that it is wrong, if that is near to what is served.
    pub(crate) checked: Option<f64>,
    /// The entry with whose answer the candidate's agrees.
    pub(crate) kin: EntryId,
}

/// What to do with a candidate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Decision {
    Serve,
    /// Generate an answer and compare; it seemed wrong with this probability, if it could almost be served.
    Explore(Option<f64>),
    /// The same for one that could be served, which counts so often and seemed wrong with this probability.
    Check(u16, f64),
}

/// What one instance spends of the bound: answers are served up to that probability of being wrong by which, of the last
/// [`RECENT`] lookups, as many would have been wrong as the bound allows.
#[derive(Debug)]
pub(crate) struct Controller(Mutex<State>);

#[derive(Debug)]
struct State {
    /// How many checked ones were wrong, and how many seemed to be.
    found: f64,
    expected: f64,
    lookups: f64,
    spent: f64,
    recent: Recent,
    until_audit: u64,
    random: u64,
    model: Option<(Arc<Pool>, Model)>,
}

/// How probable it seemed, of the last lookups, that the candidate is wrong.
#[derive(Debug, Default)]
struct Recent {
    in_order: VecDeque<f64>,
    sorted: Vec<f64>,
}

impl Recent {
    fn push(&mut self, wrong: f64) {
        if RECENT <= self.in_order.len()
            && let Some(oldest) = self.in_order.pop_front()
        {
            let place = self.sorted.partition_point(|known| *known < oldest);
            self.sorted.remove(place);
        }
        self.in_order.push_back(wrong);
        let place = self.sorted.partition_point(|known| *known < wrong);
        self.sorted.insert(place, wrong);
    }

    /// The greatest probability of a wrong answer up to which all could have been served, had `bound` been the share of
    /// wrong ones.
    #[expect(clippy::cast_precision_loss, reason = "at most 500")]
    fn worst(&self, bound: f64) -> f64 {
        let mut left = bound * self.sorted.len() as f64;
        let affordable = self.sorted.iter().take_while(|wrong| {
            left -= **wrong;
            0.0 <= left
        });
        affordable.last().copied().unwrap_or(0.0)
    }
}

impl Controller {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Mutex::new(State {
            found: DOUBT,
            expected: DOUBT,
            lookups: 0.0,
            spent: 0.0,
            recent: Recent::default(),
            until_audit: FIRST_AUDITS,
            random: seed | 1,
            model: None,
        }))
    }

    /// Decides, and takes note of the lookup; without evidence there is no candidate.
    pub(crate) fn decide(
        &self,
        bound: Rate,
        pool: &Arc<Pool>,
        candidate: Option<(Evidence, &[Observation])>,
    ) -> Decision {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let bound = bound.as_f64();
        state.lookups += 1.0;
        let Some((evidence, observations)) = candidate else {
            state.recent.push(1.0);
            return Decision::Explore(None);
        };
        let mistaken = (state.found / state.expected).max(LEAST_MISTAKEN);
        let known = state.model.as_ref().is_some_and(|(fitted, _)| Arc::ptr_eq(fitted, pool));
        if !known {
            state.model = Some((Arc::clone(pool), Model::fit(pool)));
        }
        let model = state.model.as_ref().map(|(_, model)| model);
        let model = model.filter(|model| LITTLE <= model.seen);
        let mut seemed = 1.0;
        let (wrong, served) = match model {
            Some(model) => {
                seemed = model.wrong(evidence, observations);
                let wrong = (seemed * mistaken).min(1.0);
                state.recent.push(wrong);
                let planned = PLANNED * model.seen as f64 / (model.seen as f64 + HALF);
                (wrong, wrong <= state.recent.worst(bound * planned).min(WORST.max(bound)))
            }
            None => {
                let known = observations.iter().all(|(_, correct)| *correct);
                let affordable = state.spent + UNKNOWN <= bound * (state.lookups + CREDIT);
                let strict = STRICT <= evidence.similarity && known && mistaken < MISTAKEN;
                (bound.max(UNKNOWN), strict && affordable)
            }
        };
        if !served {
            return Decision::Explore(Some(seemed).filter(|seemed| *seemed <= ALMOST));
        }
        state.until_audit = state.until_audit.saturating_sub(1);
        if state.until_audit != 0 {
            state.spent += wrong;
            return Decision::Serve;
        }
        let (weight, least, spread) = match model {
            Some(model) => {
                // The less was seen, the more are checked.
                let rate = (model.seen / (LITTLE / 2)).clamp(FIRST_AUDITS, AUDIT);
                (AUDITED, rate / 2, rate)
            }
            None => (1, FIRST_AUDITS / 2, FIRST_AUDITS / 2),
        };
        state.until_audit = least + random(&mut state.random) % (spread + 1);
        Decision::Check(weight, if model.is_some() { seemed } else { wrong })
    }

    /// Takes note of whether what was checked was right.
    pub(crate) fn learn(&self, trial: Trial, correct: bool) {
        let Some(wrong) = trial.checked else { return };
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.expected += wrong;
        state.found += f64::from(u8::from(!correct));
    }
}

/// Marsaglia's xorshift.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Writes an observation as text: four hexadecimal digits.
pub(crate) fn encode((cell, correct): Observation) -> String {
    format!("{:04x}", cell << 1 | u16::from(correct))
}

/// Reads the observations of an entry; what is damaged counts as not seen.
pub(crate) fn decode(text: &[u8]) -> Vec<Observation> {
    let (groups, _) = text.as_chunks::<4>();
    let number = |group: &[u8; 4]| u16::from_str_radix(str::from_utf8(group).ok()?, 16).ok();
    groups.iter().filter_map(number).map(|code| (code >> 1, code & 1 == 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_shares_of_lookups() {
        assert_eq!(Rate::per_hundred(2.0).unwrap().as_f64().to_bits(), 0.02_f64.to_bits());
        for value in [0.0, -1.0, 100.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(Rate::per_hundred(value), Err(Error::RateOutOfRange { .. })));
        }
    }

    #[test]
    fn observations_come_back() {
        let all = [(0, true), (399, false), (17, true)];
        let text: String = all.into_iter().map(encode).collect();
        assert_eq!(decode(text.as_bytes()), all);
        assert_eq!(decode(b"zzzz\xff\xff\xff\xff0001"), [(0, true)]);
        assert!(decode(b"000").is_empty());
    }

    fn evidence(similarity: f64) -> Evidence {
        Evidence { similarity, margin: 0.2, support: 0.0 }
    }

    #[test]
    fn without_evidence_it_is_a_strict_threshold() {
        let (controller, pool) = (Controller::new(1), Arc::new(Pool::default()));
        let rate = Rate::per_hundred(2.0).unwrap();
        let decide = |similarity, seen: &[Observation]| {
            controller.decide(rate, &pool, Some((evidence(similarity), seen)))
        };
        assert_eq!(decide(0.969, &[]), Decision::Explore(None));
        assert_eq!(decide(0.97, &[]), Decision::Serve);
        assert_eq!(decide(0.99, &[(0, false)]), Decision::Explore(None));
        assert_eq!(controller.decide(rate, &pool, None), Decision::Explore(None));
    }

    #[test]
    fn what_is_never_right_is_not_served_and_what_always_is_soon_is() {
        let rate = Rate::per_hundred(2.0).unwrap();
        for (right, least, most) in [(true, 400, 500), (false, 0, 0)] {
            let (controller, mut pool) = (Controller::new(1), Arc::new(Pool::default()));
            let mut served = 0;
            for round in 0..1_000 {
                let evidence = evidence(0.9);
                match controller.decide(rate, &pool, Some((evidence, &[]))) {
                    Decision::Serve => served += i32::from(500 <= round),
                    decision => {
                        let weight = match decision {
                            Decision::Check(weight, _) => weight,
                            _ => 1,
                        };
                        let mut counted = Pool::clone(&pool);
                        counted.count(evidence.cell(), right, weight);
                        pool = Arc::new(counted);
                    }
                }
            }
            assert!((least..=most).contains(&served), "{served}");
        }
    }
}
