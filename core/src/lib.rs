#![doc = include_str!("../README.md")]

mod batch;
mod clock;
mod cmd;
mod driver;
mod error;
pub mod keys;
mod reply;
mod script;
mod single_flight;

pub use batch::{Answers, Batch, Slot};
pub use clock::{Clock, ManualClock, SystemClock};
pub use cmd::{Cmd, ToArg};
pub use driver::{Connect, Driver, DriverExt, DynDriver};
pub use error::{Error, ErrorKind, Result};
pub use reply::{FromReply, Reply};
pub use script::Script;
pub use single_flight::SingleFlight;
