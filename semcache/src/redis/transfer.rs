use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use inferkit_core::keys::KeyBuilder;
use inferkit_core::{Batch, Cmd, DriverExt as _};
use inferkit_embcache::Embedder as _;
use inferkit_vectorsearch::Vector;

use super::RedisSemanticCache;
use super::write::Draft;
use crate::entry::{
    ANSWER_FIELDS, EMBEDDING, FORMAT_VERSION, LABEL_SEPARATOR, LABELS, MODEL, PROMPT, Stored,
    number,
};
use crate::transfer::Fields;
use crate::{Answer, Cursor, EntryId, Error, Record, Result};

/// How many keys the server looks at for one page.
const PAGE: usize = 256;

impl RedisSemanticCache {
    pub(super) async fn read_records(
        &self,
        from: Option<Cursor>,
    ) -> Result<(Vec<Record>, Option<Cursor>)> {
        let prefix = self.config.namespace.family("cache").prefix();
        // A namespace holds no character that is special in a pattern.
        let scan = Cmd::new("SCAN")
            .arg(from.as_ref().map_or("0", Cursor::as_str))
            .arg("MATCH")
            .arg(format!("{prefix}*"))
            .arg("COUNT")
            .arg(PAGE)
            .args(["TYPE", "hash"])
            .readonly();
        let (next, keys): (String, Vec<Bytes>) = self.driver.query(scan).await?;
        let next = (next != "0").then(|| Cursor::new(next));
        let places = keys.iter().filter_map(|key| place(key, &prefix)).collect::<Vec<_>>();
        let mut batch = Batch::new();
        let mut epochs = BTreeMap::new();
        let mut slots = Vec::with_capacity(places.len());
        for (tenant, id) in &places {
            let keys = KeyBuilder::after(&prefix).part(tenant);
            let epoch = keys.clone().literal("epoch").build();
            epochs.entry(tenant.as_str()).or_insert_with(|| {
                batch.push::<Option<Bytes>>(Cmd::new("GET").key(epoch).readonly())
            });
            let key = keys.hex(&id.0).build();
            let read = Cmd::new("HMGET").key(&key).args(ANSWER_FIELDS);
            let read = read.args([PROMPT, MODEL, LABELS, EMBEDDING]).readonly();
            let left = Cmd::new("PTTL").key(&key).readonly();
            slots.push((batch.push::<Vec<Option<Bytes>>>(read), batch.push::<i64>(left)));
        }
        let mut answers = self.driver.run(batch).await?;
        let mut current: BTreeMap<&str, Bytes> = BTreeMap::new();
        for (tenant, slot) in epochs {
            current.extend(answers.take(slot)?.map(|epoch| (tenant, epoch)));
        }
        let mut records = Vec::with_capacity(places.len());
        for ((tenant, id), (fields, left)) in places.iter().zip(slots) {
            let (fields, left) = (answers.take(fields)?, answers.take(left)?);
            let epoch = current.get(tenant.as_str());
            let (Some(epoch), Ok(left @ 1..)) = (epoch, u64::try_from(left)) else { continue };
            records.extend(self.record(tenant, id, fields, epoch, Duration::from_millis(left))?);
        }
        Ok((records, next))
    }

    /// The record of an entry that is whole and valid.
    fn record(
        &self,
        tenant: &str,
        id: &EntryId,
        fields: Vec<Option<Bytes>>,
        epoch: &Bytes,
        ttl: Duration,
    ) -> Result<Option<Record>> {
        let mut fields = fields.into_iter();
        let mut next = || fields.next().flatten();
        let stored = Stored::read(&mut next);
        let mut text = || String::from_utf8(next()?.into()).ok();
        let (Some(prompt), Some(model), Some(labels)) = (text(), text(), text()) else {
            return Ok(None);
        };
        let vector = next().map(|bytes| self.config.data_type.decode(&bytes));
        let Ok(vector) = vector.transpose() else { return Ok(None) };
        let scope = stored.scope.as_deref().and_then(|scope| str::from_utf8(scope).ok());
        let scope = scope.and_then(|scope| scope.strip_suffix(str::from_utf8(epoch).ok()?));
        let Some(scope) = scope.map(ToOwned::to_owned) else { return Ok(None) };
        let version: Option<u32> = number(stored.version.as_ref());
        let stored_at: Option<u64> = number(stored.timestamp.as_ref());
        let (Some(FORMAT_VERSION), Some(stored_at), Some(response)) =
            (version, stored_at, stored.response)
        else {
            return Ok(None);
        };
        let Some(response) = crate::encoding::decode(response, stored.encoding.as_deref())? else {
            return Ok(None);
        };
        let Some(finish) = crate::entry::finish(stored.finish.as_ref()) else { return Ok(None) };
        let Ok(answer) = Answer::new(response) else { return Ok(None) };
        let counts = [stored.tokens_used, stored.completion_tokens];
        let [tokens_used, completion] = counts.map(|count| number(count.as_ref()));
        let fields = Fields {
            scope,
            model,
            labels: labels.split(LABEL_SEPARATOR).map(ToOwned::to_owned).collect(),
            prompt,
            stored_at: Duration::from_secs(stored_at),
            ttl,
        };
        let answer = answer.with_counts(tokens_used, completion).with_finish(finish);
        let record = Record::of_fields(tenant, id, fields, &answer, vector.as_ref());
        Ok(record.check(self.embedder.dimensions()).is_ok().then_some(record))
    }

    pub(super) async fn write_records(&self, records: &[Record]) -> Result<u64> {
        let dimensions = self.embedder.dimensions();
        let mut parts: Vec<(EntryId, Answer, Option<Vector>)> = Vec::with_capacity(records.len());
        for (index, record) in records.iter().enumerate() {
            record.check(dimensions).map_err(|problem| Error::record(index + 1, problem))?;
            parts.push((record.id()?, record.answer()?, record.vector().transpose()?));
        }
        let drafts = records.iter().zip(&parts).map(|(record, (id, answer, vector))| {
            let keys = self.config.namespace.family("cache").part(record.tenant());
            let labels: Vec<&str> = record.labels().iter().map(String::as_str).collect();
            Draft {
                key: keys.clone().hex(&id.0).build(),
                epoch_key: keys.literal("epoch").build(),
                ttl_millis: u64::try_from(record.ttl().as_millis()).unwrap_or(u64::MAX),
                epoch: "".into(),
                fence: 0,
                stored_at: Some(record.stored_at().as_secs()),
                scope: record.scope().to_owned(),
                prompt: record.prompt(),
                model: record.model(),
                labels: labels.join(LABEL_SEPARATOR),
                response: answer.response(),
                tokens_used: answer.tokens_used(),
                completion_tokens: answer.completion_tokens(),
                finish: answer.finish(),
                vector: vector.as_ref(),
                kin: None,
            }
        });
        let written = self.write(drafts.collect()).await?;
        Ok(written.into_iter().filter(|reply| *reply == 1).count() as u64)
    }
}

/// The tenant's digest and the id in the key of an entry.
fn place(key: &[u8], prefix: &str) -> Option<(String, EntryId)> {
    let rest = str::from_utf8(key.strip_prefix(prefix.as_bytes())?).ok()?;
    let (tenant, id) = rest.split_once(':')?;
    // A digest of a tenant has the form of an id.
    tenant.parse::<EntryId>().ok()?;
    Some((tenant.to_owned(), id.parse().ok()?))
}
