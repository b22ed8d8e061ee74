use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use ::redis::{ConnectionAddr, ConnectionInfo};

use super::config::PoolConfig;
use super::link::Address;
use super::{Node, pause};
use crate::{Cmd, Error, ErrorKind, Reply, Result};

/// Which node of a cluster holds which slot, as the cluster last said.
pub(super) struct Topology {
    seeds: Vec<ConnectionInfo>,
    // `std` locks: held to look things up, never across an await.
    map: RwLock<Arc<Map>>,
    nodes: Mutex<HashMap<String, Arc<Node>>>,
    refreshing: tokio::sync::Mutex<()>,
    doubtful: AtomicBool,
}

#[derive(Default)]
struct Map {
    /// Slot ranges, both ends included, in order.
    ranges: Vec<(u16, u16, Arc<Node>)>,
}

impl Map {
    fn node(&self, slot: Option<u16>) -> Option<&Arc<Node>> {
        let Some(slot) = slot else { return self.ranges.first().map(|(_, _, node)| node) };
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
            refreshing: tokio::sync::Mutex::new(()),
            doubtful: AtomicBool::new(false),
        }
    }

    /// All nodes that were ever used.
    pub(super) fn nodes(&self) -> Vec<Arc<Node>> {
        self.lock_nodes().values().map(Arc::clone).collect()
    }

    /// Has the next call ask the cluster for its slots again.
    pub(super) fn doubt(&self) {
        self.doubtful.store(true, Ordering::Release);
    }

    /// The name of the node that holds `slot`, for grouping.
    pub(super) fn name(&self, slot: u16) -> Option<String> {
        self.map().node(Some(slot)).map(|node| node.name.clone())
    }

    /// The node for `slot`, or any node; asks the cluster where that is not known or in doubt.
    pub(super) async fn node(&self, config: &PoolConfig, slot: Option<u16>) -> Result<Arc<Node>> {
        if !self.doubtful.load(Ordering::Acquire)
            && let Some(node) = self.map().node(slot)
        {
            return Ok(Arc::clone(node));
        }
        let refreshed = self.refresh(config).await;
        let map = self.map();
        match (map.node(slot), refreshed) {
            (Some(node), _) => Ok(Arc::clone(node)),
            (None, Err(error)) => Err(error),
            (None, Ok(())) => {
                Err(Error::server("CLUSTERDOWN no node of the cluster holds this slot"))
            }
        }
    }

    /// The node to try after `error`, and whether it must be told that it is asked on behalf of a moving slot.
    pub(super) async fn next_node(
        &self,
        config: &PoolConfig,
        slot: Option<u16>,
        error: &Error,
        attempt: u32,
    ) -> Result<(Arc<Node>, bool)> {
        let code = error.code().unwrap_or_default();
        if let ("MOVED" | "ASK", Some(node)) = (code, self.redirection(config, error)) {
            if code == "MOVED" {
                self.doubt();
            }
            return Ok((node, code == "ASK"));
        }
        pause(attempt).await;
        self.doubt();
        Ok((self.node(config, slot).await?, false))
    }

    /// The node that a `MOVED slot host:port` or `ASK slot host:port` names.
    fn redirection(&self, config: &PoolConfig, error: &Error) -> Option<Arc<Node>> {
        let text = error.to_string();
        let address = text.split_ascii_whitespace().nth(2)?;
        let (host, port) = address.rsplit_once(':')?;
        (!host.is_empty()).then_some(())?;
        Some(self.node_at(config, host, port.parse().ok()?))
    }

    async fn refresh(&self, config: &PoolConfig) -> Result<()> {
        let before = self.map();
        let _refreshing = self.refreshing.lock().await;
        if !Arc::ptr_eq(&before, &self.map()) {
            return Ok(());
        }
        let mut known: Vec<Arc<Node>> =
            before.ranges.iter().map(|(.., node)| Arc::clone(node)).collect();
        known.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for seed in &self.seeds {
            if let Some((host, port)) = host_and_port(seed) {
                known.push(self.node_at(config, &host, port));
            }
        }
        let mut failure = None;
        for node in known {
            let ask = Cmd::new("CLUSTER").arg("SLOTS").readonly();
            let answer = node.call(config, &ask, false).await;
            match answer.and_then(|reply| self.read(config, reply, &node)) {
                Ok(map) => {
                    self.doubtful.store(false, Ordering::Release);
                    *self.map.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(map);
                    return Ok(());
                }
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| {
            Error::new(ErrorKind::Config, "a cluster is reached over TCP: give host and port")
        }))
    }

    /// Reads `CLUSTER SLOTS`: `[start, end, [host, port, ..], replicas ..]` for each range.
    fn read(&self, config: &PoolConfig, reply: Reply, asked: &Node) -> Result<Map> {
        let mut ranges = Vec::new();
        for range in reply.into_array()? {
            let mut parts = range.into_array()?.into_iter();
            let mut next = || parts.next().unwrap_or(Reply::Nil);
            let (start, end, primary) = (next(), next(), next().into_array()?);
            let slot = |reply: &Reply| reply.as_i64().and_then(|slot| u16::try_from(slot).ok());
            let mut primary = primary.into_iter();
            let host = primary.next().unwrap_or(Reply::Nil);
            let port = primary.next().and_then(|port| slot(&port));
            let (Some(start), Some(end), Some(port)) = (slot(&start), slot(&end), port) else {
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
        Ok(Map { ranges })
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
fn at(like: &ConnectionAddr, host: &str, port: u16) -> ConnectionAddr {
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
