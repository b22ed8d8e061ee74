use std::{
    sync::{Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use crate::{
    Error, Result, Server,
    control::Reply,
    deployments::joined,
    process::{Launch, free_port},
    resolve::plain_binary,
    server::Settings,
    wait::until,
};

const PRIMARIES: usize = 3;
const NODES: usize = 6;
const SLOTS: u16 = 16_384;

/// A Redis Cluster of three primaries and three replicas.
///
/// Nodes 0 to 2 begin as primaries, nodes 3 to 5 as their replicas; a failover changes that.
/// A primary that is down for a second is replaced by its replica.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    server: Server,
    id: String,
    bus: u16,
}

/// One line of `CLUSTER NODES`, as a node sees it.
#[derive(Debug)]
struct Line {
    id: String,
    primary: bool,
    failing: bool,
    connected: bool,
    slots: Vec<(u16, u16)>,
}

impl Cluster {
    /// Starts a cluster and waits until all six nodes agree and every replica is in sync.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`], and [`Error::Late`] if the nodes do not agree in a minute.
    pub fn start() -> Result<Self> {
        let binary = plain_binary()?;
        let start = || -> Result<Node> {
            let bus = free_port()?;
            let config = [
                ("cluster-enabled", "yes"),
                ("cluster-node-timeout", "1000"),
                // A replica may take over however long it was cut off.
                ("cluster-replica-validity-factor", "0"),
                ("cluster-port", &bus.to_string()),
            ];
            let config = config.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let settings = Settings { config: config.into(), ..Settings::default() };
            let server = Server::launch(&binary, &settings)?;
            let id = server.command(&["CLUSTER", "MYID"])?;
            Ok(Node { server, id, bus })
        };
        // `launch` tries other ports for clients; a bus port that was taken meanwhile is new here.
        let start = || match start() {
            Err(error) if Launch::is_port_clash(&error) => start(),
            other => other,
        };
        let nodes = thread::scope(|scope| {
            let starts: Vec<_> = (0..NODES).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(joined).collect::<Result<Vec<_>>>()
        })?;
        let cluster = Self { nodes };
        cluster.join()?;
        Ok(cluster)
    }

    /// Returns this process's shared cluster, starting it the first time.
    ///
    /// Do not break it: tests that do, start their own.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::start`]; the next call tries again.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: Mutex<Option<&'static Cluster>> = Mutex::new(None);
        let mut slot = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        match *slot {
            Some(cluster) => Ok(cluster),
            None => {
                let cluster: &'static Self = Box::leak(Box::new(Self::start()?));
                *slot = Some(cluster);
                Ok(cluster)
            }
        }
    }

    /// Returns the URLs of all nodes.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.server.url().to_owned()).collect()
    }

    /// Returns the number of nodes.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// Returns a node.
    ///
    /// # Panics
    ///
    /// If `index` is not below [`node_count`](Cluster::node_count), as with a slice.
    #[must_use]
    #[expect(clippy::indexing_slicing, reason = "documented, as with a slice")]
    pub fn node(&self, index: usize) -> &Server {
        &self.nodes[index].server
    }

    /// Returns the slot of a key (`CLUSTER KEYSLOT`).
    ///
    /// # Errors
    ///
    /// [`Error::NoAnswer`] if no node answers.
    pub fn slot_of(&self, key: &str) -> Result<u16> {
        let reply = self.any()?.command(&["CLUSTER", "KEYSLOT", key])?;
        reply.parse().map_err(|_| Error::Unknown(format!("slot {reply}")))
    }

    /// Returns the index of the primary that serves a key.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] if no living node serves it now.
    pub fn primary_of(&self, key: &str) -> Result<usize> {
        let slot = self.slot_of(key)?;
        self.owner(slot)?.ok_or_else(|| Error::Unknown(format!("living primary of slot {slot}")))
    }

    /// Ends the primary that serves a key with `kill -9`, and returns its index.
    ///
    /// Its replica takes over about two seconds later; [`wait_until_whole`](Cluster::wait_until_whole)
    /// waits for that. [`Server::restart`] of the node brings it back as a replica.
    ///
    /// # Errors
    ///
    /// Those of [`Cluster::primary_of`] and [`Server::kill`].
    pub fn kill_primary_of(&self, key: &str) -> Result<usize> {
        let index = self.primary_of(key)?;
        self.at(index)?.server.kill()?;
        Ok(index)
    }

    /// Hands a key's slots to the replica (`CLUSTER FAILOVER`) and returns the new primary's index.
    ///
    /// Nothing is lost: the replica catches up first. Returns when all nodes know.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] if the primary has no living replica, [`Error::Late`] if it takes a minute.
    pub fn failover(&self, key: &str) -> Result<usize> {
        let slot = self.slot_of(key)?;
        let primary = self.primary_of(key)?;
        let id = self.at(primary)?.id.as_str();
        let replica = self
            .nodes
            .iter()
            .position(|node| {
                let nodes = node.server.control().text(&["CLUSTER", "NODES"]).unwrap_or_default();
                nodes.lines().any(|line| line.contains("myself,slave") && line.contains(id))
            })
            .ok_or_else(|| Error::Unknown(format!("living replica of node {primary}")))?;
        let heir = &self.at(replica)?.server;
        let mut asked: Option<Instant> = None;
        until("the cluster failover", || {
            if self.owner(slot)? == Some(replica) {
                return Ok(None);
            }
            // The replica gives up after five seconds if it does not win the vote.
            if asked.is_none_or(|time| Duration::from_secs(6) < time.elapsed()) {
                heir.command(&["CLUSTER", "FAILOVER"])?;
                asked = Some(Instant::now());
            }
            Ok(Some(format!("node {primary} still serves slot {slot}")))
        })?;
        self.wait_until_whole()?;
        Ok(replica)
    }

    /// Waits until every living node sees all slots served, by living primaries only.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] after a minute.
    pub fn wait_until_whole(&self) -> Result<()> {
        until("a whole cluster", || {
            for (index, node) in self.living() {
                if let Some(missing) = self.missing(node)? {
                    return Ok(Some(format!("node {index}: {missing}")));
                }
            }
            Ok(None)
        })
    }

    /// Moves a slot with its keys to another primary, as `redis-cli --cluster reshard` does.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if `from` does not serve the slot or `to` is no primary.
    pub fn migrate_slot(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        self.begin_migration(slot, from, to)?;
        let (source, target) = (self.at(from)?, self.at(to)?);
        let number = slot.to_string();
        let port = target.server.port().to_string();
        loop {
            let keys =
                source.server.control().call(&["CLUSTER", "GETKEYSINSLOT", &number, "100"])?.list();
            if keys.is_empty() {
                break;
            }
            let keys: Vec<String> = keys.iter().map(Reply::to_string).collect();
            let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            migrate.extend(keys.iter().map(String::as_str));
            source.server.command(&migrate)?;
        }
        // The target first: between the two, the source still answers with ASK.
        for node in [target, source] {
            node.server.command(&["CLUSTER", "SETSLOT", &number, "NODE", &target.id])?;
        }
        until("the news of a moved slot", || {
            for (index, node) in self.living() {
                let known = lines(&node.server)?;
                if !known.iter().any(|line| line.id == target.id && line.serves(slot)) {
                    return Ok(Some(format!("node {index} does not know")));
                }
            }
            Ok(None)
        })
    }

    /// Opens a slot's migration and leaves it there: keys that the source lacks are answered `ASK`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if `from` does not serve the slot or `to` is no primary.
    pub fn begin_migration(&self, slot: u16, from: usize, to: usize) -> Result<()> {
        let (source, target) = (self.at(from)?, self.at(to)?);
        let number = slot.to_string();
        target.server.command(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source.id])?;
        source.server.command(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target.id])?;
        Ok(())
    }

    fn join(&self) -> Result<()> {
        let share = SLOTS / 3;
        for (index, node) in self.nodes.iter().enumerate() {
            let epoch = (index + 1).to_string();
            node.server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch])?;
        }
        let mut begin = 0;
        for (index, node) in self.nodes.iter().take(PRIMARIES).enumerate() {
            let end = if index + 1 == PRIMARIES { SLOTS - 1 } else { begin + share };
            let range = [begin.to_string(), end.to_string()];
            let [low, high] = &range;
            node.server.command(&["CLUSTER", "ADDSLOTSRANGE", low, high])?;
            begin = end + 1;
        }
        // Everyone meets everyone: gossip alone takes seconds to make the last introductions.
        for (index, node) in self.nodes.iter().enumerate() {
            for other in self.nodes.iter().skip(index + 1) {
                let (port, bus) = (other.server.port().to_string(), other.bus.to_string());
                node.server.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus])?;
            }
        }
        until("the nodes' acquaintance", || {
            for (index, node) in self.nodes.iter().enumerate() {
                let known = lines(&node.server)?;
                let met = known.iter().filter(|line| line.connected).count();
                if met != NODES || known.len() != NODES {
                    return Ok(Some(format!("node {index} is connected with {met} nodes")));
                }
            }
            Ok(None)
        })?;
        for (replica, primary) in self.nodes.iter().skip(PRIMARIES).zip(&self.nodes) {
            replica.server.command(&["CLUSTER", "REPLICATE", &primary.id])?;
        }
        until("replicas in sync", || {
            for (index, node) in self.nodes.iter().enumerate() {
                let role = node.server.command(&["INFO", "replication"])?;
                let wanted = match index < PRIMARIES {
                    true => "state=online",
                    false => "master_link_status:up",
                };
                if !role.contains(wanted) {
                    return Ok(Some(format!("node {index} has no {wanted}")));
                }
                if lines(&node.server)?.iter().filter(|line| !line.primary).count() != PRIMARIES {
                    return Ok(Some(format!("node {index} does not know all replicas")));
                }
            }
            Ok(None)
        })?;
        self.wait_until_whole()
    }

    /// What keeps the cluster from being whole in the eyes of one node.
    fn missing(&self, node: &Node) -> Result<Option<String>> {
        let info = node.server.command(&["CLUSTER", "INFO"])?;
        if !info.contains("cluster_state:ok") {
            return Ok(Some("its cluster_state is not ok".to_owned()));
        }
        let known = lines(&node.server)?;
        let mut served = 0;
        for line in known.iter().filter(|line| line.primary && !line.slots.is_empty()) {
            let alive = self.living().any(|(_, node)| node.id == line.id);
            if line.failing || !alive {
                return Ok(Some(format!("it still counts on {}", line.id)));
            }
            served += line.slots.iter().map(|(low, high)| u32::from(high - low) + 1).sum::<u32>();
        }
        match served == u32::from(SLOTS) {
            true => Ok(None),
            false => Ok(Some(format!("it sees {served} slots served"))),
        }
    }

    fn living(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.server.process_id().is_some())
    }

    fn any(&self) -> Result<&Server> {
        self.living()
            .map(|(_, node)| &node.server)
            .next()
            .ok_or_else(|| Error::Unknown("living node in the cluster".to_owned()))
    }

    fn at(&self, index: usize) -> Result<&Node> {
        self.nodes.get(index).ok_or_else(|| Error::Unknown(format!("node {index}")))
    }

    /// The living node that says of itself that it serves a slot.
    fn owner(&self, slot: u16) -> Result<Option<usize>> {
        for (index, node) in self.living() {
            let known = lines(&node.server)?;
            if known.iter().any(|line| line.id == node.id && line.primary && line.serves(slot)) {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

impl Line {
    /// `ID ADDRESS FLAGS PRIMARY PING PONG EPOCH LINK SLOT...`; slots in migration stand in brackets.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let id = words.next()?.to_owned();
        let flags: Vec<&str> = words.nth(1)?.split(',').collect();
        let link = words.nth(4)?;
        let slots = words
            .filter_map(|word| {
                let (low, high) = word.split_once('-').unwrap_or((word, word));
                Some((low.parse().ok()?, high.parse().ok()?))
            })
            .collect();
        Some(Self {
            id,
            primary: flags.contains(&"master"),
            failing: flags.contains(&"fail"),
            connected: link == "connected" && !flags.contains(&"handshake"),
            slots,
        })
    }

    fn serves(&self, slot: u16) -> bool {
        self.slots.iter().any(|(low, high)| (*low..=*high).contains(&slot))
    }
}

fn lines(server: &Server) -> Result<Vec<Line>> {
    let text = server.command(&["CLUSTER", "NODES"])?;
    Ok(text.lines().filter_map(Line::parse).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read() {
        let line = Line::parse(
            "07c3 127.0.0.1:30001@31001,host myself,master - 0 1426238317239 4 connected \
             0-5460 5462 [5463->-e7d1]",
        )
        .unwrap();
        assert_eq!(line.slots, [(0, 5460), (5462, 5462)]);
        assert!(line.primary && line.connected && !line.failing);
        assert!(line.serves(5462) && !line.serves(5461) && !line.serves(5463));
        assert!(Line::parse("").is_none());
    }
}
