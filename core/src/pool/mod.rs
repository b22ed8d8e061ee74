//! The ready-made driver: few multiplexed connections per node, replaced when they break or go silent.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use crate::driver::layers::backoff;
use crate::driver::redis::{by_group, one_slot, pipeline_on, read, timed_out, to_redis};
use crate::driver::refuse_blocking;
use crate::{Batch, Cmd, Connect, Driver, DriverExt as _, DynDriver, Error, Reply, Result};

mod config;
mod dedicated;
mod link;
mod topology;

use config::Target;
pub use config::{PoolConfig, Protocol};
use link::{Address, Link};
use topology::Topology;

/// How often a call follows a cluster's redirections.
const REDIRECTIONS: u32 = 16;
/// The first pause before a cluster is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// A driver over redis-rs for a single server, a Sentinel-watched primary or a cluster.
///
/// Any number of tasks share a few multiplexed connections per node.
/// Connections open on first use; one that breaks is replaced by the next call, and one that goes silent (the peer is
/// gone without a word, half-open TCP) after [`PoolConfig::with_silent_after`] time-outs in a row.
/// [`Pool::watch`] finds silent connections while no call is waiting.
///
/// A call ends within [`PoolConfig::with_timeout`], connecting included, or twice that when a connection that was
/// thought to be good turns out not to be.
/// The pool repeats a command only where the server is known not to have run it: a cluster's redirections, a cluster
/// that is failing over, a connection that could not be opened.
/// For more, wrap it in [`Retried`](crate::Retried).
///
/// A pool belongs to the runtime that first used it.
///
/// # Examples
///
/// ```no_run
/// use inferkit_core::{Cmd, DriverExt as _, Pool};
///
/// # async fn example() -> inferkit_core::Result<()> {
/// let pool = Pool::connect("redis://127.0.0.1:6379").await?;
/// let name: Option<String> = pool.query(Cmd::new("GET").key("name").readonly()).await?;
/// # let _ = name;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    config: PoolConfig,
    way: Way,
}

enum Way {
    Cluster(Topology),
    One(Arc<Node>),
}

/// A server and the connections to it.
pub(crate) struct Node {
    name: String,
    address: Address,
    links: Vec<Link>,
    next: AtomicUsize,
}

impl Node {
    fn new(name: String, address: Address, connections: usize) -> Self {
        let links = (0..connections).map(|_| Link::new()).collect();
        Self { name, address, links, next: AtomicUsize::new(0) }
    }

    /// Runs `send` on one of the node's connections, opening it if need be.
    async fn exchange<T, F>(
        &self,
        config: &PoolConfig,
        send: impl Fn(MultiplexedConnection) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let turn = match self.links.len() {
            1 => 0,
            links => self.next.fetch_add(1, Ordering::Relaxed) % links,
        };
        let Some(link) = self.links.get(turn) else {
            return Err(timed_out(&[]));
        };
        if let Some(live) = link.live() {
            let outcome = send(live.connection.clone()).await;
            link.judge(&live, &outcome, config.silent_after);
            return outcome;
        }
        let live = link.dial(config, &self.address);
        let live = timeout(config.timeout, live).await.unwrap_or_else(|_| {
            Err(timed_out(&[]).with("server", self.name.as_str()).with_maybe_applied(false))
        })?;
        let outcome = send(live.connection.clone()).await;
        link.judge(&live, &outcome, config.silent_after);
        outcome
    }

    async fn call(&self, config: &PoolConfig, cmd: &Cmd, asking: bool) -> Result<Reply> {
        if asking {
            let cmds = [Cmd::new("ASKING"), cmd.clone()];
            let replies = self.pipeline(config, &cmds, false).await?;
            let lost = || Err(Error::new(crate::ErrorKind::Reply, "the server left out a reply"));
            return replies.into_iter().nth(1).unwrap_or_else(lost);
        }
        let request = &to_redis(cmd);
        self.exchange(config, |mut connection| async move {
            read(cmd, connection.send_packed_command(request).await)
        })
        .await
    }

    async fn pipeline(
        &self,
        config: &PoolConfig,
        cmds: &[Cmd],
        atomic: bool,
    ) -> Result<Vec<Result<Reply>>> {
        self.exchange(config, |mut connection| async move {
            pipeline_on(&mut connection, cmds, atomic).await
        })
        .await
    }
}

