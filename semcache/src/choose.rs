//! Which of the candidates of the semantic tier is served: one place for all implementations.

use std::sync::Arc;

use crate::adaptive::{
    ANSWERS, Controller, Decision, Evidence, FLOOR, NEIGHBORS, Observation, Pool, Rate, Trial,
    UNSEEN,
};
use crate::lookup::{Alternative, Explored};
use crate::{EntryId, Hit, Lookup, Miss, Near, Nearest, Policy, Rejection, Request};

/// A candidate, and whether it was reported as wrong for the request.
pub(crate) struct Candidate {
    pub(crate) hit: Hit,
    pub(crate) wrong: bool,
    /// What was reported of it.
    pub(crate) observations: Vec<Observation>,
    /// The entry with whose answer its own agrees; itself if none is known.
    pub(crate) kin: EntryId,
}

/// What an adaptive policy knows.
pub(crate) struct Learned<'l> {
    pub(crate) controller: &'l Controller,
    pub(crate) pool: &'l Arc<Pool>,
}

/// Returns what a request comes to, whose candidates are all served but for similarity, feedback and verification, the
/// most similar first.
pub(crate) async fn choose(
    policy: &Policy,
    request: &Request,
    candidates: Vec<Candidate>,
    miss: Miss,
    learned: Learned<'_>,
) -> Lookup {
    if let Some(bound) = policy.max_wrong() {
        return choose_by_evidence(policy, bound, request, candidates, miss, learned).await;
    }
    let threshold = policy.threshold_of(request);
    let nearest = candidates.first().map(|first| Nearest::new(first.hit.id, first.hit.similarity));
    let mut near: Option<(Hit, Rejection)> = None;
    let mut left =
        policy.verification().map_or(usize::MAX, |verification| verification.candidates());
    for Candidate { hit, wrong, .. } in candidates {
        let reason = if hit.similarity < threshold {
            let margin = policy.rules(request.category()).near_margin();
            if threshold.as_f64() - margin <= hit.similarity.as_f64() {
                near = near.or(Some((hit, Rejection::Threshold)));
            }
            // What comes behind it is not similar enough either.
            break;
        } else if wrong {
            Rejection::Feedback
        } else if left == 0 {
            break;
        } else {
            left -= 1;
            match policy.verification() {
                Some(verification) if !verification.accepts(request, &hit).await => {
                    Rejection::Verifier
                }
                _ => return Lookup::Semantic(hit),
            }
        };
        near = near.or(Some((hit, reason)));
    }
    let miss = miss.with_nearest(nearest);
    match near {
        Some((hit, reason)) => Lookup::Near(Box::new(Near::new(hit, reason, miss))),
        None => Lookup::Miss(miss),
    }
}

/// The same where the policy learns: only the most similar candidate is served.
async fn choose_by_evidence(
    policy: &Policy,
    bound: Rate,
    request: &Request,
    mut candidates: Vec<Candidate>,
    miss: Miss,
    learned: Learned<'_>,
) -> Lookup {
    let nearest = candidates.first().map(|first| Nearest::new(first.hit.id, first.hit.similarity));
    let miss = miss.with_nearest(nearest);
    candidates.retain(|candidate| FLOOR <= candidate.hit.similarity.as_f64());
    candidates.truncate(NEIGHBORS);
    let refused = candidates.iter().find(|candidate| candidate.wrong).map(|one| one.hit.clone());
    candidates.retain(|candidate| !candidate.wrong);
    let Some(evidence) = weigh(&candidates) else {
        learned.controller.decide(bound, learned.pool, None);
        return match refused {
            Some(hit) => Lookup::Near(Box::new(Near::new(hit, Rejection::Feedback, miss))),
            None => Lookup::Miss(miss),
        };
    };
    let mut answers = answers(candidates);
    let Some((Alternative { hit, kin, .. }, observations)) = answers.first_mut() else {
        return Lookup::Miss(miss);
    };
    let kin = *kin;
    let least = request.control().least_similarity();
    let decision = if least.is_some_and(|least| hit.similarity < least) {
        learned.controller.decide(bound, learned.pool, None)
    } else {
        learned.controller.decide(bound, learned.pool, Some((evidence, observations)))
    };
    let cell = evidence.cell();
    let trial = |weight, checked| Some(Trial { cell, weight, checked, kin });
    let reason = match (decision, policy.verification()) {
        (Decision::Serve, Some(verification)) if !verification.accepts(request, hit).await => {
            hit.trial = trial(1, None);
            Rejection::Verifier
        }
        (Decision::Serve, _) => {
            hit.trial = trial(1, None);
            return Lookup::Semantic(hit.clone());
        }
        (Decision::Explore(seemed), _) => {
            hit.trial = trial(1, seemed);
            Rejection::Explored
        }
        (Decision::Check(weight, wrong), _) => {
            hit.trial = trial(weight, Some(wrong));
            Rejection::Explored
        }
    };
    let candidate = hit.clone();
    let answers = answers.into_iter().map(|(alternative, _)| alternative).collect();
    let mut miss = miss;
    miss.explored = Some(Box::new(Explored { answers, reason }));
    Lookup::Near(Box::new(Near::new(candidate, reason, miss)))
}

/// What speaks for the first of some candidates.
#[expect(clippy::cast_precision_loss, reason = "at most 8")]
fn weigh(candidates: &[Candidate]) -> Option<Evidence> {
    let (first, others) = candidates.split_first()?;
    let similarity = first.hit.similarity.as_f64();
    let other = others.iter().find(|other| other.kin != first.kin);
    let other = other.map_or(UNSEEN, |other| other.hit.similarity.as_f64());
    let support = others.iter().filter(|other| other.kin == first.kin).count() as f64;
    Some(Evidence { similarity, margin: similarity - other, support })
}

/// The first candidates that have each of the nearest different answers, with what was observed of them.
fn answers(candidates: Vec<Candidate>) -> Vec<(Alternative, Vec<Observation>)> {
    let mut answers: Vec<(Alternative, Vec<Observation>)> = Vec::with_capacity(ANSWERS);
    for Candidate { hit, observations, kin, .. } in candidates {
        if let Some((known, _)) = answers.iter_mut().find(|(known, _)| known.kin == kin) {
            known.ids.push(hit.id);
        } else if answers.len() < ANSWERS {
            let ids = vec![hit.id];
            answers.push((Alternative { hit, kin, ids }, observations));
        }
    }
    answers
}
