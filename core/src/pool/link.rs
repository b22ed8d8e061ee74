use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use ::redis::ConnectionAddr;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, select_ok};
use tokio::time::timeout;

use super::config::{PoolConfig, Protocol, Target};
use crate::driver::redis::{connect_error, read, to_redis};
use crate::{Cmd, Error, ErrorKind, Result, observe};

/// How many unused handles of a connection are kept.
const MOST_IDLE: usize = 64;

/// One multiplexed connection to a node, opened on first use and replaced when it breaks or goes silent.
pub(super) struct Link {
    // A `std` mutex: it is held to look and to hand over, never across an await.
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: Option<Live>,
    /// Handles of `live` that no call is using. Taking one and giving it back is cheaper than a clone for each call,
    /// which counts references up and down that all threads share.
    idle: Vec<Live>,
    /// The connection that is being opened. Whoever waits for it drives it, so it outlives callers that give up.
    dialing: Option<(Instant, Dialing)>,
}

type Dialing = Shared<BoxFuture<'static, Result<Live>>>;

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
    /// When a call first went unanswered with no answer to any call after it: microseconds after `since`, or 0.
    unanswered: AtomicU64,
}

impl Link {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default() }
    }

    /// Lends a handle of the open connection, unless there is none or it is known to have ended.
    pub(super) fn lend<'a>(&'a self, config: &'a PoolConfig) -> Option<Lent<'a>> {
        let mut state = self.lock();
        let live = state.live.as_ref()?;
        if live.health.closed.load(Ordering::Acquire) {
            return None;
        }
        let live = state.idle.pop().or_else(|| state.live.clone())?;
        Some(Lent { link: self, config, live: Some(live), counts: true })
    }

    /// Opens a connection, or waits for the one that is being opened, for at most the configured time.
    pub(super) async fn dial<'a>(
        &'a self,
        config: &'a Arc<PoolConfig>,
        address: &Address,
    ) -> Result<Lent<'a>> {
        let dialing = {
            if let Some(lent) = self.lend(config) {
                return Ok(lent);
            }
            let mut state = self.lock();
            match &state.dialing {
                // One that nobody drove to its end has had its time.
                Some((begun, dialing)) if begun.elapsed() < config.timeout => dialing.clone(),
                _ => {
                    let (config, address) = (Arc::clone(config), address.clone());
                    let open = async move { open(&config, &address, Some(config.timeout)).await };
                    let dialing = open.boxed().shared();
                    state.dialing = Some((Instant::now(), dialing.clone()));
                    dialing
                }
            }
        };
        let outcome = timeout(config.timeout, dialing.clone()).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "no connection within the configured time"))
        });
        let mut state = self.lock();
        if state.dialing.as_ref().is_some_and(|(_, current)| current.ptr_eq(&dialing)) {
            state.dialing = None;
            state.idle.clear();
            state.live = outcome.as_ref().ok().cloned();
        }
        drop(state);
        outcome.map(|live| Lent { link: self, config, live: Some(live), counts: true })
    }

    fn give_back(&self, live: Live) {
        let mut state = self.lock();
        let current = state.live.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(&current.health, &live.health))
            && state.idle.len() < MOST_IDLE
        {
            state.idle.push(live);
        }
    }

    fn give_up(&self, live: &Live, reason: &'static str) {
        let mut state = self.lock();
        let current = state.live.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(&current.health, &live.health)) {
            let handles = (state.live.take(), std::mem::take(&mut state.idle));
            drop(state);
            drop(handles);
            observe::reconnect(reason);
            tracing::debug!(reason, "giving up a connection");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection for the time of one call.
///
/// A call that is dropped before its answer counts as unanswered, as one that timed out does.
pub(super) struct Lent<'a> {
    link: &'a Link,
    config: &'a PoolConfig,
    live: Option<Live>,
    counts: bool,
}

impl Lent<'_> {
    /// Does not hold it against the connection if this call is dropped.
    pub(super) fn without_blame(mut self) -> Self {
        self.counts = false;
        self
    }

    pub(super) fn connection(&mut self) -> Result<&mut MultiplexedConnection> {
        match &mut self.live {
            Some(live) => Ok(&mut live.connection),
            None => Err(Error::new(ErrorKind::Connection, "the connection was given back")),
        }
    }

    /// Notes how the call ended, and gives the connection back, or up.
    pub(super) fn finish<T>(mut self, outcome: Result<T>) -> Result<T> {
        let Some(live) = self.live.take() else { return outcome };
        let reason = match outcome.as_ref().map_err(Error::kind) {
            Err(ErrorKind::Timeout) if !live.health.is_silent(self.config) => None,
            Err(ErrorKind::Timeout) => Some("silent"),
            Err(ErrorKind::Connection | ErrorKind::Reply) => Some("broken"),
            // The node lost its role; a new connection finds the new primary. Not more than once a second, for a
            // node that is a replica for good.
            Err(ErrorKind::ReadOnly) if Duration::from_secs(1) < live.health.since.elapsed() => {
                Some("moved")
            }
            _ => {
                live.health.answered();
                None
            }
        };
        match reason {
            Some(reason) => self.link.give_up(&live, reason),
            None => self.link.give_back(live),
        }
        outcome
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(live) = self.live.take()
            && self.counts
            && live.health.is_silent(self.config)
        {
            self.link.give_up(&live, "silent");
        }
    }
}

