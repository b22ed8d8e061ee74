//! Policies that span several limit domains: each domain decides by itself, one after the other.

use std::future::Future;

use crate::policy::Part;
use crate::{
    Decision, Demand, Permit, Policy, Rejection, Report, Result, Settled, TierState, Weights,
};

/// A limiter that decides within one domain.
pub(crate) trait OneDomain: Sync {
    fn decide(
        &self,
        policy: &Policy,
        demand: &Demand,
    ) -> impl Future<Output = Result<Decision>> + Send;

    fn settle(
        &self,
        permit: &Permit,
        used: &Weights,
    ) -> impl Future<Output = Result<Settled>> + Send;
}

/// Asks one domain after the other; if one rejects, what those before it charged is given back.
///
/// If the process dies in between, what was charged stays: rates refill, windows end, leases run out.
pub(crate) async fn decide(
    limiter: &impl OneDomain,
    policy: &Policy,
    parts: Vec<Part>,
    demand: &Demand,
) -> Result<Decision> {
    let mut states: Vec<Option<TierState>> = vec![None; policy.tiers().len()];
    let mut permits: Vec<Permit> = Vec::with_capacity(parts.len());
    for part in &parts {
        let decision = match limiter.decide(&part.policy, demand).await {
            Ok(decision) => decision,
            Err(error) => {
                // What may have been applied is not taken back: the caller may ask again under the same id.
                if !error.maybe_applied() {
                    give_back(limiter, &permits).await;
                }
                return Err(error);
            }
        };
        enter(&mut states, part, decision.report());
        match decision {
            Decision::Admitted(permit) => permits.push(permit),
            Decision::Rejected(_) => {
                give_back(limiter, &permits).await;
                for (part, _) in parts.iter().zip(&permits) {
                    for place in &part.places {
                        if let (Some(tier), Some(Some(state))) =
                            (policy.tiers().get(*place), states.get_mut(*place))
                        {
                            *state = state.uncharged(tier, demand.weights());
                        }
                    }
                }
                return Ok(Decision::Rejected(Rejection::new(Report::partial(policy, states))));
            }
        }
    }
    Ok(Decision::Admitted(Permit::joined(demand, Report::partial(policy, states), permits)))
}

/// Gives back all that was charged; where that fails it stays charged, which heals.
async fn give_back(limiter: &impl OneDomain, permits: &[Permit]) {
    for permit in permits {
        let nothing = Weights::none_of(permit.policy());
        if let Err(error) = limiter.settle(permit, &nothing).await {
            tracing::warn!(%error, "what a rejected request was charged was not given back");
        }
    }
}

/// Settles what each domain charged; if one cannot be asked, the others are settled all the same.
pub(crate) async fn settle(
    limiter: &impl OneDomain,
    permit: &Permit,
    used: &Weights,
) -> Result<Settled> {
    let (mut outcome, mut failed) = (Settled::Gone, None);
    for part in permit.parts().iter().filter(|part| !part.is_settled()) {
        match limiter.settle(part, used).await {
            Ok(Settled::Done) => outcome = Settled::Done,
            Ok(_) => {}
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) => Err(error),
        None => {
            permit.set_settled();
            Ok(outcome)
        }
    }
}

/// Puts the reports of the domains together.
pub(crate) fn report(
    policy: &Policy,
    parts: &[Part],
    reports: impl Iterator<Item = Report>,
) -> Report {
    let mut states: Vec<Option<TierState>> = vec![None; policy.tiers().len()];
    for (part, report) in parts.iter().zip(reports) {
        enter(&mut states, part, &report);
    }
    Report::partial(policy, states)
}

/// Puts what a domain says where its tiers stand in the whole policy.
fn enter(states: &mut [Option<TierState>], part: &Part, report: &Report) {
    for (place, (_, state)) in part.places.iter().zip(report.tiers()) {
        if let Some(into) = states.get_mut(*place) {
            *into = Some(*state);
        }
    }
}
