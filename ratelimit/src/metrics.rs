//! What is counted of decisions.

use std::borrow::Cow;

use inferkit_core::observe::{self, Stopwatch};
use tracing::Span;

use crate::{Decision, Result, Tier, TierState, Wait};

/// Records a decision in its span, and counts it and the state of its tiers.
pub(crate) fn decision(span: &Span, decision: &Result<Decision>, time: Stopwatch) {
    let outcome = match decision {
        Ok(Decision::Admitted(permit)) if permit.is_replayed() => "replayed",
        Ok(Decision::Admitted(_)) => "admitted",
        Ok(Decision::Rejected(_)) => "rejected",
        Err(_) => "error",
    };
    span.record("outcome", outcome);
    time.record("inferkit_ratelimit_acquire_seconds", &[("outcome", outcome)]);
    observe::count("inferkit_ratelimit_decisions_total", &[("outcome", outcome)], 1);
    let Ok(decision) = decision else { return };
    for (tier, state) in decision.report().tiers() {
        let labels = [("tier", label(tier)), ("state", near_or_over(tier, state))];
        observe::count("inferkit_ratelimit_tiers_total", &labels, 1);
    }
}

/// Names that were made at run time may be anybody's, so they share a label.
fn label(tier: &Tier) -> &'static str {
    match tier.name {
        Cow::Borrowed(name) => name,
        Cow::Owned(_) => "custom",
    }
}

fn near_or_over(tier: &Tier, state: &TierState) -> &'static str {
    match state.wait {
        Wait::Nothing if state.remaining < tier.limit.burst().div_ceil(5) => "near",
        Wait::Nothing => "ok",
        _ if tier.shadow => "shadow",
        _ => "over",
    }
}