impl Health {
    fn answered(&self) {
        if self.unanswered.load(Ordering::Relaxed) != 0 {
            self.unanswered.store(0, Ordering::Release);
        }
    }

    /// Notes a call without an answer; tells whether the connection has now been silent for too long.
    ///
    /// The first such call has waited one time limit; the connection is silent when the others are over as well and no
    /// call has been answered since. Calls that time out together count as one.
    fn is_silent(&self, config: &PoolConfig) -> bool {
        let now = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX).max(1);
        let patience = config.timeout * (config.silent_after - 1) * 9 / 10;
        match self.unanswered.compare_exchange(0, now, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => patience.is_zero(),
            Err(first) => patience <= Duration::from_micros(now.saturating_sub(first)),
        }
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
    let opening = async {
        match (address, &config.target) {
            (Address::Node(info), _) => connect(config, (**info).clone(), response_timeout).await,
            (Address::Primary, Target::Sentinel { primary, sentinels, node }) => {
                let at = find_primary(config, primary, sentinels).await?;
                let info = node.clone().set_addr(super::topology::at(node.addr(), &at.0, at.1));
                let mut live = connect(config, info, response_timeout).await?;
                let role: Vec<crate::Reply> = ask(&mut live, Cmd::new("ROLE").readonly()).await?;
                match role.first().and_then(crate::Reply::as_str) {
                    Some("master") => Ok(live),
                    _ => Err(Error::server("READONLY the Sentinels still name a demoted primary")),
                }
            }
            (Address::Primary, _) => {
                Err(Error::new(ErrorKind::Config, "only Sentinels name a primary"))
            }
        }
    };
    let result = timeout(config.timeout, opening).await.unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Timeout, "no connection within the configured time"))
    });
    result.map_err(|error| {
        let error = error.with_maybe_applied(false);
        match address {
            Address::Node(info) => error.with("server", info.addr().to_string()),
            Address::Primary => error.with("server", "the primary that the Sentinels name"),
        }
    })
}

async fn connect(
    config: &PoolConfig,
    info: ConnectionInfo,
    response_timeout: Option<Duration>,
) -> Result<Live> {
    let info = config.prepare(info);
    let health = Arc::new(Health {
        since: Instant::now(),
        closed: AtomicBool::new(false),
        unanswered: AtomicU64::new(0),
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
    let connection = client(config, info)?
        .get_multiplexed_async_connection_with_config(&settings)
        .await
        .map_err(connect_error)?;
    Ok(Live { connection, health })
}

#[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "certificates are for TLS"))]
fn client(config: &PoolConfig, info: ConnectionInfo) -> Result<Client> {
    #[cfg(feature = "tls")]
    if let (ConnectionAddr::TcpTls { .. }, Some(pem)) = (info.addr(), &config.ca_certificate) {
        let certificates =
            ::redis::TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) };
        return Client::build_with_tls(info, certificates).map_err(connect_error);
    }
    Client::open(info).map_err(connect_error)
}

/// Asks all Sentinels at once where the primary is, and takes the first that knows.
async fn find_primary(
    config: &PoolConfig,
    primary: &str,
    sentinels: &[ConnectionInfo],
) -> Result<(String, u16)> {
    let asking = sentinels.iter().map(|sentinel| {
        Box::pin(async move {
            let mut live = connect(config, sentinel.clone(), Some(config.timeout)).await?;
            let question = Cmd::new("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(primary);
            let answer: Option<(String, u16)> = ask(&mut live, question.readonly()).await?;
            answer.ok_or_else(|| {
                Error::new(ErrorKind::Connection, "no Sentinel knows a primary of that name")
                    .with("primary", primary)
            })
        })
    });
    let (answer, _) = select_ok(asking).await?;
    Ok(answer)
}

async fn ask<T: crate::FromReply>(live: &mut Live, cmd: Cmd) -> Result<T> {
    let value = live.connection.send_packed_command(&to_redis(&cmd)).await;
    T::from_reply(read(&cmd, value)?)
}
