use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind};

use super::config::{PoolConfig, Protocol, Target};
use crate::driver::redis::connect_error;
use crate::{Error, ErrorKind, Result, observe};

/// One multiplexed connection to a node, opened on first use and replaced when it breaks or goes silent.
pub(super) struct Link {
    // A `std` mutex: it is held to look and to clone, never across an await.
    state: Mutex<State>,
    dialing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// How many times a connection was tried, and why the last one failed.
    attempts: u64,
    failure: Option<Error>,
}

/// An open connection with what is known of its health.
#[derive(Clone)]
pub(super) struct Live {
    pub(super) connection: MultiplexedConnection,
    health: Arc<Health>,
}

struct Health {
    since: Instant,
    /// The client saw the connection end.
    closed: AtomicBool,
    /// Time-outs since the last reply.
    timeouts: AtomicU32,
}

impl Link {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), dialing: tokio::sync::Mutex::new(()) }
    }

    /// The open connection, unless there is none or it is known to have ended.
    pub(super) fn live(&self) -> Option<Live> {
        let state = self.lock();
        state.live.as_ref().filter(|live| !live.health.closed.load(Ordering::Acquire)).cloned()
    }

    /// Opens a connection; callers that come meanwhile share its outcome.
    pub(super) async fn dial(&self, config: &PoolConfig, address: &Address) -> Result<Live> {
        let seen = self.lock().attempts;
        let _dialing = self.dialing.lock().await;
        if let Some(live) = self.live() {
            return Ok(live);
        }
        {
            let state = self.lock();
            if state.attempts != seen
                && let Some(failure) = &state.failure
            {
                return Err(failure.duplicate());
            }
        }
        let outcome = open(config, address, Some(config.timeout)).await;
        let mut state = self.lock();
        state.attempts += 1;
        match outcome {
            Ok(live) => {
                state.live = Some(live.clone());
                state.failure = None;
                Ok(live)
            }
            Err(error) => {
                state.live = None;
                state.failure = Some(error.duplicate());
                Err(error)
            }
        }
    }

    /// Notes how a call on `live` ended, and gives the connection up where that says it is no good.
    pub(super) fn judge<T>(&self, live: &Live, outcome: &Result<T>, silent_after: u32) {
        let health = &live.health;
        let reason = match outcome.as_ref().map_err(Error::kind) {
            Err(ErrorKind::Timeout) => {
                if health.timeouts.fetch_add(1, Ordering::AcqRel) + 1 < silent_after {
                    return;
                }
                "silent"
            }
            Err(ErrorKind::Connection | ErrorKind::Reply) => "broken",
            // The node lost its role; a new connection finds the new primary. Not more than once a second, for a
            // node that is a replica for good.
            Err(ErrorKind::ReadOnly) if Duration::from_secs(1) < health.since.elapsed() => "moved",
            _ => {
                if health.timeouts.load(Ordering::Relaxed) != 0 {
                    health.timeouts.store(0, Ordering::Release);
                }
                return;
            }
        };
        let mut state = self.lock();
        if state.live.as_ref().is_some_and(|current| Arc::ptr_eq(&current.health, health)) {
            state.live = None;
            drop(state);
            observe::reconnect(reason);
            tracing::debug!(reason, "giving up a connection");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a link leads.
#[derive(Clone)]
pub(super) enum Address {
    Node(Box<ConnectionInfo>),
    /// Asked from the Sentinels at each dial.
    Primary,
}

/// Opens a connection; with `response_timeout` none, commands wait as long as they like.
pub(super) async fn open(
    config: &PoolConfig,
    address: &Address,
    response_timeout: Option<Duration>,
) -> Result<Live> {
    let within = tokio::time::timeout(config.timeout, async {
        let client = client(config, address).await?;
        let health = Arc::new(Health {
            since: Instant::now(),
            closed: AtomicBool::new(false),
            timeouts: AtomicU32::new(0),
        });
        let mut settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(config.timeout))
            .set_response_timeout(response_timeout);
        if config.protocol == Protocol::Resp3 {
            let health = Arc::clone(&health);
            settings = settings.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    health.closed.store(true, Ordering::Release);
                }
                Ok::<(), std::convert::Infallible>(())
            });
        }
        let connection = client
            .get_multiplexed_async_connection_with_config(&settings)
            .await
            .map_err(connect_error)?;
        Ok(Live { connection, health })
    });
    let result = match within.await {
        Ok(result) => result,
        Err(_) => Err(Error::new(ErrorKind::Timeout, "no connection within the configured time")),
    };
    result.map_err(|error| match address {
        Address::Node(info) => error.with("server", info.addr().to_string()),
        Address::Primary => error.with("server", "the primary that the Sentinels name"),
    })
}

async fn client(config: &PoolConfig, address: &Address) -> Result<Client> {
    let info = match (address, &config.target) {
        (Address::Node(info), _) => (**info).clone(),
        (Address::Primary, Target::Sentinel { primary, sentinels, node }) => {
            // A new one each time: a kept one would hold connections to Sentinels that may be gone.
            let mut sentinels =
                ::redis::sentinel::Sentinel::build(sentinels.clone()).map_err(connect_error)?;
            let found = sentinels
                .async_master_for(primary, None)
                .await
                .map_err(|error| connect_error(error).with("primary", primary))?;
            let address = match (node.addr(), found.get_connection_info().addr()) {
                (
                    ::redis::ConnectionAddr::TcpTls { insecure, tls_params, .. },
                    ::redis::ConnectionAddr::Tcp(host, port),
                ) => ::redis::ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: *insecure,
                    tls_params: tls_params.clone(),
                },
                (_, address) => address.clone(),
            };
            node.clone().set_addr(address)
        }
        (Address::Primary, _) => {
            return Err(Error::new(ErrorKind::Config, "only Sentinels name a primary"));
        }
    };
    let info = config.prepare(info);
    #[cfg(feature = "tls")]
    if matches!(info.addr(), ::redis::ConnectionAddr::TcpTls { .. }) {
        let certificates =
            ::redis::TlsCertificates { client_tls: None, root_cert: config.ca_certificate.clone() };
        return Client::build_with_tls(info, certificates).map_err(connect_error);
    }
    Client::open(info).map_err(connect_error)
}
