use std::collections::HashSet;

use bytes::Bytes;
use inferkit_core::{Cmd, DriverExt as _, FromReply as _, Reply, Script};

use super::RedisVectorIndex;
use crate::document::encode_field;
use crate::{Affected, Bulk, Error, Filter, Find, Result, Value};

static UPDATE: Script = Script::new(include_str!("../scripts/update.lua"));

/// The keys that the server hands out at a time.
const KEYS_AT_ONCE: usize = 1_000;
/// How long the server keeps a cursor that is not read, in milliseconds.
const CURSOR_MILLIS: u32 = 60_000;

/// What is stored beside what is indexed: the answer of [`RedisVectorIndex::verify`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// The number of hashes under the prefix of the index.
    pub stored: u64,
    /// The number of documents in the index.
    pub indexed: u64,
    /// How many writes left a document out of the index since the index was made.
    pub failures: u64,
    /// The last reason for such a failure, in the server's words.
    pub last_failure: Option<String>,
}

impl Verification {
    /// Tells whether every stored document is in the index.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stored <= self.indexed
    }
}

impl RedisVectorIndex {
    /// Compares what is stored with what is indexed, and reports the documents that the server could not index.
    ///
    /// It reads all key names of the database with `SCAN` (1000 at a time), and then asks `FT.INFO`: slow on a large
    /// database, and exact only while nothing is written.
    /// On a cluster it sees one node only.
    ///
    /// # Errors
    ///
    /// [`Error::IndexMissing`], [`Error::SearchUnavailable`] or [`Error::Backend`] if there is no answer.
    #[tracing::instrument(
        name = "vectorsearch.verify",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub async fn verify(&self) -> Result<Verification> {
        let pattern = glob(self.schema.prefix());
        // A key may come more than once.
        let mut keys: HashSet<Bytes> = HashSet::new();
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let scan = Cmd::new("SCAN").arg(&cursor).arg("MATCH").arg(&pattern);
            let scan = scan.args(["COUNT", "1000", "TYPE", "hash"]).readonly();
            let (next, found): (Bytes, Vec<Bytes>) = self.driver.query(scan).await?;
            keys.extend(found);
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        let info = self.info().await?;
        Ok(Verification {
            stored: keys.len() as u64,
            indexed: info.documents,
            failures: info.failures,
            last_failure: info.last_failure,
        })
    }

    #[tracing::instrument(
        name = "vectorsearch.remove_where",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub(super) async fn remove_matching(&self, filter: &Filter, bulk: Bulk) -> Result<Affected> {
        bulk.check(filter)?;
        if bulk.is_dry_run() {
            return Ok(Affected::new(self.count_matching(filter).await?, 0));
        }
        let keys = self.matching(filter).await?;
        let matched = keys.len() as u64;
        Ok(Affected::new(matched, self.unlink_keys(keys.into_iter()).await?))
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
        if changes.is_empty() || crate::document::MAX_FIELDS < changes.len() {
            let problem = "count none or too many: an update sets 1 to 3000 fields";
            return Err(Error::InvalidField { field: "*".to_owned(), problem });
        }
        let mut fields = Vec::with_capacity(2 * changes.len());
        for (name, value) in changes {
            fields.push(Bytes::copy_from_slice(name.as_bytes()));
            fields.push(encode_field(&self.schema, name, value)?.into_owned().into());
        }
        if bulk.is_dry_run() {
            return Ok(Affected::new(self.count_matching(filter).await?, 0));
        }
        let keys = self.matching(filter).await?;
        let matched = keys.len() as u64;
        let cmds = keys.into_iter().map(|key| Cmd::eval(&UPDATE, &[key]).args(&fields)).collect();
        Ok(Affected::new(matched, self.send::<u64>(cmds).await?.into_iter().sum()))
    }

    /// The keys of all documents that `filter` considers.
    async fn matching(&self, filter: &Filter) -> Result<HashSet<Bytes>> {
        let cmd = Find::keys_cmd(filter, &self.target, KEYS_AT_ONCE, CURSOR_MILLIS)?;
        let mut reply = self.driver.query(cmd).await;
        // The cursor may hand out a key twice.
        let mut keys = HashSet::new();
        loop {
            let (rows, cursor): (Reply, u64) = reply.map_err(|error| self.explain(error))?;
            collect_keys(rows, &mut keys)?;
            if cursor == 0 {
                return Ok(keys);
            }
            let read = Cmd::new("FT.CURSOR").arg("READ").key(self.target.index()).arg(cursor);
            reply = self.driver.query(read).await;
        }
    }
}

/// Reads the keys in a reply of `FT.AGGREGATE`, in RESP2 or RESP3.
fn collect_keys(reply: Reply, keys: &mut HashSet<Bytes>) -> Result<()> {
    let rows = match reply {
        Reply::Map(pairs) => {
            let results = pairs.into_iter().find(|(name, _)| name.as_bytes() == Some(b"results"));
            let Some((_, results)) = results else {
                return Err(Reply::Map(Vec::new()).unexpected("a map with results").into());
            };
            let rows = results.into_array()?.into_iter();
            rows.map(|row| {
                let row = row.into_pairs()?.into_iter();
                let fields = row.filter(|(name, _)| name.as_bytes() == Some(b"extra_attributes"));
                Ok(fields.map(|(_, fields)| fields).next().unwrap_or(Reply::Nil))
            })
            .collect::<inferkit_core::Result<Vec<_>>>()?
        }
        other => other.into_array()?.into_iter().skip(1).collect(),
    };
    // A document that expired meanwhile has no row, or an empty one.
    for row in rows.into_iter().filter(|row| !row.is_nil()) {
        for (name, value) in row.into_pairs()? {
            if name.as_bytes() == Some(b"__key") {
                keys.insert(Bytes::from_reply(value)?);
            }
        }
    }
    Ok(())
}

/// The pattern of all keys with a prefix, in which nothing is special.
fn glob(prefix: &str) -> String {
    let mut pattern = String::with_capacity(prefix.len() + 1);
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('*');
    pattern
}
