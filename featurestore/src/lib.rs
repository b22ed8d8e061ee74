#![doc = include_str!("../README.md")]

#[cfg(feature = "conformance")]
pub mod conformance;
mod entity;
mod error;
#[cfg(feature = "feast")]
pub mod feast;
mod fields;
mod input;
mod keys;
mod matrix;
mod memory;
mod packed;
mod redis;
mod row;
mod schema;
mod store;
mod text;
mod value;

pub use entity::{Entity, EntityKey};
pub use error::{Error, Result};
pub use inferkit_core;
pub use input::{Column, ColumnPlace, InputBuilder, ModelInput, OnStale};
pub use keys::KEYS;
pub use matrix::{Matrix, Status};
pub use memory::MemoryFeatureStore;
pub use redis::{ReadSlots, RedisFeatureStore};
pub use row::{Record, Row};
pub use schema::{DataType, Feature, FeatureGroup, Group, GroupBuilder, Layout, MAX_FEATURES};
pub use store::{EntityPage, FeatureStore, FeatureStoreExt, Written};
pub use value::Value;
