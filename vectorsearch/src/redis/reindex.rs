use std::sync::Arc;
use std::time::Duration;

use inferkit_core::{Batch, Cmd, DriverExt as _};

use super::RedisVectorIndex;
use crate::{Error, IndexInfo, Result, Schema};

/// How long the counts of the two indexes are compared again, since documents may expire or be removed meanwhile.
const COMPARE_PAUSE: Duration = Duration::from_millis(50);
const COMPARISONS: usize = 20;

impl RedisVectorIndex {
    /// Replaces the index behind the alias by one of the schema `next`, while searches go on.
    ///
    /// The new index is made and filled from the stored documents (`progress` sees how far it is), its number of
    /// documents is compared with that of the index in use, the alias is moved, and then the old index is dropped; its
    /// documents stay.
    /// Returns the index to use from now on; other processes go on searching by the alias.
    ///
    /// `next` needs a name of its own.
    /// It may add, drop or change fields over the same prefix, as long as the stored bytes of vectors fit; another
    /// dimension, data type or embedding model needs another prefix, filled before the call.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`] if this index has no alias, or `next` the name of the alias or of the index in use.
    /// [`Error::SchemaMismatch`] if an index of the new name exists and differs.
    /// [`Error::IndexingTimeout`] if filling takes longer than `timeout`: call it again, it goes on where it was.
    /// [`Error::EngineLacks`] if the engine has no aliases.
    /// [`Error::ReindexIncomplete`] if the new index holds fewer documents; it is dropped again.
    /// In all cases the alias and the old index are as before.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the new index, or after the move the old one, beside the one in use; calling it again
    /// finishes the first, and [`drop_index`](Self::drop_index) removes the other.
    #[tracing::instrument(
        name = "vectorsearch.reindex",
        level = "debug",
        skip_all,
        err(level = "debug")
    )]
    pub async fn reindex(
        &self,
        next: Schema,
        timeout: Duration,
        progress: impl FnMut(&IndexInfo) + Send,
    ) -> Result<Self> {
        let invalid = |name: &str, problem| {
            let name = name.to_owned();
            Error::InvalidName { what: "index", name, problem }
        };
        let Some(alias) = self.alias() else {
            let problem =
                "it has no alias to be moved: make it with RedisVectorIndex::behind_alias";
            return Err(invalid(self.schema.index(), problem));
        };
        let old = self.info().await?.name;
        if next.index() == old || next.index() == alias {
            return Err(invalid(next.index(), "the new index needs a name of its own"));
        }
        let fresh = Self::new(Arc::clone(&self.driver), next.clone());
        fresh.ensure_index().await?;
        fresh.wait_until_indexed_with(timeout, progress).await?;
        self.compare(&old, &fresh).await?;
        let move_alias = Cmd::new("FT.ALIASUPDATE").key(alias).arg(next.index()).idempotent();
        if let Err(error) = self.driver.query::<()>(move_alias).await {
            return Err(self.explain_alias(error).await);
        }
        // By its own name: a drop by the alias would follow it to the new index.
        Self::new(Arc::clone(&self.driver), self.schema.with_index(&old)?).drop_index().await?;
        Self::behind_alias(Arc::clone(&self.driver), next, alias)
    }

    /// Drops `fresh` again unless it holds as many documents as the index `old`.
    async fn compare(&self, old: &str, fresh: &Self) -> Result<()> {
        let info = |index: &str| Cmd::new("FT.INFO").key(index).readonly();
        for attempt in 1.. {
            let mut batch = Batch::new();
            let old = batch.push::<IndexInfo>(info(old));
            let new = batch.push::<IndexInfo>(info(fresh.schema.index()));
            let mut answers = self.driver.run(batch).await.map_err(|error| self.explain(error))?;
            let old = answers.take(old).map_err(|error| self.explain(error))?;
            let new = answers.take(new).map_err(|error| fresh.explain(error))?;
            if old.documents <= new.documents {
                break;
            }
            if COMPARISONS <= attempt {
                fresh.drop_index().await?;
                return Err(Error::ReindexIncomplete {
                    index: fresh.schema.index().to_owned(),
                    expected: old.documents,
                    got: new.documents,
                    failures: new.failures,
                });
            }
            tokio::time::sleep(COMPARE_PAUSE).await;
        }
        Ok(())
    }
}
