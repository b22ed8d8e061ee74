//! Metrics of the family, through the `metrics` facade (feature `metrics`); without the feature nothing is recorded.
//!
//! No recorder is installed: that is the service's choice.
//! Labels come from closed sets, never from users.
//!
//! | name | kind | labels | what |
//! |---|---|---|---|
//! | `inferkit_core_commands_total` | counter | `deployment`, `outcome` (`ok` or an error kind) | calls and batches sent |
//! | `inferkit_core_command_seconds` | histogram | `deployment` | time from call to answer |
//! | `inferkit_core_reconnects_total` | counter | `reason` (`broken`, `silent`, `moved`) | connections that a pool replaced |

use std::time::Duration;

use crate::ErrorKind;

#[cfg(feature = "metrics")]
pub(crate) fn command(deployment: &'static str, outcome: &'static str, took: Duration) {
    metrics::counter!("inferkit_core_commands_total", "deployment" => deployment, "outcome" => outcome)
        .increment(1);
    metrics::histogram!("inferkit_core_command_seconds", "deployment" => deployment).record(took);
}

#[cfg(not(feature = "metrics"))]
pub(crate) fn command(_: &'static str, _: &'static str, _: Duration) {}

#[cfg(all(feature = "metrics", feature = "redis"))]
pub(crate) fn reconnect(reason: &'static str) {
    metrics::counter!("inferkit_core_reconnects_total", "reason" => reason).increment(1);
}

#[cfg(all(not(feature = "metrics"), feature = "redis"))]
pub(crate) fn reconnect(_: &'static str) {}

pub(crate) fn kind_label(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::Auth => "auth",
        ErrorKind::Config => "config",
        ErrorKind::Connection => "connection",
        ErrorKind::CrossSlot => "cross_slot",
        ErrorKind::Loading => "loading",
        ErrorKind::NoScript => "no_script",
        ErrorKind::OutOfMemory => "out_of_memory",
        ErrorKind::ReadOnly => "read_only",
        ErrorKind::Reply => "reply",
        ErrorKind::Server => "server",
        ErrorKind::Timeout => "timeout",
    }
}
