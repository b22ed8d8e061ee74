use std::fmt;
use std::time::Duration;

use ::redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion};

use crate::{Error, ErrorKind, Result};

/// Where a [`Pool`](super::Pool) connects to, and how.
///
/// `Debug` shows addresses and limits, never a user name or a password.
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use inferkit_core::PoolConfig;
///
/// let config = PoolConfig::single("redis://:secret@127.0.0.1:6379")?
///     .with_timeout(Duration::from_millis(500));
/// assert!(!format!("{config:?}").contains("secret"));
/// # Ok::<(), inferkit_core::Error>(())
/// ```
#[derive(Clone)]
pub struct PoolConfig {
    pub(super) target: Target,
    pub(super) timeout: Duration,
    pub(super) connections: usize,
    pub(super) protocol: Protocol,
    pub(super) silent_after: u32,
    #[cfg(feature = "tls")]
    pub(super) ca_certificate: Option<Vec<u8>>,
}

#[derive(Clone)]
pub(super) enum Target {
    Cluster(Vec<ConnectionInfo>),
    Sentinel { primary: String, sentinels: Vec<ConnectionInfo>, node: ConnectionInfo },
    Single(ConnectionInfo),
}

/// The version of the protocol between client and server.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Protocol {
    /// Understood by every server; a connection that broke while idle is only noticed by the next call.
    Resp2,
    /// The default: typed replies, search warnings, and broken connections are noticed at once.
    #[default]
    Resp3,
}

impl PoolConfig {
    /// One server: `redis://[user:password@]host[:port][/db]`, `rediss://…` for TLS, `unix:///path`.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if the URL cannot be read, or asks for TLS without the feature `tls`.
    pub fn single(url: &str) -> Result<Self> {
        Ok(Self::new(Target::Single(parse(url)?)))
    }

    /// A Redis Cluster, entered through any of the nodes at `urls`.
    ///
    /// Credentials and TLS are those of the first URL, for all nodes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `urls` is empty or one cannot be read.
    pub fn cluster<U: AsRef<str>>(urls: &[U]) -> Result<Self> {
        Ok(Self::new(Target::Cluster(parse_all(urls)?)))
    }

    /// The primary named `primary` that the Sentinels at `urls` watch.
    ///
    /// `node` gives the credentials, database and TLS for the primary itself, as `redis://user:password@ignored/0`;
    /// its host and port are not used.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] if `urls` is empty or one cannot be read.
    pub fn sentinel<U: AsRef<str>>(primary: &str, urls: &[U], node: Option<&str>) -> Result<Self> {
        let sentinels = parse_all(urls)?;
        let node = parse(node.unwrap_or("redis://sentinel-finds-it"))?;
        Ok(Self::new(Target::Sentinel { primary: primary.to_owned(), sentinels, node }))
    }

    /// The server that a redis-rs client leads to, with the client's own protocol.
    pub(crate) fn of(info: ConnectionInfo) -> Self {
        let protocol = match info.redis_settings().protocol() {
            ProtocolVersion::RESP3 => Protocol::Resp3,
            _ => Protocol::Resp2,
        };
        Self::new(Target::Single(info)).with_protocol(protocol)
    }

