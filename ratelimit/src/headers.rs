//! The headers of HTTP answers, from a [`Report`].
//!
//! - `RateLimit-Policy` and `RateLimit` of the IETF's draft-ietf-httpapi-ratelimit-headers, one item per tier;
//! - `x-ratelimit-{limit,remaining,reset}-{requests,tokens}` as OpenAI sends them;
//! - `Retry-After` in seconds (RFC 9110), and `retry-after-ms`, which OpenAI's clients read.
//!
//! Shadow tiers are left out, and slots have no `x-ratelimit` form.

use std::fmt::Write as _;
use std::time::Duration;

use crate::{Algorithm, Rejection, Report, Tier, TierState, Unit};

/// Names, in lower case, and values.
pub type Headers = Vec<(&'static str, String)>;

/// Returns the headers that tell the state of every tier, of admitted and of rejected requests.
#[must_use]
pub fn state(report: &Report) -> Headers {
    let mut headers = Vec::with_capacity(8);
    let (mut policy, mut limit) = (String::new(), String::new());
    for (tier, state) in report.tiers().filter(|(tier, _)| !tier.is_shadow()) {
        let separator = if policy.is_empty() { "" } else { ", " };
        let (name, limits) = (tier.name(), tier.limit());
        let slots = limits.algorithm() == Algorithm::Slots;
        // Writing to a string cannot fail.
        let _ = write!(policy, "{separator}\"{name}\";q={}", limits.burst());
        match (slots, limits.unit()) {
            (true, _) => policy.push_str(";qu=\"concurrent-requests\""),
            (false, Unit::Requests) => {}
            (false, unit) => {
                let _ = write!(policy, ";qu=\"{}\"", unit.name());
            }
        }
        let _ = write!(limit, "{separator}\"{name}\";r={}", state.remaining);
        if !slots {
            let _ = write!(policy, ";w={}", seconds(window(tier)));
            let _ = write!(limit, ";t={}", seconds(state.reset));
        }
    }
    if !policy.is_empty() {
        headers.push(("ratelimit-policy", policy));
        headers.push(("ratelimit", limit));
    }
    open_ai(report, &mut headers);
    headers
}

/// Returns the headers of a rejection: those of [`state`], and when to come again; not if it can never pass.
#[must_use]
pub fn rejection(rejection: &Rejection) -> Headers {
    let mut headers = state(rejection.report());
    if let Some(time) = rejection.retry_after() {
        headers.push(("retry-after", seconds(time).max(1).to_string()));
        headers.push(("retry-after-ms", time.as_micros().div_ceil(1000).max(1).to_string()));
    }
    headers
}

/// Each of the two units' tier that has the smallest part of its limit left.
fn open_ai(report: &Report, headers: &mut Headers) {
    let units = [
        (
            Unit::Requests,
            [
                "x-ratelimit-limit-requests",
                "x-ratelimit-remaining-requests",
                "x-ratelimit-reset-requests",
            ],
        ),
        (
            Unit::Tokens,
            [
                "x-ratelimit-limit-tokens",
                "x-ratelimit-remaining-tokens",
                "x-ratelimit-reset-tokens",
            ],
        ),
    ];
    for (unit, [limit, remaining, reset]) in units {
        let tightest = report
            .tiers()
            .filter(|(tier, _)| {
                !tier.is_shadow()
                    && *tier.limit().unit() == unit
                    && tier.limit().algorithm() != Algorithm::Slots
            })
            .min_by(|left, right| part_left(*left).total_cmp(&part_left(*right)));
        if let Some((tier, state)) = tightest {
            headers.push((limit, tier.limit().burst().to_string()));
            headers.push((remaining, state.remaining.to_string()));
            headers.push((reset, go_duration(state.reset)));
        }
    }
}

fn part_left((tier, state): (&Tier, &TierState)) -> f64 {
    crate::limit::to_f64(state.remaining) / crate::limit::to_f64(tier.limit().burst())
}

/// The time within which the quota comes back: that of a burst under GCRA.
fn window(tier: &Tier) -> Duration {
    let limit = tier.limit();
    match limit.algorithm() {
        Algorithm::Gcra => crate::limit::duration(crate::decision::burst_ticks(limit)),
        _ => limit.period(),
    }
}

/// Whole seconds, rounded up.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(0 < time.subsec_nanos())
}

