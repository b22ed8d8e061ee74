use futures_util::{StreamExt as _, stream};
use inferkit_core::{
    Batch, Cmd, Driver as _, DriverExt as _, DynDriver, ErrorKind, FromReply, Script,
};

use super::RedisVectorIndex;
use crate::document::key;
use crate::{Document, Error, Fields, Record, Result};

static PUT: Script = Script::new(include_str!("../scripts/put.lua"));

/// The documents of one `MULTI`: fewer calls into Lua than a script each, and short enough not to hold others up.
const TRANSACTION: usize = 16;
/// The transactions under way: while the server works on one, the next are on their way.
const TRANSACTIONS_AHEAD: usize = 8;
/// A chunk ends with the command that reaches this size.
const CHUNK_BYTES: usize = 256 * 1024;
const CHUNK_COMMANDS: usize = 1_000;
/// The chunks under way: while the server works on one, the next is on its way.
const CHUNKS_AHEAD: usize = 2;

impl RedisVectorIndex {
    #[tracing::instrument(name = "vectorsearch.put", level = "debug", skip_all, fields(documents = documents.len()), err(level = "debug"))]
    pub(super) async fn write(&self, documents: &[Document]) -> Result<()> {
        let scripts = || documents.iter().map(|document| document.to_put_cmd(&self.schema, &PUT));
        if documents.len() <= 1 {
            return self.send::<u64>(scripts().collect::<Result<_>>()?).await.map(drop);
        }
        let mut transactions = Vec::with_capacity(documents.len() / TRANSACTION + 1);
        for documents in documents.chunks(TRANSACTION) {
            let mut batch = Batch::atomic();
            for document in documents {
                document.append_put(&self.schema, &mut batch)?;
            }
            transactions.push((documents.len(), batch));
        }
        match self.transact(transactions).await {
            // On a cluster the documents lie in several slots; those of the first transactions may share one by chance.
            Err(Error::Incomplete { source, .. }) if source.kind() == ErrorKind::CrossSlot => {
                self.send::<u64>(scripts().collect::<Result<_>>()?).await.map(drop)
            }
            outcome => outcome,
        }
    }

    /// Sends transactions, of so many documents each, several at a time and in order.
    async fn transact(&self, transactions: Vec<(usize, Batch)>) -> Result<()> {
        let total = transactions.iter().map(|(documents, _)| documents).sum();
        let mut sent = stream::iter(transactions)
            .map(|(documents, batch)| async move {
                let replies = self.driver.pipeline(batch).await?;
                replies.into_iter().find_map(inferkit_core::Result::err).map_or(Ok(documents), Err)
            })
            .buffered(TRANSACTIONS_AHEAD);
        let mut done = 0;
        while let Some(outcome) = sent.next().await {
            match outcome {
                Ok(documents) => done += documents,
                Err(source) => return Err(Error::Incomplete { done, total, source }),
            }
        }
        Ok(())
    }

    pub(super) async fn read(&self, ids: &[&str]) -> Result<Vec<Option<Record>>> {
        let keys: Vec<_> = ids.iter().map(|id| key(&self.schema, id)).collect();
        let cmds = keys.iter().map(|key| Cmd::new("HGETALL").key(key).readonly()).collect();
        let stored = self.send::<Fields>(cmds).await?;
        let records = keys.into_iter().zip(stored).map(|(key, fields)| {
            (!fields.is_empty()).then(|| Record::new(key.as_str().to_owned(), None, fields))
        });
        Ok(records.collect())
    }

    pub(super) async fn unlink(&self, ids: &[&str]) -> Result<u64> {
        self.unlink_keys(ids.iter().map(|id| key(&self.schema, id).as_str().to_owned().into()))
            .await
    }

    pub(super) async fn unlink_keys(
        &self,
        keys: impl Iterator<Item = bytes::Bytes>,
    ) -> Result<u64> {
        let cmds = keys.map(|key| Cmd::new("UNLINK").key(key)).collect();
        Ok(self.send::<u64>(cmds).await?.into_iter().sum())
    }

    pub(super) async fn send<T: FromReply + Send>(&self, cmds: Vec<Cmd>) -> Result<Vec<T>> {
        send(&self.driver, cmds).await
    }
}

/// Sends commands in chunks, and returns their answers in order, or the first failure.
pub(crate) async fn send<T: FromReply + Send>(
    driver: &DynDriver,
    cmds: Vec<Cmd>,
) -> Result<Vec<T>> {
    let total = cmds.len();
    let chunks = chunks(cmds).into_iter().map(|cmds| send_chunk::<T>(driver, cmds));
    let mut chunks = stream::iter(chunks).buffered(CHUNKS_AHEAD);
    let mut answers = Vec::with_capacity(total);
    let mut failure = None;
    while let (Some(chunk), None) = (chunks.next().await, &failure) {
        for answer in chunk {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
    }
    match failure {
        None => Ok(answers),
        Some(source) if 1 < total => Err(Error::Incomplete { done: answers.len(), total, source }),
        Some(source) => Err(Error::Backend(source)),
    }
}

async fn send_chunk<T: FromReply>(
    driver: &DynDriver,
    cmds: Vec<Cmd>,
) -> Vec<inferkit_core::Result<T>> {
    let mut batch = Batch::new();
    let slots: Vec<_> = cmds.into_iter().map(|cmd| batch.push::<T>(cmd)).collect();
    match driver.run(batch).await {
        Ok(mut answers) => slots.into_iter().map(|slot| answers.take(slot)).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// Parts commands into chunks that are sent as one pipeline each.
fn chunks(cmds: Vec<Cmd>) -> Vec<Vec<Cmd>> {
    let (mut chunks, mut chunk, mut bytes) = (Vec::new(), Vec::new(), 0);
    for cmd in cmds {
        bytes += cmd.size();
        chunk.push(cmd);
        if CHUNK_BYTES <= bytes || CHUNK_COMMANDS <= chunk.len() {
            chunks.push(std::mem::take(&mut chunk));
            bytes = 0;
        }
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_end_by_size_and_by_number() {
        let sizes = |cmds: Vec<Cmd>| chunks(cmds).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(sizes(Vec::new()), [0; 0]);
        assert_eq!(sizes(vec![Cmd::new("PING"); 2_001]), [1_000, 1_000, 1]);
        assert_eq!(sizes(vec![Cmd::new("SET").arg(vec![0_u8; CHUNK_BYTES / 2]); 5]), [2, 2, 1]);
    }
}
