use futures_util::future::join;
use inferkit_core::{Batch, Cmd, DriverExt as _, FromReply as _, Reply, Script};

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

impl RedisFeatureStore {
    pub(super) async fn write_guarded(&self, group: &Group, rows: &[Row]) -> Result<Written> {
        let push = |batch: &mut Batch, row: &Row| self.push_guarded(batch, group, row);
        let mut written = Written::default();
        let count = |reply: Reply| {
            match i64::from_reply(reply)? {
                0 => written.older += 1,
                _ => written.applied += 1,
            }
            Ok(())
        };
        self.send(group, rows, push, count).await?;
        Ok(written)
    }

    pub(super) async fn write_plain(&self, group: &Group, rows: &[Row]) -> Result<()> {
        let push = |batch: &mut Batch, row: &Row| self.push_plain(batch, group, row);
        self.send(group, rows, push, |_| Ok(())).await
    }

    /// Checks all rows, then sends them in pipelines; while the server works on one, the next is encoded.
    async fn send(
        &self,
        group: &Group,
        rows: &[Row],
        push: impl Fn(&mut Batch, &Row) -> Result<()> + Send + Sync,
        mut take: impl FnMut(Reply) -> Result<()> + Send,
    ) -> Result<()> {
        for row in rows {
            row.check(group)?;
        }
        let encode = |rows: Option<&[Row]>| {
            let mut batch = Batch::new();
            for row in rows.unwrap_or_default() {
                push(&mut batch, row)?;
            }
            Ok::<_, Error>(batch)
        };
        let mut chunks = rows.chunks(CHUNK);
        let mut batch = encode(chunks.next())?;
        while !batch.is_empty() {
            let next = async { encode(chunks.next()) };
            let (answers, next) = join(self.driver.run(batch), next).await;
            for reply in answers?.into_replies() {
                take(reply?)?;
            }
            batch = next?;
        }
        Ok(())
    }

    fn push_guarded(&self, batch: &mut Batch, group: &Group, row: &Row) -> Result<()> {
        let key = self.key(group, &row.entity);
        let at = event_micros(row.at)?;
        let cmd = match group.layout() {
            Layout::Packed => {
                let cmd = Cmd::eval(&PUT, &[key]).arg(packed::encode(group, at, &row.values)?);
                cmd.arg(group.ttl_millis())
            }
            Layout::Hash => {
                let cmd = Cmd::eval(&PUT_HASH, &[key]).arg(at).arg(group.ttl_millis());
                cmd.args(fields(group, row)?)
            }
        };
        batch.push::<Reply>(cmd.idempotent());
        Ok(())
    }

    fn push_plain(&self, batch: &mut Batch, group: &Group, row: &Row) -> Result<()> {
        let key = self.key(group, &row.entity);
        let at = event_micros(row.at)?;
        let millis = group.ttl_millis();
        match group.layout() {
            Layout::Packed => {
                let bytes = packed::encode(group, at, &row.values)?;
                let cmd = Cmd::with_capacity("SET", bytes.len() + 96).key(&key).arg(bytes);
                let cmd = if millis == 0 { cmd } else { cmd.arg("PX").arg(millis) };
                batch.push::<Reply>(cmd.idempotent());
            }
            Layout::Hash => {
                batch.push::<Reply>(Cmd::new("DEL").key(&key).idempotent());
                let cmd = Cmd::new("HSET").key(&key).arg(text::TIME).arg(at);
                batch.push::<Reply>(cmd.args(fields(group, row)?).idempotent());
                if millis != 0 {
                    batch.push::<Reply>(Cmd::new("PEXPIRE").key(&key).arg(millis).idempotent());
                }
            }
        }
        Ok(())
    }
}

fn fields(group: &Group, row: &Row) -> Result<Vec<Vec<u8>>> {
    let mut fields = Vec::with_capacity(2 * row.values.len());
    for (feature, value) in group.features().iter().zip(row.typed(group)?) {
        let mut text = Vec::new();
        text::encode(&value, feature.data_type, &mut text);
        fields.push(feature.name.as_bytes().to_vec());
        fields.push(text);
    }
    Ok(fields)
}
