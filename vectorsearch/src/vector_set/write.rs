use bytes::Bytes;
use inferkit_core::{Batch, Cmd, DriverExt as _, Script};

use super::{RedisVectorSet, attributes, unsupported};
use crate::document::MAX_FIELDS;
use crate::redis::send;
use crate::{Affected, Bulk, Document, Error, Filter, Record, Result, Value, Vector};

static SET_ATTRIBUTES: Script = Script::new(include_str!("../scripts/set_attributes.lua"));

/// The documents that one `MULTI` reads: as many as do not hold up others.
const READ_AT_ONCE: usize = 100;

impl RedisVectorSet {
    #[tracing::instrument(name = "vectorsearch.put", level = "debug", skip_all, fields(documents = documents.len()), err(level = "debug"))]
    pub(super) async fn write(&self, documents: &[Document]) -> Result<()> {
        let cmds = documents.iter().map(|document| self.add_cmd(document));
        let cmds = cmds.collect::<Result<Vec<Cmd>>>()?;
        let added = send::<bool>(&self.driver, cmds).await;
        added.map(drop).map_err(|error| self.explain_chunks(error))
    }

    /// The command that writes a document in the place of an older one; its attributes, too.
    fn add_cmd(&self, document: &Document) -> Result<Cmd> {
        document.check()?;
        if document.ttl().is_some() {
            return unsupported(
                "the elements of a vector set do not expire",
                "leave with_ttl out and remove documents, or use RedisVectorIndex",
            );
        }
        let attributes = attributes::encode(&self.schema, document.fields())?;
        let vector = document.fields().find_map(|(name, value)| match value {
            Value::Vector(vector) if name == self.vector.name => Some(vector),
            _ => None,
        });
        let vector = vector.ok_or_else(|| Error::InvalidField {
            field: self.vector.name.clone(),
            problem: "is missing: every element of a vector set is a vector",
        })?;
        let capacity = 128 + 4 * vector.dimensions() + attributes.len();
        let mut cmd = Cmd::with_capacity("VADD", capacity).key(&self.key);
        if let Some(dimensions) = self.options.reduce {
            cmd = cmd.arg("REDUCE").arg(dimensions);
        }
        cmd = cmd.arg("FP32").arg(vector).arg(document.id());
        let cmd = self.options.append(self.vector.graph, cmd);
        Ok(cmd.arg("SETATTR").arg(attributes).idempotent())
    }

