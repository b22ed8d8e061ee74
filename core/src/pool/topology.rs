use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ::redis::{ConnectionAddr, ConnectionInfo};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, select_ok};
use tokio::time::timeout;

use super::config::PoolConfig;
use super::link::Address;
use super::{Node, pause};
use crate::{Cmd, Error, ErrorKind, Reply, Result};

/// How long the cluster is not asked again after it was, as long as the slot in question has a node.
const REST: Duration = Duration::from_millis(100);

/// Which node of a cluster holds which slot, as the cluster last said.
pub(super) struct Topology {
    seeds: Vec<ConnectionInfo>,
    // `std` locks: held to look things up, never across an await.
    map: RwLock<Arc<Map>>,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    /// The question that is under way. Whoever waits for the answer drives it.
    asking: Mutex<Asking>,
    doubtful: AtomicBool,
}

#[derive(Default)]
struct Asking {
    current: Option<(Instant, Shared<BoxFuture<'static, Result<()>>>)>,
    last: Option<Instant>,
}

#[derive(Clone, Default)]
struct Map {
    /// Slot ranges, both ends included, in order.
    ranges: Vec<(u16, u16, Arc<Node>)>,
    /// Slots of which a node said since that they are elsewhere.
    moved: HashMap<u16, Arc<Node>>,
}

impl Map {
    fn node(&self, slot: Option<u16>) -> Option<&Arc<Node>> {
        let Some(slot) = slot else { return self.ranges.first().map(|(_, _, node)| node) };
        if let Some(node) = self.moved.get(&slot) {
            return Some(node);
        }
        let place = self.ranges.partition_point(|(_, end, _)| *end < slot);
        self.ranges.get(place).filter(|(start, ..)| *start <= slot).map(|(_, _, node)| node)
    }
}

impl Topology {
    pub(super) fn new(seeds: Vec<ConnectionInfo>) -> Self {
        Self {
            seeds,
            map: RwLock::default(),
            nodes: Mutex::default(),
            asking: Mutex::default(),
            doubtful: AtomicBool::new(false),
        }
    }

    /// All nodes that are in use.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.lock_nodes().values().map(Arc::clone).collect()
    }