impl Pool {
    /// Makes a pool without connecting.
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        let way = match &config.target {
            Target::Cluster(seeds) => Way::Cluster(Topology::new(seeds.clone())),
            Target::Sentinel { primary, .. } => {
                Way::One(Arc::new(Node::new(primary.clone(), Address::Primary, config.connections)))
            }
            Target::Single(info) => Way::One(Arc::new(Node::new(
                info.addr().to_string(),
                Address::Node(info.clone()),
                config.connections,
            ))),
        };
        Self(Arc::new(Inner { config, way }))
    }

    /// Makes a pool for the single server at `url` and checks that it answers.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the URL cannot be read; otherwise as [`Driver::call`].
    pub async fn connect(url: &str) -> Result<Self> {
        Self::connect_with(PoolConfig::single(url)?).await
    }

    /// Makes a pool and checks that the server answers.
    ///
    /// # Errors
    ///
    /// As [`Driver::call`].
    pub async fn connect_with(config: PoolConfig) -> Result<Self> {
        let pool = Self::new(config);
        pool.query::<()>(Cmd::new("PING").readonly()).await?;
        Ok(pool)
    }

    /// Returns the pool as a driver that any crate of the family takes.
    #[must_use]
    pub fn into_driver(self) -> DynDriver {
        Arc::new(self)
    }

    /// Asks over every open connection, once per time limit, whether the server is still there.
    ///
    /// Without it a silent connection is found by the calls that time out on it.
    /// The future never ends: spawn it, and abort the task to stop.
    pub async fn watch(&self) {
        loop {
            sleep(self.0.config.timeout).await;
            let nodes = match &self.0.way {
                Way::Cluster(topology) => topology.nodes(),
                Way::One(node) => vec![Arc::clone(node)],
            };
            for node in nodes {
                for link in &node.links {
                    let Some(live) = link.live() else { continue };
                    let ping = Cmd::new("PING").readonly();
                    let mut connection = live.connection.clone();
                    let reply = read(&ping, connection.send_packed_command(&to_redis(&ping)).await);
                    link.judge(&live, &reply, self.0.config.silent_after);
                }
            }
        }
    }

    /// Follows redirections and waits out a failover, until the time is up.
    async fn redirected(&self, topology: &Topology, cmd: &Cmd, first: Error) -> Result<Reply> {
        let config = &self.0.config;
        let mut error = first;
        let mut attempt = 0;
        let within = timeout(config.timeout, async {
            while attempt < REDIRECTIONS && is_refused(&error) {
                attempt += 1;
                let (node, asking) =
                    topology.next_node(config, cmd.slot(), &error, attempt).await?;
                match node.call(config, cmd, asking).await {
                    Ok(reply) => return Ok(reply),
                    Err(next) => error = next,
                }
            }
            Err(error.duplicate())
        });
        match within.await {
            Ok(outcome) => outcome,
            Err(_) => Err(error.with("waited", format!("{:?}", config.timeout))),
        }
    }
}

/// Whether the server is known not to have run the command, and may run it soon or elsewhere.
fn is_refused(error: &Error) -> bool {
    error.is_transient() && !error.maybe_applied()
}

#[async_trait]
impl Driver for Pool {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        refuse_blocking(std::slice::from_ref(&cmd))?;
        let config = &self.0.config;
        let topology = match &self.0.way {
            Way::One(node) => return node.call(config, &cmd, false).await,
            Way::Cluster(topology) => topology,
        };
        let node = topology.node(config, cmd.slot()).await?;
        match node.call(config, &cmd, false).await {
            Err(error) if is_refused(&error) => self.redirected(topology, &cmd, error).await,
            Err(error) => {
                if error.is_transient() {
                    topology.doubt();
                }
                Err(error)
            }
            ok => ok,
        }
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        refuse_blocking(batch.cmds())?;
        let config = &self.0.config;
        let topology = match &self.0.way {
            Way::One(node) => {
                return node.pipeline(config, batch.cmds(), batch.is_atomic()).await;
            }
            Way::Cluster(topology) => topology,
        };
        if batch.is_atomic() {
            let slot = one_slot(batch.cmds())?;
            let mut node = topology.node(config, slot).await?;
            for attempt in 1.. {
                match node.pipeline(config, batch.cmds(), true).await {
                    Err(error) if is_refused(&error) && attempt < REDIRECTIONS => {
                        let next = topology.next_node(config, slot, &error, attempt);
                        node = match timeout(config.timeout, next).await {
                            // A slot on the move takes no transaction before it has arrived.
                            Ok(Ok((_, true))) => topology.node(config, slot).await?,
                            Ok(next) => next?.0,
                            Err(_) => return Err(error),
                        };
                    }
                    other => {
                        if other.as_ref().is_err_and(Error::is_transient) {
                            topology.doubt();
                        }
                        return other;
                    }
                }
            }
        }
        topology.node(config, None).await?;
        let cmds = batch.into_cmds();
        let mut replies = by_group(
            cmds.clone(),
            |cmd| cmd.slot().and_then(|slot| topology.name(slot)),
            |cmds| async move {
                let slot = cmds.iter().find_map(Cmd::slot);
                topology.node(config, slot).await?.pipeline(config, &cmds, false).await
            },
        )
        .await?;
        for (cmd, reply) in cmds.iter().zip(&mut replies) {
            if let Err(error) = reply
                && is_refused(error)
            {
                let error = error.duplicate();
                *reply = self.redirected(topology, cmd, error).await;
            } else if reply.as_ref().is_err_and(Error::is_transient) {
                topology.doubt();
            }
        }
        Ok(replies)
    }
}

#[async_trait]
impl Connect for Pool {
    async fn connect(&self) -> Result<DynDriver> {
        dedicated::Dedicated::open(self.clone()).await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.0.config).finish()
    }
}

/// Waits before the next attempt at a cluster that refused a command.
async fn pause(attempt: u32) {
    sleep(PAUSE / 2 + backoff(PAUSE, attempt)).await;
}
