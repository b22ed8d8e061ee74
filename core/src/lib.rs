#![doc = include_str!("../README.md")]

mod batch;
mod clock;
mod cmd;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod doctor;
mod driver;
mod error;
pub mod keys;
mod lease;
mod lease_keeper;
pub mod observe;
#[cfg(feature = "redis")]
mod pool;
mod reply;
mod script;
mod single_flight;
mod topology;

pub use batch::{Answers, Batch, Slot};
pub use clock::{Clock, ManualClock, SystemClock};
pub use cmd::{Cmd, ToArg};
#[cfg(feature = "fred")]
pub use driver::fred::{FredClient, FredDriver};
pub use driver::layers::{Observed, Retried, TimedOut};
#[cfg(feature = "redis")]
pub use driver::redis::{RedisConnect, RedisConnection, RedisDriver};
pub use driver::{Connect, Driver, DriverExt, DynDriver};
pub use error::{Error, ErrorKind, Result};
pub use lease::{LEASE_KEYS, Lease, Leases, MemoryLeases, RedisLeases};
pub use lease_keeper::{HeldLease, LeaseKeeper};
#[cfg(feature = "redis")]
pub use pool::{Pool, PoolConfig, Protocol};
pub use reply::{FromReply, Reply};
pub use script::Script;
pub use single_flight::SingleFlight;
pub use topology::Deployment;
#[cfg(feature = "redis")]
pub use topology::{Pools, Topology};
