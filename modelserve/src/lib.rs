#![doc = include_str!("../README.md")]

pub mod bucketing;
mod condition;
#[cfg(feature = "conformance")]
pub mod conformance;
mod decision;
mod error;
mod experiment;
mod flag;
mod keys;
mod outcome;
mod ranges;
mod record;
mod registry;
mod results;
mod rollout;
mod router;
mod snapshot;
mod subject;

pub use condition::Condition;
pub use decision::{Decision, Reason};
pub use error::{Error, Result};
pub use experiment::{Arm, Exclusion, Experiment, Salts, Status, TOTAL, Target};
pub use flag::{Flag, FlagDecision, Rule, Serve};
pub use inferkit_core;
pub use keys::KEYS;
pub use outcome::{
    Counted, MemoryOutcomes, OutcomeKey, OutcomeRecorder, Outcomes, RedisOutcomes, Tally,
};
pub use registry::{
    AliasChange, AuditEntry, MemoryModelRegistry, ModelRegistry, ModelStatus, ModelVersion,
    RedisModelRegistry,
};
pub use results::{
    ComputeError, Found, Kept, MemoryResultCache, Place, Question, RedisResultCache, ResultCache,
    ResultStats, Tier, TierSlots, TieredResults, Tiers, Ttl,
};
pub use rollout::{Guard, Rollout, Step, Verdict};
pub use router::{MemoryModelRouter, ModelRouter, ModelRouterExt, RedisModelRouter};
pub use snapshot::{Aliases, Snapshot};
pub use subject::{Attribute, ID, Subject};
