#![doc = include_str!("../README.md")]

mod bus;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
mod error;
mod event;
mod keys;
mod memory;
mod redis;
mod topic;

pub use bus::{
    Claimed, DeadLetter, Delivery, EntryId, EventBus, GroupStatus, PartitionStatus, Reader, Start,
    Trim, Trimmed,
};
pub use consumer::{Consumer, ConsumerConfig, Failure, Handler, Ran, handler};
pub use error::{Error, Result};
pub use event::Event;
pub use inferkit_core;
pub use keys::KEYS;
pub use memory::MemoryEventBus;
pub use redis::RedisEventBus;
pub use topic::Topic;
