#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod decision;
mod demand;
mod error;
mod estimate;
mod fail_open;
pub mod headers;
mod ids;
mod keeper;
mod layout;
mod limit;
mod limiter;
mod memory;
mod metrics;
mod plan;
mod policy;
mod queue;
mod redis;
#[cfg(feature = "tower")]
mod tower;

pub use decision::{Decision, Permit, Rejection, Report, Settled, TierState, Wait};
pub use demand::{Demand, Unit, Weights};
pub use error::{Error, Result};
pub use estimate::TokenEstimator;
pub use fail_open::FailOpen;
pub use inferkit_core;
pub use layout::KEYS;
pub use limit::{Algorithm, Calendar, Limit};
pub use limiter::{RateLimiter, RateLimiterExt};
pub use memory::MemoryRateLimiter;
pub use plan::Plan;
pub use policy::{Policy, Subject, Tier};
pub use queue::{
    HeldSlot, MemorySlotQueue, QueueState, Queued, RedisSlotQueue, Refusal, SlotPool, SlotQueue,
    Waiter,
};
pub use redis::RedisRateLimiter;
#[cfg(feature = "tower")]
pub use tower::{RateLimitLayer, RateLimitService};