/// A time as Go writes it: `1h2m3s`, `6m0s`, `1.5s`, `20ms`, `0s`.
fn go_duration(time: Duration) -> String {
    let millis = time.as_micros().div_ceil(1000);
    if 0 < millis && millis < 1000 {
        return format!("{millis}ms");
    }
    let (minutes, millis) = (millis / 60_000, millis % 60_000);
    let mut text = String::new();
    if 60 <= minutes {
        let _ = write!(text, "{}h", minutes / 60);
    }
    if 0 < minutes {
        let _ = write!(text, "{}m", minutes % 60);
    }
    let _ = write!(text, "{}", millis / 1000);
    if !millis.is_multiple_of(1000) {
        let part = format!(".{:03}", millis % 1000);
        text.push_str(part.trim_end_matches('0'));
    }
    text.push('s');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Limit, Policy, Subject, TierState, Wait};

    fn tier(name: &'static str, limit: Limit) -> Tier {
        Tier::new(name, Subject::global(), limit).unwrap()
    }

    fn report() -> Report {
        let minute = Duration::from_secs(60);
        let policy = Policy::new("d")
            .and_then(|p| {
                p.with_tier(tier("rpm", Limit::new(60, minute, Unit::Requests)?.with_burst(10)?))
            })
            .and_then(|p| {
                p.with_tier(tier("rpd", Limit::fixed_window(500, minute * 1440, Unit::Requests)?))
            })
            .and_then(|p| p.with_tier(tier("tpm", Limit::new(10_000, minute, Unit::Tokens)?)))
            .and_then(|p| p.with_tier(tier("gpu", Limit::slots(4)?)))
            .and_then(|p| {
                p.with_tier(tier("trial", Limit::new(1, minute, Unit::Requests)?).shadow())
            })
            .unwrap();
        let at = Duration::from_millis;
        let states = vec![
            TierState::new(4, at(6000), Wait::Nothing),
            TierState::new(499, at(3_600_000), Wait::Nothing),
            TierState::new(0, at(61_250), Wait::For(at(1250))),
            TierState::new(1, at(0), Wait::Nothing),
            TierState::new(0, at(0), Wait::Never),
        ];
        Report::new(&policy, states)
    }

    #[test]
    fn every_family_of_headers_is_there() {
        let headers = rejection(&Rejection::new(report()));
        let expected = [
            (
                "ratelimit-policy",
                "\"rpm\";q=10;w=10, \"rpd\";q=500;w=86400, \"tpm\";q=10000;qu=\"tokens\";w=60, \
                 \"gpu\";q=4;qu=\"concurrent-requests\"",
            ),
            ("ratelimit", "\"rpm\";r=4;t=6, \"rpd\";r=499;t=3600, \"tpm\";r=0;t=62, \"gpu\";r=1"),
            ("x-ratelimit-limit-requests", "10"),
            ("x-ratelimit-remaining-requests", "4"),
            ("x-ratelimit-reset-requests", "6s"),
            ("x-ratelimit-limit-tokens", "10000"),
            ("x-ratelimit-remaining-tokens", "0"),
            ("x-ratelimit-reset-tokens", "1m1.25s"),
            ("retry-after", "2"),
            ("retry-after-ms", "1250"),
        ];
        let expected: Headers =
            expected.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        assert_eq!(headers, expected);
    }

    #[test]
    fn times_are_written_as_go_does() {
        let written = |millis| go_duration(Duration::from_millis(millis));
        for (millis, text) in [
            (0, "0s"),
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (360_000, "6m0s"),
            (3_723_000, "1h2m3s"),
            (3_600_000, "1h0m0s"),
        ] {
            assert_eq!(written(millis), text);
        }
    }
}
