//! Which of the candidates of the semantic tier is served: one place for all implementations.

use crate::{Hit, Lookup, Miss, Near, Nearest, Policy, Rejection, Request};

/// A candidate, and whether it was reported as wrong for the request.
pub(crate) struct Candidate {
    pub(crate) hit: Hit,
    pub(crate) wrong: bool,
}

/// Returns what a request comes to, whose candidates are all served but for similarity, feedback and verification, the
/// most similar first.
pub(crate) async fn choose(
    policy: &Policy,
    request: &Request,
    candidates: Vec<Candidate>,
    miss: Miss,
) -> Lookup {
    let threshold = policy.threshold_of(request);
    let nearest = candidates.first().map(|first| Nearest::new(first.hit.id, first.hit.similarity));
    let mut near: Option<(Hit, Rejection)> = None;
    let mut left =
        policy.verification().map_or(usize::MAX, |verification| verification.candidates());
    for Candidate { hit, wrong } in candidates {
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
