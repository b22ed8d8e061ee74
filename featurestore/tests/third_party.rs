//! The public API suffices to write a store: this one keeps records, and passes the suite.

use std::time::SystemTime;

use async_trait::async_trait;
use inferkit_featurestore::{
    Entity, EntityPage, FeatureGroup, FeatureStore, Group, Matrix, MemoryFeatureStore, ModelInput,
    Record, Result, Row, Value, Written, feature_store_conformance,
};

/// It reads records one by one, as a store over another database would, and fills matrices from them.
#[derive(Debug, Default)]
struct Records(MemoryFeatureStore);

#[async_trait]
impl FeatureStore for Records {
    async fn register(&self, group: &FeatureGroup) -> Result<Group> {
        let group = self.0.register(group).await?;
        Ok(Group::new((*group).clone(), group.version(), group.lineage()))
    }

    async fn definition(
        &self,
        entity_type: &str,
        group: &str,
        generation: u16,
    ) -> Result<Option<FeatureGroup>> {
        self.0.definition(entity_type, group, generation).await
    }

    async fn write(&self, group: &Group, rows: &[Row]) -> Result<Written> {
        let written = self.0.write(group, rows).await?;
        Ok(Written::new(written.applied, written.older))
    }

    async fn write_unguarded(&self, group: &Group, rows: &[Row]) -> Result<()> {
        self.0.write_unguarded(group, rows).await
    }

    async fn read_into(
        &self,
        input: &ModelInput,
        entities: &[Entity],
        matrix: &mut Matrix,
    ) -> Result<()> {
        let find = |group: &Group, entity: &Entity| {
            let records = self.0.records(group, std::slice::from_ref(entity));
            // Memory never waits.
            let record = futures_util::FutureExt::now_or_never(records).transpose()?;
            let record = record.and_then(|records| records.into_iter().next()).flatten();
            Ok(record.map(|record| {
                let values = record.iter().map(|(name, value)| (name.to_owned(), value.cloned()));
                Record::new(record.at(), values.collect())
            }))
        };
        matrix.fill(input, entities, SystemTime::now(), find)
    }

    async fn records(&self, group: &Group, entities: &[Entity]) -> Result<Vec<Option<Record>>> {
        self.0.records(group, entities).await
    }

    async fn increment(
        &self,
        group: &Group,
        entity: &Entity,
        feature: &str,
        by: &Value,
        at: SystemTime,
    ) -> Result<Value> {
        self.0.increment(group, entity, feature, by, at).await
    }

    async fn remove(&self, group: &Group, entities: &[Entity]) -> Result<u64> {
        self.0.remove(group, entities).await
    }

    async fn entities(&self, group: &Group, from: Option<&str>) -> Result<EntityPage> {
        let page = self.0.entities(group, from).await?;
        Ok(EntityPage::new(page.entities, page.next))
    }

    async fn drop_group(&self, group: &Group) -> Result<u64> {
        self.0.drop_group(group).await
    }
}

async fn make() -> Records {
    Records::default()
}

feature_store_conformance!(make);