    pub(super) async fn read(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        let mut records = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_AT_ONCE) {
            let mut batch = Batch::atomic();
            let slots: Vec<_> = ids
                .iter()
                .map(|id| {
                    let attributes = Cmd::new("VGETATTR").key(&self.key).arg(id).readonly();
                    let vector = Cmd::new("VEMB").key(&self.key).arg(id).readonly();
                    (
                        batch.push::<Option<Bytes>>(attributes),
                        batch.push::<Option<Vec<f64>>>(vector),
                    )
                })
                .collect();
            let mut answers = self.driver.run(batch).await.map_err(|error| self.explain(error))?;
            for (id, (attributes, vector)) in ids.iter().zip(slots) {
                let attributes = answers.take(attributes).map_err(|error| self.explain(error))?;
                let vector = answers.take(vector).map_err(|error| self.explain(error))?;
                records.push(self.record(id, attributes, vector));
            }
        }
        Ok(records)
    }

    fn record(
        &self,
        id: &str,
        attributes: Option<Bytes>,
        vector: Option<Vec<f64>>,
    ) -> Option<Record> {
        let components = vector?;
        let fields = attributes::decode_fields(&self.schema, &attributes.unwrap_or_default(), None);
        let mut fields: Vec<(Bytes, Bytes)> =
            fields.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        // A projection is not what was put.
        if self.options.reduce.is_none() {
            #[expect(clippy::cast_possible_truncation, reason = "they are 32-bit floats")]
            let components: Vec<f32> =
                components.iter().map(|component| *component as f32).collect();
            // What others have put may have no direction.
            if let Ok(vector) = Vector::new(components) {
                let name = Bytes::copy_from_slice(self.vector.name.as_bytes());
                fields.push((name, vector.to_le_bytes().into()));
            }
        }
        Some(Record::new(self.key_of(id.as_bytes()), None, fields.into_iter().collect()))
    }

    pub(super) async fn remove(&self, elements: impl Iterator<Item = Bytes>) -> Result<u64> {
        let cmds = elements.map(|element| Cmd::new("VREM").key(&self.key).arg(element)).collect();
        let removed = send::<bool>(&self.driver, cmds).await;
        let removed = removed.map_err(|error| self.explain_chunks(error))?;
        Ok(removed.into_iter().filter(|removed| *removed).count() as u64)
    }

    #[tracing::instrument(
        name = "vectorsearch.remove_where",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub(super) async fn remove_matching(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        bulk.check(filter)?;
        let elements = self.matching(filter.to_expression(&self.schema)?.as_deref()).await?;
        let matched = elements.len() as u64;
        if bulk.is_dry_run() {
            return Ok(Affected::new(matched, 0));
        }
        Ok(Affected::new(matched, self.remove(elements.into_iter()).await?))
    }

    #[tracing::instrument(
        name = "vectorsearch.update_where",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub(super) async fn update_matching(
        &self,
        filter: &Filter,
        changes: &[(&str, Value)],
        bulk: Bulk,
    ) -> Result<Affected> {
        bulk.check(filter)?;
        if changes.is_empty() || MAX_FIELDS < changes.len() {
            let problem = "count none or too many: an update sets 1 to 3000 fields";
            return Err(Error::InvalidField { field: "*".to_owned(), problem });
        }
        let mut values = Vec::with_capacity(changes.len());
        for (name, value) in changes {
            match attributes::encode_value(&self.schema, name, value)? {
                Some(json) => values.push((*name, json)),
                None => {
                    return unsupported(
                        "an update of a vector set changes no vectors",
                        "put the documents again",
                    );
                }
            }
        }
        let mut pending = self.matching(filter.to_expression(&self.schema)?.as_deref()).await?;
        let matched = pending.len() as u64;
        let mut changed = 0;
        if bulk.is_dry_run() {
            return Ok(Affected::new(matched, 0));
        }
        // Each round that leaves some over is one in which others wrote them.
        while !pending.is_empty() {
            let (done, left) = self.replace_attributes(pending, &values).await?;
            changed += done;
            pending = left;
        }
        Ok(Affected::new(matched, changed))
    }

    /// Changes the attributes of elements that nobody else changes meanwhile; returns how many, and the others that are
    /// still there.
    async fn replace_attributes(
        &self,
        elements: Vec<Bytes>,
        values: &[(&str, String)],
    ) -> Result<(u64, Vec<Bytes>)> {
        let read = |element: &Bytes| Cmd::new("VGETATTR").key(&self.key).arg(element).readonly();
        let stored = send::<Option<Bytes>>(&self.driver, elements.iter().map(read).collect()).await;
        let stored = stored.map_err(|error| self.explain_chunks(error))?;
        let present: Vec<(Bytes, Bytes)> =
            elements.into_iter().zip(stored).filter_map(|(e, stored)| Some((e, stored?))).collect();
        let write = |(element, stored): &(Bytes, Bytes)| {
            let new = attributes::change(stored, values);
            Cmd::eval(&SET_ATTRIBUTES, &[&self.key]).arg(element).arg(stored).arg(new)
        };
        let replaced = send::<bool>(&self.driver, present.iter().map(write).collect()).await;
        let replaced = replaced.map_err(|error| self.explain_chunks(error))?;
        let done = replaced.iter().filter(|replaced| **replaced).count() as u64;
        let left = present.into_iter().zip(replaced).filter(|(_, replaced)| !replaced);
        Ok((done, left.map(|((element, _), _)| element).collect()))
    }
}
