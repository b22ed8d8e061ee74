mod read;
mod registry;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

use async_trait::async_trait;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{Batch, Cmd, DriverExt as _, DynDriver, Script};
pub use read::ReadSlots;

use crate::entity::Entity;
use crate::error::Result;
use crate::input::ModelInput;
use crate::keys;
use crate::matrix::Matrix;
use crate::nodes::Nodes;
use crate::row::{Record, Row};
use crate::schema::{FeatureGroup, Group};
use crate::store::{EntityPage, FeatureStore, Written, increment_position};
use crate::text;
use crate::value::{Value, event_micros};

static INCREMENT: Script = Script::new(include_str!("../scripts/increment.lua"));

/// How many keys a scan looks at in one round trip, and how many a removal takes.
const PAGE: usize = 1_000;

/// Features on Redis: a string or a hash for each entity and group.
///
/// Cloning is cheap.
#[derive(Clone, Debug)]
pub struct RedisFeatureStore {
    driver: DynDriver,
    namespace: Namespace,
    nodes: Nodes,
    /// The server is a cluster that said so: an `MGET` of keys in several slots is refused.
    is_cluster: Arc<AtomicBool>,
}

impl RedisFeatureStore {
    /// Makes a store; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        let nodes = Nodes::new([Arc::clone(&driver)]);
        Self { driver, namespace, nodes, is_cluster: Arc::default() }
    }

    /// Gives a driver for each primary of a cluster, for [`FeatureStore::entities`] and [`FeatureStore::drop_group`]: a
    /// `SCAN` goes through one node only.
    ///
    /// The drivers are of single nodes, and take no part in reading and writing features.
    #[must_use]
    pub fn with_nodes(mut self, nodes: impl IntoIterator<Item = DynDriver>) -> Self {
        self.nodes = Nodes::new(nodes);
        self
    }

    fn key(&self, group: &Group, entity: &Entity) -> Key {
        keys::row(&self.namespace, group, group.label_str(), entity)
    }

    /// The keys of entities, which are checked.
    fn keys_of(&self, group: &Group, entities: &[Entity]) -> Result<Vec<Key>> {
        let key = |entity: &Entity| {
            entity.check(group.entity_type(), group.keys().len())?;
            Ok(self.key(group, entity))
        };
        entities.iter().map(key).collect()
    }
}

#[async_trait]
impl FeatureStore for RedisFeatureStore {
    /// One `HGETALL`, and one `EVALSHA` where a version is new.
    async fn register(&self, group: &FeatureGroup) -> Result<Group> {
        registry::register(&self.driver, &self.namespace, group).await
    }

    /// One `HGETALL`.
    async fn definition(
        &self,
        entity_type: &str,
        group: &str,
        generation: u16,
    ) -> Result<Option<FeatureGroup>> {
        registry::newest(&self.driver, &self.namespace, entity_type, group, generation).await
    }

    /// One pipeline of an `EVALSHA` for each row, for every 512 rows.
    async fn write(&self, group: &Group, rows: &[Row]) -> Result<Written> {
        self.write_guarded(group, rows).await
    }

    /// One pipeline of a `SET` (packed), or of `DEL`, `HSET` and `PEXPIRE` (hash), for each row, for every 512 rows.
    async fn write_unguarded(&self, group: &Group, rows: &[Row]) -> Result<()> {
        self.write_plain(group, rows).await
    }

    /// One round trip: an `MGET` of all packed rows (on a cluster a `GET` or `MGET` for each entity), an `HGETALL` or
    /// `HMGET` for each row that is a hash, and a `TIME` where something is compared with the time.
    async fn read_into(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()> {
        self.read_matrix(input, entities, matrix).await
    }

    /// One pipeline of a `GET` or `HGETALL` for each entity.
    async fn records(&self, group: &Group, entities: &[Entity]) -> Result<Vec<Option<Record>>> {
        self.read_records(group, entities).await
    }

    /// One `EVALSHA`.
    async fn increment(
        &self,
        group: &Group,
        entity: &Entity,
        feature: &str,
        by: &Value,
        at: SystemTime,
    ) -> Result<Value> {
        let position = increment_position(group, feature, by)?;
        entity.check(group.entity_type(), group.keys().len())?;
        let mut amount = Vec::new();
        let (command, data_type) = match by {
            Value::Int(_) => ("HINCRBY", crate::DataType::I64),
            _ => ("HINCRBYFLOAT", crate::DataType::F64),
        };
        text::encode(by, data_type, &mut amount);
        let cmd = Cmd::eval(&INCREMENT, &[self.key(group, entity)])
            .arg(feature)
            .arg(amount)
            .arg(command)
            .arg(event_micros(at)?)
            .arg(group.ttl_millis());
        let sum: bytes::Bytes = self.driver.query(cmd).await?;
        text::decode(group, position, &sum)
    }

    /// One pipeline of an `UNLINK` for each entity, for every 1000.
    async fn remove(&self, group: &Group, entities: &[Entity]) -> Result<u64> {
        let mut removed = 0;
        for keys in self.keys_of(group, entities)?.chunks(PAGE) {
            let mut batch = Batch::new();
            // Each by a command of its own, since they lie in any slot.
            let slots: Vec<_> = keys
                .iter()
                .map(|key| batch.push::<u64>(Cmd::new("UNLINK").key(key).idempotent()))
                .collect();
            let mut answers = self.driver.run(batch).await?;
            for slot in slots {
                removed += answers.take(slot)?;
            }
        }
        Ok(removed)
    }

    /// A `SCAN` over 1000 keys of the database; a page may be empty before the end.
    ///
    /// On a cluster it needs [`with_nodes`](Self::with_nodes).
    async fn entities(&self, group: &Group, from: Option<&str>) -> Result<EntityPage> {
        let around = keys::around(&self.namespace, group, group.label_str());
        let pattern = format!("{}*{}", around.0, around.1);
        let complete = |cmd: Cmd| cmd.arg("MATCH").arg(pattern).arg("COUNT").arg(PAGE);
        let (found, next) = self.nodes.scan(from, complete).await?;
        let keys = group.keys().len();
        let entity = |key: &bytes::Bytes| keys::entity(str::from_utf8(key).ok()?, &around, keys);
        Ok(EntityPage::new(found.iter().filter_map(entity).collect(), next))
    }

    /// One `DEL` of the definitions, then a `SCAN` over the database and pipelines of `UNLINK`.
    ///
    /// On a cluster it needs [`with_nodes`](Self::with_nodes).
    async fn drop_group(&self, group: &Group) -> Result<u64> {
        let definitions =
            keys::definitions(&self.namespace, group.entity_type(), group.label_str());
        self.driver.query::<u64>(Cmd::new("DEL").key(definitions).idempotent()).await?;
        let (mut removed, mut next) = (0, None::<String>);
        loop {
            let page = self.entities(group, next.as_deref()).await?;
            removed += self.remove(group, &page.entities).await?;
            next = page.next;
            if next.is_none() {
                return Ok(removed);
            }
        }
    }
}
