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
#[cfg(feature = "feast")]
pub(crate) use read::micros;
pub(crate) use write::typed;

use crate::entity::Entity;
use crate::error::{Error, Result};
use crate::input::ModelInput;
use crate::keys;
use crate::matrix::Matrix;
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
    /// What a scan goes through: the driver itself, or one for each primary of a cluster.
    nodes: Arc<[DynDriver]>,
    /// The server is a cluster that said so: an `MGET` of keys in several slots is refused.
    is_cluster: Arc<AtomicBool>,
}

impl RedisFeatureStore {
    /// Makes a store; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        let nodes = Arc::from([Arc::clone(&driver)]);
        Self { driver, namespace, nodes, is_cluster: Arc::default() }
    }

    /// Gives a driver for each primary of a cluster, for [`FeatureStore::entities`] and [`FeatureStore::drop_group`]: a
    /// `SCAN` goes through one node only.
    ///
    /// The drivers are of single nodes, and take no part in reading and writing features.
    #[must_use]
    pub fn with_nodes(mut self, nodes: impl IntoIterator<Item = DynDriver>) -> Self {
        self.nodes = nodes.into_iter().collect();
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

    /// Removes keys, each by a command of its own, since they lie in any slot.
    async fn unlink(&self, driver: &DynDriver, keys: &[Key]) -> Result<u64> {
        let mut removed = 0;
        for keys in keys.chunks(PAGE) {
            let mut batch = Batch::new();
            let slots: Vec<_> = keys
                .iter()
                .map(|key| batch.push::<u64>(Cmd::new("UNLINK").key(key).idempotent()))
                .collect();
            let mut answers = driver.run(batch).await?;
            for slot in slots {
                removed += answers.take(slot)?;
            }
        }
        Ok(removed)
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
        self.unlink(&self.driver, &self.keys_of(group, entities)?).await
    }

    /// A `SCAN` over 1000 keys of the database; a page may be empty before the end.
    ///
    /// On a cluster it needs [`with_nodes`](Self::with_nodes).
    async fn entities(&self, group: &Group, from: Option<&str>) -> Result<EntityPage> {
        let (node, cursor) = match from {
            None => (0, "0"),
            Some(from) => from
                .split_once(':')
                .and_then(|(node, cursor)| Some((node.parse::<usize>().ok()?, cursor)))
                .ok_or_else(|| {
                    Error::invalid("a page of entities", "it begins at no place that a page named")
                })?,
        };
        let Some(driver) = self.nodes.get(node) else { return Ok(EntityPage::default()) };
        let around = keys::around(&self.namespace, group, group.label_str());
        let (next, found) = scan(driver, &around, cursor).await?;
        let keys = group.keys().len();
        let entities = found.iter().filter_map(|key| keys::entity(key, &around, keys)).collect();
        let next = match next.as_str() {
            "0" => (node + 1 < self.nodes.len()).then(|| format!("{}:0", node + 1)),
            _ => Some(format!("{node}:{next}")),
        };
        Ok(EntityPage::new(entities, next))
    }

    /// One `DEL` of the definitions, then a `SCAN` over the database and pipelines of `UNLINK`.
    ///
    /// On a cluster it needs [`with_nodes`](Self::with_nodes).
    async fn drop_group(&self, group: &Group) -> Result<u64> {
        let definitions =
            keys::definitions(&self.namespace, group.entity_type(), group.label_str());
        self.driver.query::<u64>(Cmd::new("DEL").key(definitions).idempotent()).await?;
        let mut removed = 0;
        let mut next = Some(String::new());
        while let Some(from) = next {
            let page =
                self.entities(group, Some(from.as_str()).filter(|from| !from.is_empty())).await?;
            removed += self.unlink(&self.driver, &self.keys_of(group, &page.entities)?).await?;
            next = page.next;
        }
        Ok(removed)
    }
}

async fn scan(
    driver: &DynDriver,
    (before, behind): &(String, String),
    cursor: &str,
) -> Result<(String, Vec<String>)> {
    let cmd = Cmd::new("SCAN").arg(cursor).arg("MATCH").arg(format!("{before}*{behind}"));
    Ok(driver.query(cmd.arg("COUNT").arg(PAGE).readonly()).await?)
}
