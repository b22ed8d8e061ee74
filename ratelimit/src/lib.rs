#![doc = include_str!("../README.md")]

mod breaker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod decision;
mod demand;
mod error;
mod estimate;
pub mod headers;
mod ids;
mod instances;
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
mod rejection_cache;
mod split;
#[cfg(feature = "tower")]
mod tower;

pub use breaker::{Breaker, WhenAway};
pub use decision::{Decision, Permit, Rejection, Report, Settled, TierState, Wait};
pub use demand::{Demand, Unit, Weights};
pub use error::{Error, Result};
pub use estimate::TokenEstimator;
pub use inferkit_core;
pub use instances::Instances;
pub use layout::KEYS;
pub use limit::{Algorithm, Calendar, Limit};
pub use limiter::{RateLimiter, RateLimiterExt};
pub use memory::MemoryRateLimiter;
pub use plan::Plan;
pub use policy::{Policy, Subject, Tier};
pub use queue::{
    HeldSlot, MemorySlotQueue, Position, QueueState, Queued, RedisSlotQueue, Refusal, Slot,
    SlotPool, SlotQueue, SlotQueueExt, Standing, Waited, Waiter,
};
pub use redis::{PeekSlots, RedisRateLimiter};
pub use rejection_cache::RejectionCache;
#[cfg(feature = "tower")]
pub use tower::{RateLimitLayer, RateLimitService};
