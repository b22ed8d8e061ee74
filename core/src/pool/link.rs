use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

#[cfg(feature = "tls")]
use ::redis::ConnectionAddr;
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, ConnectionInfo, PushInfo, PushKind};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, select_ok};
use tokio::time::{Sleep, sleep_until, timeout};

use super::config::{PoolConfig, Protocol, Target};
use crate::driver::redis::{connect_error, pipeline_on, read, timed_out, to_redis, write};
use crate::{Cmd, Error, ErrorKind, Reply, Result, observe};

/// How many unused handles of a connection are kept.
const MOST_IDLE: usize = 64;
/// The longest command whose buffer is kept for the next.
const MOST_KEPT: usize = 16 * 1024;

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
    idle: Vec<Handle>,
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

/// A connection with what its calls need one after the other, so that a call allocates and registers little.
struct Handle {
    live: Live,
    /// The buffer of a request.
    request: ::redis::Cmd,
    /// Ends a call that takes too long. It stays registered between calls, and is moved on only when it is over:
    /// once per time limit, and not once per call.
    alarm: Option<Pin<Box<Sleep>>>,
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
        let handle = state.idle.pop().or_else(|| state.live.clone().map(Handle::new))?;
        Some(Lent { link: self, config, handle: Some(handle), counts: true })
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
                    let open = async move { open(&config, &address).await };
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
        let lent =
            |live| Lent { link: self, config, handle: Some(Handle::new(live)), counts: true };
        outcome.map(lent)
    }

    fn give_back(&self, handle: Handle) {
        let mut state = self.lock();
        let current = state.live.as_ref();
        if current.is_some_and(|current| Arc::ptr_eq(&current.health, &handle.live.health))
            && state.idle.len() < MOST_IDLE
        {
            state.idle.push(handle);
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

impl Handle {
    fn new(live: Live) -> Self {
        Self { live, request: ::redis::Cmd::new(), alarm: None }
    }

    async fn call(&mut self, cmd: &Cmd, limit: Duration) -> Result<Reply> {
        self.request.clear();
        write(cmd, &mut self.request);
        let value = {
            let answer = pin!(self.live.connection.send_packed_command(&self.request));
            within(&mut self.alarm, limit, answer).await
        };
        if MOST_KEPT < cmd.byte_len() {
            self.request = ::redis::Cmd::new();
        }
        match value {
            Some(value) => read(cmd, value),
            None => Err(timed_out(std::slice::from_ref(cmd))),
        }
    }
}

/// Waits for an answer for at most `limit`.
///
/// While no call waits, the alarm may wake the task of an earlier one, which changes nothing.
fn within<'a, T>(
    alarm: &'a mut Option<Pin<Box<Sleep>>>,
    limit: Duration,
    // By reference: a future that is moved into another takes its room twice.
    mut answer: Pin<&'a mut impl Future<Output = T>>,
) -> impl Future<Output = Option<T>> {
    let deadline = tokio::time::Instant::now() + limit;
    poll_fn(move |context| {
        if let Poll::Ready(answer) = answer.as_mut().poll(context) {
            return Poll::Ready(Some(answer));
        }
        let alarm = alarm.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        while alarm.as_mut().poll(context).is_ready() {
            if deadline <= alarm.deadline() {
                return Poll::Ready(None);
            }
            // It was set by an earlier call, whose limit was over before that of this one.
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
}

/// A connection for the time of one call.
///
/// A call that is dropped before its answer counts as unanswered, as one that timed out does.
pub(super) struct Lent<'a> {
    link: &'a Link,
    config: &'a PoolConfig,
    handle: Option<Handle>,
    counts: bool,
}

impl Lent<'_> {
    /// Does not hold it against the connection if this call is dropped.
    pub(super) fn without_blame(mut self) -> Self {
        self.counts = false;
        self
    }

    /// Sends one command and waits for its answer for at most the configured time.
    pub(super) async fn call(&mut self, cmd: &Cmd) -> Result<Reply> {
        let outcome = match &mut self.handle {
            Some(handle) => handle.call(cmd, self.config.timeout).await,
            None => Err(given_back()),
        };
        self.finish(outcome)
    }

    /// Sends commands in one round trip and waits for their answers for at most the configured time.
    pub(super) async fn pipeline(
        &mut self,
        cmds: &[Cmd],
        atomic: bool,
    ) -> Result<Vec<Result<Reply>>> {
        let outcome = match &mut self.handle {
            Some(handle) => {
                let answers = pin!(pipeline_on(&mut handle.live.connection, cmds, atomic));
                let answers = within(&mut handle.alarm, self.config.timeout, answers).await;
                answers.unwrap_or_else(|| Err(timed_out(cmds)))
            }
            None => Err(given_back()),
        };
        self.finish(outcome)
    }

    /// Asks whether the server is still there, and still what it was when the connection was opened.
    pub(super) async fn check(mut self, address: &Address) {
        let Some(handle) = &mut self.handle else { return };
        let question = match address {
            Address::Node(_) => Cmd::new("PING"),
            Address::Primary => Cmd::new("ROLE"),
        };
        let outcome = handle.call(&question.readonly(), self.config.timeout).await;
        let outcome = match address {
            Address::Node(_) => outcome.map(|_| ()),
            Address::Primary => outcome.and_then(must_be_primary),
        };
        // What it says about the connection is noted.
        let _ = self.finish(outcome);
    }

    /// Notes how the call ended, and gives the connection back, or up.
    fn finish<T>(&mut self, outcome: Result<T>) -> Result<T> {
        let Some(handle) = self.handle.take() else { return outcome };
        let health = &handle.live.health;
        let reason = match outcome.as_ref().map_err(Error::kind) {
            Err(ErrorKind::Timeout) if !health.is_silent(self.config) => None,
            Err(ErrorKind::Timeout) => Some("silent"),
            Err(ErrorKind::Connection | ErrorKind::Reply) => Some("broken"),
            // The node lost its role; a new connection finds the new primary. Not more than once a second, for a
            // node that is a replica for good.
            Err(ErrorKind::ReadOnly) if Duration::from_secs(1) < health.since.elapsed() => {
                Some("moved")
            }
            _ => {
                health.answered();
                None
            }
        };
        match reason {
            Some(reason) => self.link.give_up(&handle.live, reason),
            None => self.link.give_back(handle),
        }
        outcome
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take()
            && self.counts
            && handle.live.health.is_silent(self.config)
        {
            self.link.give_up(&handle.live, "silent");
        }
    }
}

fn given_back() -> Error {
    Error::new(ErrorKind::Connection, "the connection was given back")
}

/// An error unless a server that answered `ROLE` so is a primary.
fn must_be_primary(role: Reply) -> Result<()> {
    match role.into_array()?.first().and_then(Reply::as_str) {
        Some("master") => Ok(()),
        _ => Err(Error::server("READONLY the Sentinels still name a demoted primary")),
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

/// Opens a connection, on which commands wait as long as they like: their time limits are the caller's.
pub(super) async fn open(config: &PoolConfig, address: &Address) -> Result<Live> {
    let opening = async {
        match (address, &config.target) {
            (Address::Node(info), _) => connect(config, (**info).clone()).await,
            (Address::Primary, Target::Sentinel { primary, sentinels, node }) => {
                let at = find_primary(config, primary, sentinels).await?;
                let info = node.clone().set_addr(super::topology::at(node.addr(), &at.0, at.1));
                let mut live = connect(config, info).await?;
                must_be_primary(ask(&mut live, Cmd::new("ROLE").readonly()).await?)?;
                Ok(live)
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

async fn connect(config: &PoolConfig, info: ConnectionInfo) -> Result<Live> {
    let info = config.prepare(info);
    let health = Arc::new(Health {
        since: Instant::now(),
        closed: AtomicBool::new(false),
        unanswered: AtomicU64::new(0),
    });
    let mut settings = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(config.timeout))
        .set_response_timeout(None);
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
            let mut live = connect(config, sentinel.clone()).await?;
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
