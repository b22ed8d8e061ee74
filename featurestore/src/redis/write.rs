use inferkit_core::{Answers, Batch, Cmd, DriverExt as _, Script, Slot};

use super::RedisFeatureStore;
use crate::error::{Error, Result};
use crate::row::Row;
use crate::schema::{Group, Layout};
use crate::store::Written;
use crate::value::event_micros;
use crate::{packed, text};

static PUT: Script = Script::new(include_str!("../scripts/put.lua"));
static PUT_HASH: Script = Script::new(include_str!("../scripts/put_hash.lua"));

/// How many rows go to the server in one pipeline.
const CHUNK: usize = 512;

/// A row that was checked, in the form that is stored.
enum Encoded {
    Packed(Vec<u8>),
    /// Fields and values, in turn.
    Hash(u64, Vec<Vec<u8>>),
}

impl RedisFeatureStore {
    pub(super) async fn write_guarded(&self, group: &Group, rows: &[Row]) -> Result<Written> {
        let encoded = encode(group, rows)?;
        let mut written = Written::default();
        for (rows, encoded) in rows.chunks(CHUNK).zip(encoded.chunks(CHUNK)) {
            let mut batch = Batch::new();
            let slots: Vec<Slot<i64>> = rows
                .iter()
                .zip(encoded)
                .map(|(row, encoded)| batch.push(self.guarded(group, row, encoded)))
                .collect();
            let mut answers: Answers = self.driver.run(batch).await?;
            for slot in slots {
                match answers.take(slot)? {
                    0 => written.older += 1,
                    _ => written.applied += 1,
                }
            }
        }
        Ok(written)
    }

    pub(super) async fn write_plain(&self, group: &Group, rows: &[Row]) -> Result<()> {
        let encoded = encode(group, rows)?;
        for (rows, encoded) in rows.chunks(CHUNK).zip(encoded.chunks(CHUNK)) {
            let mut batch = Batch::new();
            for (row, encoded) in rows.iter().zip(encoded) {
                self.push_plain(&mut batch, group, row, encoded);
            }
            for reply in self.driver.pipeline(batch).await? {
                reply?;
            }
        }
        Ok(())
    }

    fn guarded(&self, group: &Group, row: &Row, encoded: &Encoded) -> Cmd {
        let key = self.key(group, &row.entity);
        match encoded {
            Encoded::Packed(bytes) => {
                Cmd::eval(&PUT, &[key]).arg(bytes).arg(group.ttl_millis()).idempotent()
            }
            Encoded::Hash(at, fields) => {
                let cmd = Cmd::eval(&PUT_HASH, &[key]).arg(*at).arg(group.ttl_millis());
                cmd.args(fields).idempotent()
            }
        }
    }

    fn push_plain(&self, batch: &mut Batch, group: &Group, row: &Row, encoded: &Encoded) {
        let key = self.key(group, &row.entity);
        let millis = group.ttl_millis();
        match encoded {
            Encoded::Packed(bytes) => {
                let cmd = Cmd::with_capacity("SET", bytes.len() + 96).key(&key).arg(bytes);
                let cmd = if millis == 0 { cmd } else { cmd.arg("PX").arg(millis) };
                batch.push::<()>(cmd.idempotent());
            }
            Encoded::Hash(at, fields) => {
                batch.push::<u64>(Cmd::new("DEL").key(&key).idempotent());
                let cmd = Cmd::new("HSET").key(&key).arg(text::TIME).arg(*at);
                batch.push::<u64>(cmd.args(fields).idempotent());
                if millis != 0 {
                    batch.push::<u64>(Cmd::new("PEXPIRE").key(&key).arg(millis).idempotent());
                }
            }
        }
    }
}

/// Checks all rows, and brings them to the form that is stored.
fn encode(group: &Group, rows: &[Row]) -> Result<Vec<Encoded>> {
    let keys = group.keys().len();
    rows.iter()
        .map(|row| {
            row.entity.check(group.entity_type(), keys)?;
            let at = event_micros(row.at)?;
            Ok(match group.layout() {
                Layout::Packed => Encoded::Packed(packed::encode(group, at, &row.values)?),
                Layout::Hash => Encoded::Hash(at, fields(group, row)?),
            })
        })
        .collect()
}

fn fields(group: &Group, row: &Row) -> Result<Vec<Vec<u8>>> {
    let mut fields = Vec::with_capacity(2 * row.values.len());
    for (feature, value) in group.features().iter().zip(typed(group, &row.values)?) {
        let mut text = Vec::new();
        text::encode(&value, feature.data_type, &mut text);
        fields.push(feature.name.as_bytes().to_vec());
        fields.push(text);
    }
    Ok(fields)
}

/// The values of a row, each brought to the type of its feature.
pub(crate) fn typed(group: &Group, values: &[crate::Value]) -> Result<Vec<crate::Value>> {
    let features = group.features();
    if values.len() != features.len() {
        let (expected, got) = (features.len(), values.len());
        return Err(Error::RowLength { group: group.label(), expected, got });
    }
    let both = features.iter().zip(values);
    both.map(|(feature, value)| {
        value.of_type(feature.data_type).map_err(|got| Error::TypeMismatch {
            group: group.label(),
            feature: feature.name.clone(),
            expected: feature.data_type.to_string(),
            got,
        })
    })
    .collect()
}
