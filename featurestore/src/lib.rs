#![doc = include_str!("../README.md")]

#[cfg(feature = "arrow")]
pub mod arrow;
#[cfg(feature = "conformance")]
pub mod conformance;
mod entity;
mod error;
#[cfg(feature = "feast")]
pub mod feast;
mod feed;
mod fields;
mod input;
mod keys;
mod load;
mod matrix;
mod memory;
mod nodes;
mod packed;
mod quality;
mod redis;
mod row;
mod schema;
mod store;
mod text;
mod value;

pub use entity::{Entity, EntityKey};
pub use error::{Error, Result};
pub use feed::{Fed, Feed};
pub use inferkit_core;
pub use input::{Column, ColumnPlace, InputBuilder, ModelInput, OnStale};
pub use keys::KEYS;
pub use load::{Load, Loaded, copy};
pub use matrix::{Matrix, Status};
pub use memory::MemoryFeatureStore;
pub use quality::{Comparison, Profile, compare, profile};
pub use redis::{ReadSlots, RedisFeatureStore};
pub use row::{Record, Row};
pub use schema::{DataType, Feature, FeatureGroup, Group, GroupBuilder, Layout, MAX_FEATURES};
pub use store::{EntityPage, FeatureStore, FeatureStoreExt, Written};
pub use value::Value;
