use std::sync::Arc;

use bytes::Bytes;
use inferkit_core::{Cmd, DriverExt as _, DynDriver};

use crate::error::{Error, Result};

/// What a `SCAN` goes through: one driver, or one for each primary of a cluster, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Nodes(Arc<[DynDriver]>);

impl Nodes {
    pub(crate) fn new(nodes: impl IntoIterator<Item = DynDriver>) -> Self {
        Self(nodes.into_iter().collect())
    }

    /// One `SCAN` with the arguments that `complete` adds, from where the last one ended; returns keys, and where the next
    /// one begins.
    pub(crate) async fn scan(
        &self,
        from: Option<&str>,
        complete: impl FnOnce(Cmd) -> Cmd,
    ) -> Result<(Vec<Bytes>, Option<String>)> {
        let (node, cursor) = match from {
            None => (0, "0"),
            Some(from) => from
                .split_once(':')
                .and_then(|(node, cursor)| Some((node.parse::<usize>().ok()?, cursor)))
                .ok_or_else(|| {
                    Error::invalid("a page of entities", "it begins at no place that a page named")
                })?,
        };
        let Some(driver) = self.0.get(node) else { return Ok((Vec::new(), None)) };
        let cmd = complete(Cmd::new("SCAN").arg(cursor)).readonly();
        let (next, keys): (String, Vec<Bytes>) = driver.query(cmd).await?;
        let next = match next.as_str() {
            "0" => (node + 1 < self.0.len()).then(|| format!("{}:0", node + 1)),
            _ => Some(format!("{node}:{next}")),
        };
        Ok((keys, next))
    }
}
