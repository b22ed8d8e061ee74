use std::thread;

use crate::{
    Error, Result, Server, deployments::joined, resolve::plain_binary, server::Settings,
    wait::until,
};

const NAME: &str = "inferkit";
const SENTINELS: usize = 3;

/// A primary and a replica, watched by three Sentinels with a quorum of two.
///
/// A primary that is silent for a second is replaced.
#[derive(Debug)]
pub struct Sentinel {
    /// Before the servers: fields are dropped in this order, and a watcher should not see them go.
    sentinels: Vec<Server>,
    servers: Vec<Server>,
}

impl Sentinel {
    /// Starts the five processes and waits until all know each other and the replica is in sync.
    ///
    /// # Errors
    ///
    /// Those of [`Server::start`], and [`Error::Late`] if they do not agree in a minute.
    pub fn start() -> Result<Self> {
        let binary = plain_binary()?;
        let primary = Server::launch(&binary, &Settings::default())?;
        let port = primary.port().to_string();
        let follow = vec![("replicaof".to_owned(), format!("127.0.0.1 {port}"))];
        let replica = Server::launch(&binary, &Settings { config: follow, ..Settings::default() })?;
        let watched = Self { sentinels: Vec::new(), servers: vec![primary, replica] };
        // A Sentinel finds replicas through the primary, so they come first.
        watched.wait_for_replica(0)?;

        let config = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 5000\n\
             sentinel parallel-syncs {NAME} 1\n"
        );
        let settings = Settings { sentinel: Some(config), ..Settings::default() };
        let start = || Server::launch(&binary, &settings);
        let sentinels = thread::scope(|scope| {
            let starts: Vec<_> = (0..SENTINELS).map(|_| scope.spawn(start)).collect();
            starts.into_iter().map(joined).collect::<Result<Vec<_>>>()
        })?;
        for sentinel in &sentinels {
            // Ten seconds between two looks at the servers are the default.
            let quick = ["SENTINEL", "DEBUG", "INFO-PERIOD", "500", "PUBLISH-PERIOD", "300"];
            sentinel.command(&quick)?;
        }
        let watched = Self { sentinels, ..watched };
        watched.wait_until_whole()?;
        Ok(watched)
    }

    /// Returns the URLs of the Sentinels.
    #[must_use]
    pub fn sentinel_urls(&self) -> Vec<String> {
        self.sentinels.iter().map(|sentinel| sentinel.url().to_owned()).collect()
    }

    /// Returns the name under which the Sentinels know the primary.
    #[must_use]
    pub fn master_name(&self) -> &str {
        NAME
    }

    /// Returns the server that most Sentinels hold for the primary.
    ///
    /// # Errors
    ///
    /// [`Error::Unknown`] if there is no majority, as in the middle of a failover.
    pub fn primary(&self) -> Result<&Server> {
        let mut votes = Vec::new();
        for sentinel in &self.sentinels {
            votes.extend(self.vote(sentinel));
        }
        self.servers
            .iter()
            .find(|server| {
                SENTINELS / 2 < votes.iter().filter(|vote| **vote == server.port()).count()
            })
            .ok_or_else(|| Error::Unknown("primary that most Sentinels agree on".to_owned()))
    }

    /// Returns both servers, in the order in which they were started.
    #[must_use]
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Ends the primary with `kill -9` and returns its index in [`servers`](Sentinel::servers).
    ///
    /// The replica takes over a few seconds later; [`wait_for_new_primary`](Sentinel::wait_for_new_primary)
    /// waits for that.
    ///
    /// # Errors
    ///
    /// Those of [`Sentinel::primary`] and [`Server::kill`].
    pub fn kill_primary(&self) -> Result<usize> {
        let primary = self.primary()?;
        primary.kill()?;
        Ok(self.index(primary.port()))
    }

    /// Waits until all Sentinels name another primary than server `old`, and it accepts writes.
    ///
    /// # Errors
    ///
    /// [`Error::Late`] after a minute.
    pub fn wait_for_new_primary(&self, old: usize) -> Result<&Server> {
        until("a new primary", || {
            for sentinel in &self.sentinels {
                match self.vote(sentinel).map(|port| self.index(port)) {
                    Some(index) if index != old => {}
                    _ => return Ok(Some(format!("{} still names the old one", sentinel.url()))),
                }
            }
            let role = self.primary()?.command(&["ROLE"])?;
            Ok((!role.starts_with("master")).then(|| format!("its role is {role}")))
        })?;
        self.primary()
    }

    /// Makes the replica the primary (`SENTINEL FAILOVER`); returns when the roles are swapped.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the Sentinels see no good replica, [`Error::Late`] after a minute.
    pub fn failover(&self) -> Result<()> {
        let old = self.index(self.primary()?.port());
        until("the Sentinels' consent to a failover", || {
            // Refused while another is under way, and while the replica is not known to be good.
            self.any()?.command(&["SENTINEL", "FAILOVER", NAME]).map(|_| None)
        })?;
        let primary = self.wait_for_new_primary(old)?;
        let new = self.index(primary.port());
        self.wait_for_replica(new)?;
        self.wait_until_whole()
    }

    /// Waits until the server `primary` has a replica in sync.
    fn wait_for_replica(&self, primary: usize) -> Result<()> {
        until("a replica in sync", || {
            for (index, server) in self.servers.iter().enumerate() {
                let info = server.command(&["INFO", "replication"])?;
                let wanted = match index == primary {
                    true => "state=online",
                    false => "master_link_status:up",
                };
                if !info.contains(wanted) {
                    return Ok(Some(format!("server {index} has no {wanted}")));
                }
            }
            Ok(None)
        })
    }

    /// Waits until each Sentinel knows the other two and a replica that it would promote.
    fn wait_until_whole(&self) -> Result<()> {
        until("the Sentinels' agreement", || {
            for sentinel in &self.sentinels {
                let fields = fields(&sentinel.command(&["SENTINEL", "MASTER", NAME])?);
                let field = |name: &str| {
                    fields.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
                };
                let whole = field("num-other-sentinels") == Some("2")
                    && field("num-slaves") == Some("1")
                    && field("flags") == Some("master");
                if !whole {
                    return Ok(Some(format!("{} does not know all", sentinel.url())));
                }
                let replicas = sentinel.command(&["SENTINEL", "REPLICAS", NAME])?;
                if !replicas.contains("master-link-status\nok") {
                    return Ok(Some(format!("{} sees no good replica", sentinel.url())));
                }
            }
            Ok(None)
        })
    }

    /// The port of the primary in one Sentinel's eyes.
    fn vote(&self, sentinel: &Server) -> Option<u16> {
        let reply = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).ok()?;
        reply.lines().nth(1)?.parse().ok()
    }

    fn any(&self) -> Result<&Server> {
        self.sentinels
            .iter()
            .find(|sentinel| sentinel.process_id().is_some())
            .ok_or_else(|| Error::Unknown("living Sentinel".to_owned()))
    }

    fn index(&self, port: u16) -> usize {
        self.servers.iter().position(|server| server.port() == port).unwrap_or(usize::MAX)
    }
}

/// Name and value alternate in the reply.
fn fields(text: &str) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    let mut lines = text.lines();
    while let (Some(name), Some(value)) = (lines.next(), lines.next()) {
        fields.push((name.to_owned(), value.to_owned()));
    }
    fields
}
