//! The ready-made driver: few multiplexed connections per node, replaced when they break or go silent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout_at};

use crate::driver::layers::backoff;
use crate::driver::redis::one_slot;
use crate::driver::{Answer, refuse_blocking};
use crate::{
    Batch, Cmd, Connect, Driver, DriverExt as _, DynDriver, Error, ErrorKind, Reply, Result,
};

mod config;
mod dedicated;
mod link;
mod topology;

use config::Target;
pub use config::{PoolConfig, Protocol};
use link::{Address, Lent, Link};
use topology::Topology;

/// How often a call follows a cluster's redirections.
const REDIRECTIONS: u32 = 16;
/// The first pause before a cluster is asked again.
const PAUSE: Duration = Duration::from_millis(10);

/// A driver over redis-rs for a single server, a Sentinel-watched primary or a cluster.
///
/// Any number of tasks share a few multiplexed connections per node.
/// Connections open on first use; one that breaks is replaced by the next call, and one that goes silent (the peer is
/// gone without a word, half-open TCP) when no call on it was answered for [`PoolConfig::with_silent_after`] time limits.
/// [`Pool::watch`] finds silent connections while no call is waiting.
///
/// A call waits at most [`PoolConfig::with_timeout`] for a connection, and for a cluster to settle, and then as long for
/// its answer: twice the limit in all.
/// A batch on a cluster whose commands are redirected may send them again within that first limit.
/// The pool repeats a command only on a cluster, and only where no node can have run it: redirections, a failover, a node
/// that cannot be reached.
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
    config: Arc<PoolConfig>,
    way: Way,
}

enum Way {
    Cluster(Arc<Topology>),
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

    /// One of the node's connections, in turn.
    fn link(&self) -> Result<&Link> {
        let turn = match self.links.len() {
            1 => 0,
            links => self.next.fetch_add(1, Ordering::Relaxed) % links,
        };
        let none = || Error::new(ErrorKind::Config, "a pool needs a connection");
        self.links.get(turn).ok_or_else(none)
    }

    /// Borrows one of the node's connections, and opens it if need be.
    async fn lend<'a>(&'a self, config: &'a Arc<PoolConfig>) -> Result<Lent<'a>> {
        let link = self.link()?;
        match link.lend(config) {
            Some(lent) => Ok(lent),
            None => link.dial(config, &self.address).await,
        }
    }

    async fn call(&self, config: &Arc<PoolConfig>, cmd: &Cmd) -> Result<Reply> {
        let link = self.link()?;
        let mut lent = match link.lend(config) {
            Some(lent) => lent,
            // Boxed: it is rare, and would make every call's future larger.
            None => Box::pin(link.dial(config, &self.address)).await?,
        };
        lent.call(cmd).await
    }

    /// A question that several nodes are asked at once, of which all but one are dropped.
    async fn ask(&self, config: &Arc<PoolConfig>, cmd: &Cmd) -> Result<Reply> {
        self.lend(config).await?.without_blame().call(cmd).await
    }

    async fn pipeline(
        &self,
        config: &Arc<PoolConfig>,
        cmds: &[Cmd],
        atomic: bool,
    ) -> Result<Vec<Result<Reply>>> {
        self.lend(config).await?.pipeline(cmds, atomic).await
    }
}