    fn new(target: Target) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            target,
            timeout: Duration::from_secs(1),
            connections: (cores / 4).clamp(1, 8),
            protocol: Protocol::default(),
            silent_after: 2,
            #[cfg(feature = "tls")]
            ca_certificate: None,
        }
    }

    /// Sets how long a call may wait for a connection, and then for its answer; the default is one second.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the number of connections per node.
    ///
    /// The default is one for every four cores, at least one, at most eight.
    /// One multiplexed connection serves thousands of tasks, and more of them are slower until values are large.
    #[must_use]
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets the protocol; the default is [`Protocol::Resp3`].
    #[must_use]
    pub fn with_protocol(mut self, protocol: Protocol) -> Self {
        self.protocol = protocol;
        self
    }

    /// Sets after how many time limits, with calls waiting and none answered, a connection counts as silent and is
    /// replaced; the default is 2.
    #[must_use]
    pub fn with_silent_after(mut self, timeouts: u32) -> Self {
        self.silent_after = timeouts.max(1);
        self
    }

    /// Sets user and password for every node of the target.
    #[must_use]
    pub fn with_credentials(mut self, username: Option<&str>, password: &str) -> Self {
        let set = |info: &mut ConnectionInfo| {
            let mut settings = info.redis_settings().clone().set_password(password);
            if let Some(username) = username {
                settings = settings.set_username(username);
            }
            *info = info.clone().set_redis_settings(settings);
        };
        match &mut self.target {
            Target::Cluster(seeds) => seeds.iter_mut().for_each(set),
            Target::Sentinel { node, .. } => set(node),
            Target::Single(info) => set(info),
        }
        self
    }

    /// Trusts the certificate authority in `pem` instead of the system's.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn with_ca_certificate(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificate = Some(pem.into());
        self
    }

    /// The settings of a connection to `info`.
    pub(super) fn prepare(&self, info: ConnectionInfo) -> ConnectionInfo {
        let protocol = match self.protocol {
            Protocol::Resp2 => ProtocolVersion::RESP2,
            Protocol::Resp3 => ProtocolVersion::RESP3,
        };
        let settings = info.redis_settings().clone().set_protocol(protocol);
        let tcp = info.tcp_settings().clone().set_nodelay(true);
        info.set_redis_settings(settings).set_tcp_settings(tcp)
    }
}

impl fmt::Debug for PoolConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = |infos: &[ConnectionInfo]| {
            infos.iter().map(|info| info.addr().to_string()).collect::<Vec<_>>().join(",")
        };
        let target = match &self.target {
            Target::Cluster(seeds) => format!("cluster via {}", addresses(seeds)),
            Target::Sentinel { primary, sentinels, .. } => {
                format!("{primary} via sentinels {}", addresses(sentinels))
            }
            Target::Single(info) => info.addr().to_string(),
        };
        f.debug_struct("PoolConfig")
            .field("target", &target)
            .field("timeout", &self.timeout)
            .field("connections", &self.connections)
            .field("protocol", &self.protocol)
            .finish_non_exhaustive()
    }
}

fn parse_all<U: AsRef<str>>(urls: &[U]) -> Result<Vec<ConnectionInfo>> {
    if urls.is_empty() {
        return Err(Error::new(ErrorKind::Config, "at least one address is needed"));
    }
    urls.iter().map(|url| parse(url.as_ref())).collect()
}

fn parse(url: &str) -> Result<ConnectionInfo> {
    // The URL may hold a password, so it is not part of the error, nor is the parser's own.
    let info = url.into_connection_info().map_err(|_| {
        Error::new(
            ErrorKind::Config,
            "this is not a server's URL: use redis://host:port, rediss://host:port (feature `tls`) or unix:///path",
        )
    })?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { .. }) {
        #[cfg(not(feature = "tls"))]
        return Err(Error::new(
            ErrorKind::Config,
            "rediss:// needs the feature `tls` of inferkit-core",
        ));
    }
    Ok(info)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_urls_are_refused_without_being_shown() {
        for url in ["", "http://:hunter2@x", "redis://:hunter2@host:notaport"] {
            let error = PoolConfig::single(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(!format!("{error:?} {error}").contains("hunter2"));
        }
        let none: [&str; 0] = [];
        assert!(PoolConfig::cluster(&none).is_err());
    }

    #[test]
    fn debug_shows_no_secret() {
        let config = PoolConfig::cluster(&["redis://ann:hunter2@127.0.0.1:7000"])
            .unwrap()
            .with_credentials(Some("bob"), "hunter3");
        let text = format!("{config:?}");
        assert!(text.contains("127.0.0.1:7000"), "{text}");
        assert!(!["hunter", "ann", "bob"].iter().any(|secret| text.contains(secret)), "{text}");
    }
}
