use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::link::{Live, open};
use super::{Node, Pool, Way};
use crate::driver::redis::{one_slot, pipeline_on, read, timed_out, to_redis};
use crate::{Batch, Cmd, Driver, DynDriver, Reply, Result};

/// A connection that one caller has to itself, for commands that wait at the server.
///
/// After an error it is opened anew by the next call, at the node that then holds the command's key.
pub(super) struct Dedicated {
    pool: Pool,
    // Held across a call: the connection serves one at a time.
    open: tokio::sync::Mutex<Option<(Arc<Node>, Live)>>,
}

impl Dedicated {
    pub(super) async fn open(pool: Pool) -> Result<DynDriver> {
        let dedicated = Self { pool, open: tokio::sync::Mutex::new(None) };
        // A cluster's node is known with the first key.
        if let Way::One(node) = &dedicated.pool.0.way {
            let live = open(&dedicated.pool.0.config, &node.address).await?;
            *dedicated.open.lock().await = Some((Arc::clone(node), live));
        }
        Ok(Arc::new(dedicated))
    }

    async fn exchange<T, F>(
        &self,
        cmds: &[Cmd],
        slot: Option<u16>,
        send: impl FnOnce(Live) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let config = &self.pool.0.config;
        let mut place = self.open.lock().await;
        let node = match &self.pool.0.way {
            Way::One(node) => Arc::clone(node),
            Way::Cluster(topology) => topology.node(config, slot).await?,
        };
        let live = match place.take() {
            Some((at, live)) if Arc::ptr_eq(&at, &node) => live,
            _ => open(config, &node.address).await?,
        };
        let for_ever = cmds.iter().any(|cmd| cmd.blocking_for() == Some(Duration::ZERO));
        let outcome = if for_ever {
            send(live.clone()).await
        } else {
            let wait: Duration = cmds.iter().filter_map(Cmd::blocking_for).sum();
            let limit = wait.saturating_add(config.timeout);
            tokio::time::timeout(limit, send(live.clone()))
                .await
                .unwrap_or_else(|_| Err(timed_out(cmds)))
        };
        match &outcome {
            // Also when this future is dropped the connection is gone: what it still waits for would come to others.
            Err(error) if error.is_transient() => {
                if let Way::Cluster(topology) = &self.pool.0.way {
                    topology.doubt();
                }
            }
            _ => *place = Some((node, live)),
        }
        outcome
    }
}

#[async_trait]
impl Driver for Dedicated {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        let cmds = std::slice::from_ref(&cmd);
        self.exchange(cmds, cmd.slot(), |mut live| {
            let request = to_redis(&cmd);
            let cmd = &cmd;
            async move { read(cmd, live.connection.send_packed_command(&request).await) }
        })
        .await
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        let cmds = batch.cmds();
        let slot = match &self.pool.0.way {
            // One connection leads to one node.
            Way::Cluster(_) => one_slot(cmds)?,
            Way::One(_) => None,
        };
        let atomic = batch.is_atomic();
        self.exchange(cmds, slot, |mut live| async move {
            pipeline_on(&mut live.connection, cmds, atomic).await
        })
        .await
    }
}

impl fmt::Debug for Dedicated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dedicated").field(&self.pool).finish()
    }
}