impl Pool {
    /// Makes a pool without connecting.
    #[must_use]
    pub fn new(config: PoolConfig) -> Self {
        let way = match &config.target {
            Target::Cluster(seeds) => Way::Cluster(Arc::new(Topology::new(seeds.clone()))),
            Target::Sentinel { primary, .. } => {
                Way::One(Arc::new(Node::new(primary.clone(), Address::Primary, config.connections)))
            }
            Target::Single(info) => Way::One(Arc::new(Node::new(
                info.addr().to_string(),
                Address::Node(Box::new(info.clone())),
                config.connections,
            ))),
        };
        Self(Arc::new(Inner { config: Arc::new(config), way }))
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

    /// Asks over every open connection, once per time limit, whether the server is still there, and behind Sentinels
    /// whether it is still the primary.
    ///
    /// Without it a silent connection is found by the calls that get no answer on it, and a demoted primary by the first
    /// write that it refuses.
    /// The future never ends: spawn it with a clone of the pool, and abort the task to stop.
    pub async fn watch(self) {
        let config = &self.0.config;
        loop {
            sleep(config.timeout).await;
            let nodes = match &self.0.way {
                Way::Cluster(topology) => topology.nodes(),
                Way::One(node) => vec![Arc::clone(node)],
            };
            let checks = nodes.iter().flat_map(|node| {
                let lent = node.links.iter().filter_map(|link| link.lend(config));
                lent.map(|lent| lent.check(&node.address))
            });
            join_all(checks).await;
        }
    }

    async fn call_cluster(&self, topology: &Arc<Topology>, cmd: Cmd) -> Result<Reply> {
        let config = &self.0.config;
        let deadline = Instant::now() + config.timeout;
        let mut node = topology.node(config, cmd.slot()).await?;
        let mut asking = false;
        let mut attempt = 0;
        loop {
            // What was sent is never given up before its own time: its fate would be unknown.
            let outcome = match asking {
                true => {
                    let asked = [Cmd::new("ASKING"), cmd.clone()];
                    let replies = node.pipeline(config, &asked, false).await;
                    replies.and_then(|mut replies| replies.pop().unwrap_or_else(left_out))
                }
                false => node.call(config, &cmd).await,
            };
            let Err(error) = outcome else { return outcome };
            if error.is_transient() {
                topology.doubt();
            }
            if !is_refused(&error) || attempt == REDIRECTIONS {
                return Err(error);
            }
            attempt += 1;
            let next = topology.next_node(config, cmd.slot(), &error, attempt);
            let Ok(Ok(next)) = timeout_at(deadline, next).await else { return Err(error) };
            (node, asking) = next;
        }
    }

    async fn atomic_cluster(
        &self,
        topology: &Arc<Topology>,
        cmds: &[Cmd],
    ) -> Result<Vec<Result<Reply>>> {
        let config = &self.0.config;
        let deadline = Instant::now() + config.timeout;
        let slot = one_slot(cmds)?;
        let mut node = topology.node(config, slot).await?;
        let mut attempt = 0;
        loop {
            let outcome = node.pipeline(config, cmds, true).await;
            let Err(error) = outcome else { return outcome };
            if error.is_transient() {
                topology.doubt();
            }
            if !is_refused(&error) || attempt == REDIRECTIONS {
                return Err(error);
            }
            attempt += 1;
            let next = async {
                match topology.next_node(config, slot, &error, attempt).await? {
                    // A slot on the move takes no transaction before it has arrived.
                    (_, true) => {
                        pause(attempt).await;
                        topology.node(config, slot).await
                    }
                    (node, false) => Ok(node),
                }
            };
            let Ok(Ok(next)) = timeout_at(deadline, next).await else { return Err(error) };
            node = next;
        }
    }

    /// Sends each node its commands, side by side, and what was refused again to the nodes that then hold the slots.
    async fn pipeline_cluster(
        &self,
        topology: &Arc<Topology>,
        cmds: &[Cmd],
    ) -> Result<Vec<Result<Reply>>> {
        let config = &self.0.config;
        let deadline = Instant::now() + config.timeout;
        let mut answers: Vec<Result<Reply>> = cmds.iter().map(|_| left_out()).collect();
        let mut waiting: Vec<(usize, Option<Error>)> =
            (0..cmds.len()).map(|index| (index, None)).collect();
        for attempt in 1.. {
            let place = self.groups(topology, cmds, &waiting, attempt);
            let groups = match timeout_at(deadline, place).await {
                Ok(Ok(groups)) => groups,
                Ok(Err(error)) if attempt == 1 => return Err(error),
                Ok(Err(_)) | Err(_) => break,
            };
            let runs = groups.into_iter().map(|(node, members)| async move {
                let mut sent = Vec::with_capacity(members.len());
                for (index, asking) in &members {
                    if *asking {
                        sent.push(Cmd::new("ASKING"));
                    }
                    sent.extend(cmds.get(*index).cloned());
                }
                let replies = node.pipeline(config, &sent, false).await;
                (members, replies)
            });
            waiting.clear();
            for (members, outcome) in join_all(runs).await {
                let mut outcome = outcome.map(Vec::into_iter);
                for (index, asking) in members {
                    let answer = match &mut outcome {
                        Ok(replies) => replies.nth(usize::from(asking)).unwrap_or_else(left_out),
                        Err(error) => Err(error.clone()),
                    };
                    match &answer {
                        Err(error) if is_refused(error) => {
                            waiting.push((index, Some(error.clone())));
                        }
                        Err(error) if error.is_transient() => topology.doubt(),
                        _ => {}
                    }
                    if let Some(place) = answers.get_mut(index) {
                        *place = answer;
                    }
                }
            }
            if waiting.is_empty() || REDIRECTIONS < attempt {
                break;
            }
        }
        Ok(answers)
    }

    /// Sorts the commands that are waiting by the node to send them to.
    async fn groups(
        &self,
        topology: &Arc<Topology>,
        cmds: &[Cmd],
        waiting: &[(usize, Option<Error>)],
        attempt: u32,
    ) -> Result<Vec<Group>> {
        let config = &self.0.config;
        let mut groups: Vec<Group> = Vec::new();
        let mut asked = false;
        for (index, refusal) in waiting {
            let slot = cmds.get(*index).and_then(Cmd::slot);
            let (node, asking) = match refusal {
                None => (topology.node(config, slot).await?, false),
                Some(refusal) => match topology.redirection(config, slot, refusal) {
                    Some(redirection) => redirection,
                    // One pause and one question serve all of them.
                    None if asked => (topology.node(config, slot).await?, false),
                    None => {
                        asked = true;
                        topology.next_node(config, slot, refusal, attempt).await?
                    }
                },
            };
            match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &node)) {
                Some((_, members)) => members.push((*index, asking)),
                None => groups.push((node, vec![(*index, asking)])),
            }
        }
        Ok(groups)
    }
}