    /// Has one of the next calls ask the cluster for its slots again.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Release);
    }

    /// The node for `slot`, or any node; asks the cluster where that is not known or in doubt.
    ///
    /// A doubt is cleared up by one caller; the others go on with what is known.
    pub(super) async fn node(
        self: &Arc<Self>,
        config: &Arc<PoolConfig>,
        slot: Option<u16>,
    ) -> Result<Arc<Node>> {
        if let Some(node) = self.map().node(slot) {
            if self.doubtful.load(Ordering::Acquire)
                && self.is_rested()
                && self.doubtful.swap(false, Ordering::AcqRel)
            {
                // An answer is a help, not a need.
                let _ = self.refresh(config).await;
            }
            return Ok(Arc::clone(self.map().node(slot).unwrap_or(node)));
        }
        self.refresh(config).await?;
        self.map()
            .node(slot)
            .map(Arc::clone)
            .ok_or_else(|| Error::server("CLUSTERDOWN no node of the cluster holds this slot"))
    }

    /// The node to try after `refusal`, and whether it must be told that it is asked on behalf of a moving slot.
    pub(super) async fn next_node(
        self: &Arc<Self>,
        config: &Arc<PoolConfig>,
        slot: Option<u16>,
        refusal: &Error,
        attempt: u32,
    ) -> Result<(Arc<Node>, bool)> {
        if let Some(redirection) = self.redirection(config, slot, refusal) {
            return Ok(redirection);
        }
        pause(attempt).await;
        self.refresh(config).await?;
        let node = self.map().node(slot).map(Arc::clone);
        let none = || Error::server("CLUSTERDOWN no node of the cluster holds this slot");
        Ok((node.ok_or_else(none)?, false))
    }

    /// The node that a `MOVED slot host:port` or `ASK slot host:port` names, and whether it is the latter.
    pub(super) fn redirection(
        &self,
        config: &PoolConfig,
        slot: Option<u16>,
        refusal: &Error,
    ) -> Option<(Arc<Node>, bool)> {
        let asking = match refusal.code()? {
            "ASK" => true,
            "MOVED" => false,
            _ => return None,
        };
        let text = refusal.to_string();
        let (host, port) = text.split_ascii_whitespace().nth(2)?.rsplit_once(':')?;
        if host.is_empty() {
            return None;
        }
        let node = self.node_at(config, host, port.parse().ok()?);
        if let (false, Some(slot)) = (asking, slot) {
            let mut map = self.map.write().unwrap_or_else(PoisonError::into_inner);
            Arc::make_mut(&mut *map).moved.insert(slot, Arc::clone(&node));
            drop(map);
            self.doubt();
        }
        Some((node, asking))
    }

    fn is_rested(&self) -> bool {
        self.lock_asking().last.is_none_or(|last| REST <= last.elapsed())
    }

    /// Asks for the slots, or waits for the answer to the question that is under way.
    async fn refresh(self: &Arc<Self>, config: &Arc<PoolConfig>) -> Result<()> {
        let question = {
            let mut asking = self.lock_asking();
            match &asking.current {
                Some((begun, question)) if begun.elapsed() < config.timeout => question.clone(),
                _ => {
                    let (topology, config) = (Arc::clone(self), Arc::clone(config));
                    let ask = async move { topology.ask(&config).await };
                    let question = ask.boxed().shared();
                    asking.current = Some((Instant::now(), question.clone()));
                    question
                }
            }
        };
        let answer = timeout(config.timeout, question.clone()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "the cluster did not tell its slots in time"))
        });
        let mut asking = self.lock_asking();
        if asking.current.as_ref().is_some_and(|(_, current)| current.ptr_eq(&question)) {
            asking.current = None;
            asking.last = Some(Instant::now());
        }
        answer
    }

    /// Asks all known nodes at once, and takes the first answer: one that hangs holds nobody up.
    async fn ask(&self, config: &Arc<PoolConfig>) -> Result<()> {
        let before = self.map();
        let mut known: Vec<Arc<Node>> = Vec::new();
        let ranges = before.ranges.iter().map(|(.., node)| node);
        for node in before.moved.values().chain(ranges) {
            if !known.iter().any(|other| Arc::ptr_eq(other, node)) {
                known.push(Arc::clone(node));
            }
        }
        let map = match self.ask_any(config, &known).await {
            Ok(map) => map,
            // Nobody is known yet, or all whom we knew are gone.
            Err(_) => {
                let seeds = self.seeds.iter().filter_map(host_and_port);
                let seeds: Vec<_> =
                    seeds.map(|(host, port)| self.node_at(config, &host, port)).collect();
                self.ask_any(config, &seeds).await?
            }
        };
        let map = Arc::new(map);
        *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&map);
        // Nodes that have left the cluster are let go, with their connections.
        self.lock_nodes()
            .retain(|_, node| map.ranges.iter().any(|(.., other)| Arc::ptr_eq(other, node)));
        Ok(())
    }

    async fn ask_any(&self, config: &Arc<PoolConfig>, nodes: &[Arc<Node>]) -> Result<Map> {
        if nodes.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                "a cluster is reached over TCP: give host and port",
            ));
        }
        let questions = nodes.iter().map(|node| {
            Box::pin(async move {
                let slots = Cmd::new("CLUSTER").arg("SLOTS").readonly();
                self.read(config, node.ask(config, &slots).await?, node)
            })
        });
        Ok(select_ok(questions).await?.0)
    }

    /// Reads `CLUSTER SLOTS`: `[start, end, [host, port, ..], replicas ..]` for each range.
    fn read(&self, config: &PoolConfig, reply: Reply, asked: &Node) -> Result<Map> {
        let mut ranges = Vec::new();
        for range in reply.into_array()? {
            let mut parts = range.into_array()?.into_iter();
            let mut next = || parts.next().unwrap_or(Reply::Nil);
            let (start, end, primary) = (next(), next(), next().into_array()?);
            let number = |reply: &Reply| reply.as_i64().and_then(|slot| u16::try_from(slot).ok());
            let mut primary = primary.into_iter();
            let host = primary.next().unwrap_or(Reply::Nil);
            let port = primary.next().and_then(|port| number(&port));
            let (Some(start), Some(end), Some(port)) = (number(&start), number(&end), port) else {
                return Err(Error::new(ErrorKind::Reply, "the cluster's slots could not be read"));
            };
            // A node that does not know its own address leaves it out: it is the one that was asked.
            let host = match host.as_str() {
                None | Some("" | "?") => asked.name.rsplit_once(':').map_or("", |(host, _)| host),
                Some(host) => host,
            };
            ranges.push((start, end, self.node_at(config, host, port)));
        }
        ranges.sort_by_key(|(start, ..)| *start);
        if ranges.is_empty() {
            return Err(Error::server("CLUSTERDOWN the cluster has no slots assigned"));
        }
        Ok(Map { ranges, moved: HashMap::new() })
    }

    fn node_at(&self, config: &PoolConfig, host: &str, port: u16) -> Arc<Node> {
        let name = format!("{host}:{port}");
        let mut nodes = self.lock_nodes();
        let node = nodes.entry(name.clone()).or_insert_with(|| {
            let address = match self.seeds.first() {
                Some(seed) => {
                    Address::Node(Box::new(seed.clone().set_addr(at(seed.addr(), host, port))))
                }
                None => Address::Primary,
            };
            Arc::new(Node::new(name, address, config.connections))
        });
        Arc::clone(node)
    }

    fn map(&self) -> Arc<Map> {
        Arc::clone(&self.map.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn lock_asking(&self) -> MutexGuard<'_, Asking> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_nodes(&self) -> MutexGuard<'_, HashMap<String, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn host_and_port(info: &ConnectionInfo) -> Option<(String, u16)> {
    match info.addr() {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => {
            Some((host.clone(), *port))
        }
        _ => None,
    }
}

/// The address of another node, reached in the same manner as `like`.
pub(super) fn at(like: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
    match like {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => ConnectionAddr::TcpTls {
            host: host.to_owned(),
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}