/// A node and the commands for it, by their places in the batch; each with whether it needs an `ASKING`.
type Group = (Arc<Node>, Vec<(usize, bool)>);

/// Whether the server is known not to have run the command, and may run it soon or elsewhere.
fn is_refused(error: &Error) -> bool {
    error.is_transient() && !error.maybe_applied() && error.kind() != ErrorKind::Timeout
}

fn left_out() -> Result<Reply> {
    Err(Error::new(ErrorKind::Reply, "the server left out a reply"))
}

// Written out instead of `#[async_trait]`, so that a call to a single server does not carry the future of a cluster's.
impl Driver for Pool {
    fn call<'a, 'b>(&'a self, cmd: Cmd) -> Answer<'b, Reply>
    where
        'a: 'b,
    {
        if let Err(error) = refuse_blocking(std::slice::from_ref(&cmd)) {
            return Box::pin(async { Err(error) });
        }
        match &self.0.way {
            Way::One(node) => Box::pin(async move { node.call(&self.0.config, &cmd).await }),
            Way::Cluster(topology) => Box::pin(self.call_cluster(topology, cmd)),
        }
    }

    fn pipeline<'a, 'b>(&'a self, batch: Batch) -> Answer<'b, Vec<Result<Reply>>>
    where
        'a: 'b,
    {
        if let Err(error) = refuse_blocking(batch.cmds()) {
            return Box::pin(async { Err(error) });
        }
        Box::pin(async move {
            let (cmds, atomic) = (batch.cmds(), batch.is_atomic());
            match &self.0.way {
                Way::One(node) => node.pipeline(&self.0.config, cmds, atomic).await,
                Way::Cluster(topology) if atomic => self.atomic_cluster(topology, cmds).await,
                Way::Cluster(topology) => self.pipeline_cluster(topology, cmds).await,
            }
        })
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
