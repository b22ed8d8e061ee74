//! The adapter to fred.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::fred::clients::{Client, Pool};
use ::fred::interfaces::{ClientLike as _, TransactionInterface as _};
use ::fred::types::config::Options;
use ::fred::types::{ClusterHash, CustomCommand, Value};
use async_trait::async_trait;

use super::{Answer, Connect, Driver, DriverExt as _, DynDriver, refuse_blocking};
use crate::{Batch, Cmd, Error, ErrorKind, Reply, Result};

/// A [`Driver`] over a fred client or pool that the caller has initialised.
///
/// fred is told to write each command once: by default it repeats commands after a broken connection, and a write
/// would run twice.
/// A client without a command time-out of its own gets one second, since fred would wait for ever.
/// Give the client a reconnect policy: without one fred does not reconnect.
/// On a cluster a call that meets a moved slot ends in a transient error, because fred counts a redirection as a
/// repetition; the next call finds the slot.
///
/// A command that fails inside an atomic batch (`EXEC` ran, one command was refused) turns the answer to the whole batch
/// into its error, with [`Error::maybe_applied`]: fred does not hand over the other answers.
#[derive(Clone)]
pub struct FredDriver {
    client: FredClient,
    timeout: Duration,
    dedicated: bool,
}

/// A fred client of any kind that [`FredDriver::new`] takes.
#[derive(Clone)]
pub struct FredClient(Kind);

#[derive(Clone)]
enum Kind {
    One(Client),
    Pool(Pool),
}

impl From<Client> for FredClient {
    fn from(client: Client) -> Self {
        Self(Kind::One(client))
    }
}

impl From<Pool> for FredClient {
    fn from(pool: Pool) -> Self {
        Self(Kind::Pool(pool))
    }
}

impl fmt::Debug for FredClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::One(_) => "Client",
            Kind::Pool(_) => "Pool",
        })
    }
}

impl FredDriver {
    /// Wraps a `fred::clients::Client` or `fred::clients::Pool`.
    #[must_use]
    pub fn new(client: impl Into<FredClient>) -> Self {
        let client = client.into();
        let own = match &client.0 {
            Kind::One(client) => client.perf_config().default_command_timeout,
            Kind::Pool(pool) => pool.next().perf_config().default_command_timeout,
        };
        let timeout = if own.is_zero() { Duration::from_secs(1) } else { own };
        Self { client, timeout, dedicated: false }
    }

    /// Sets how long a command may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Returns the driver behind a shared pointer.
    #[must_use]
    pub fn into_driver(self) -> DynDriver {
        Arc::new(self)
    }

    fn client(&self) -> &Client {
        match &self.client.0 {
            Kind::One(client) => client,
            Kind::Pool(pool) => pool.next(),
        }
    }

    fn options(&self, cmds: &[Cmd]) -> Options {
        let wait: Duration = cmds.iter().filter_map(Cmd::blocking_for).sum();
        let for_ever = cmds.iter().any(|cmd| cmd.blocking_for() == Some(Duration::ZERO));
        let timeout = if for_ever { Duration::MAX } else { self.timeout.saturating_add(wait) };
        Options { max_attempts: Some(1), timeout: Some(timeout), ..Options::default() }
    }
}

impl fmt::Debug for FredDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FredDriver")
            .field("client", &self.client)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Driver for FredDriver {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        if !self.dedicated {
            refuse_blocking(std::slice::from_ref(&cmd))?;
        }
        let client = self.client().with_options(&self.options(std::slice::from_ref(&cmd)));
        let (command, args) = to_fred(&cmd);
        read(&cmd, client.custom(command, args).await)
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        if !self.dedicated {
            refuse_blocking(batch.cmds())?;
        }
        let cmds = batch.cmds();
        let writes = !cmds.iter().all(Cmd::is_readonly);
        let options = self.options(cmds);
        if batch.is_atomic() {
            let transaction = self.client().multi().with_options(&options);
            for cmd in cmds {
                let (command, args) = to_fred(cmd);
                transaction
                    .custom::<Value, Value>(command, args)
                    .await
                    .map_err(|error| to_error(&error, false))?;
            }
            return match transaction.exec::<Value>(true).await {
                Ok(Value::Array(values)) => Ok(values.into_iter().map(to_reply).map(Ok).collect()),
                Ok(_) => Err(Error::new(
                    ErrorKind::Reply,
                    "expected the replies of a transaction, got none",
                )
                .with_maybe_applied(writes)),
                Err(error) => {
                    let error = to_error(&error, writes);
                    // fred does not tell a refusal before EXEC from one inside it.
                    let ran = error.kind() == ErrorKind::Server && !error.is_transient();
                    let maybe_applied = error.maybe_applied() || (ran && writes);
                    Err(error.with_maybe_applied(maybe_applied))
                }
            };
        }
        let pipeline = self.client().pipeline().with_options(&options);
        for cmd in cmds {
            let (command, args) = to_fred(cmd);
            pipeline
                .custom::<Value, Value>(command, args)
                .await
                .map_err(|error| to_error(&error, false))?;
        }
        let mut values = pipeline.try_all::<Value>().await;
        if values.len() == cmds.len() {
            return Ok(cmds.iter().zip(values).map(|(cmd, value)| read(cmd, value)).collect());
        }
        Err(match values.pop() {
            Some(Err(error)) => to_error(&error, writes),
            _ => Error::new(
                ErrorKind::Reply,
                format!("expected {} replies, got {}", cmds.len(), values.len()),
            )
            .with_maybe_applied(writes),
        })
    }
}

#[async_trait]
impl Connect for FredDriver {
    /// Dropping the connection, or giving up a command on it, has it killed through the shared client, since fred itself
    /// lets a blocking command wait on; on a cluster that is left to the server's own time limit.
    async fn connect(&self) -> Result<DynDriver> {
        let own = Own { shared: self.clone(), open: tokio::sync::Mutex::new(None) };
        *own.open.lock().await = Some(own.open().await?);
        Ok(Arc::new(own))
    }
}

/// A fred client of one's own.
#[derive(Debug)]
struct Own {
    shared: FredDriver,
    // Held across a call: the connection serves one at a time. Empty after a call that was given up.
    open: tokio::sync::Mutex<Option<Opened>>,
}

/// An open connection; it is killed when dropped.
#[derive(Debug)]
struct Opened {
    own: FredDriver,
    shared: FredDriver,
    /// The server's number of the connection.
    id: Option<i64>,
}

impl Own {
    async fn open(&self) -> Result<Opened> {
        let client = self.shared.client().clone_new();
        let timeout = self.shared.timeout;
        match tokio::time::timeout(timeout, client.init()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(to_error(&error, false)),
            Err(_) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "no connection within the configured time",
                ));
            }
        }
        let own = FredDriver { client: client.into(), timeout, dedicated: true };
        let mut opened = Opened { own, shared: self.shared.clone(), id: None };
        opened.id = opened.own.query(Cmd::new("CLIENT").arg("ID")).await.ok();
        Ok(opened)
    }

    async fn exchange<T>(&self, send: impl AsyncFnOnce(&FredDriver) -> Result<T>) -> Result<T> {
        let mut place = self.open.lock().await;
        let opened = match place.take() {
            Some(opened) => opened,
            None => self.open().await?,
        };
        // If this future is dropped here the connection goes with it.
        let outcome = send(&opened.own).await;
        if !outcome.as_ref().is_err_and(Error::is_transient) {
            *place = Some(opened);
        }
        outcome
    }
}

impl Driver for Own {
    fn call<'a, 'b>(&'a self, cmd: Cmd) -> Answer<'b, Reply>
    where
        'a: 'b,
    {
        Box::pin(self.exchange(async move |own: &FredDriver| own.call(cmd).await))
    }

    fn pipeline<'a, 'b>(&'a self, batch: Batch) -> Answer<'b, Vec<Result<Reply>>>
    where
        'a: 'b,
    {
        Box::pin(self.exchange(async move |own: &FredDriver| own.pipeline(batch).await))
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let (client, shared, id) = (self.own.client().clone(), self.shared.clone(), self.id);
        // fred ends its own task only when it is told to, and nobody waits here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            drop(runtime.spawn(async move {
                if let Some(id) = id {
                    let kill = Cmd::new("CLIENT").arg("KILL").arg("ID").arg(id);
                    let _ = shared.call(kill).await;
                }
                client.quit().await
            }));
        }
    }
}

fn to_fred(cmd: &Cmd) -> (CustomCommand, Vec<Value>) {
    // fred ignores the offset of a custom command's key, so it gets the slot.
    let hash = cmd.slot().map_or(ClusterHash::Random, ClusterHash::Custom);
    let command = CustomCommand::new(cmd.name().to_owned(), hash, cmd.blocking_for().is_some());
    let args =
        cmd.iter().skip(1).map(|part| Value::Bytes(bytes::Bytes::copy_from_slice(part))).collect();
    (command, args)
}

fn read(cmd: &Cmd, value: ::fred::prelude::FredResult<Value>) -> Result<Reply> {
    match value {
        Ok(value) => Ok(to_reply(value)),
        Err(error) => Err(to_error(&error, !cmd.is_readonly()).with("command", cmd.name())),
    }
}

fn to_reply(value: Value) -> Reply {
    match value {
        Value::Boolean(value) => Reply::Bool(value),
        Value::Integer(value) => Reply::Int(value),
        Value::Double(value) => Reply::Double(value),
        // fred does not tell status lines from strings.
        Value::String(text) => match &*text {
            "OK" => Reply::Status(bytes::Bytes::from_static(b"OK")),
            _ => Reply::Bulk(text.into_inner()),
        },
        Value::Bytes(bytes) => Reply::Bulk(bytes),
        Value::Null => Reply::Nil,
        Value::Queued => Reply::Status(bytes::Bytes::from_static(b"QUEUED")),
        Value::Map(map) => Reply::Map(
            map.inner()
                .into_iter()
                .map(|(name, value)| {
                    (Reply::Bulk(bytes::Bytes::copy_from_slice(name.as_bytes())), to_reply(value))
                })
                .collect(),
        ),
        Value::Array(values) => Reply::Array(values.into_iter().map(to_reply).collect()),
    }
}

fn to_error(error: &::fred::error::Error, writes: bool) -> Error {
    use ::fred::error::ErrorKind as Theirs;
    let (kind, maybe_applied, message) = match error.kind() {
        Theirs::Auth => return Error::server(error.details()),
        Theirs::Timeout => {
            (ErrorKind::Timeout, writes, "the server did not answer within the configured time")
        }
        Theirs::IO | Theirs::Canceled => {
            (ErrorKind::Connection, writes, "the connection broke before the answer came")
        }
        Theirs::Routing | Theirs::Sentinel => {
            (ErrorKind::Connection, false, "no node could be reached")
        }
        Theirs::Config | Theirs::Url | Theirs::InvalidCommand => {
            (ErrorKind::Config, false, "the client refused the request")
        }
        Theirs::Parse | Theirs::Protocol => {
            (ErrorKind::Reply, writes, "the server's reply could not be read")
        }
        // RediSearch answers without a code; these two texts are the client's own.
        Theirs::Unknown
            if !["Missing response.", "Too many failed write attempts."]
                .contains(&error.details())
                && !error.details().split(' ').next().is_some_and(is_code) =>
        {
            return Error::server(error.details()).with_maybe_applied(writes);
        }
        _ if error.details().split(' ').next().is_some_and(is_code) => {
            return Error::server(error.details());
        }
        _ => (ErrorKind::Connection, writes, "the command was not answered"),
    };
    Error::new(kind, message).with_maybe_applied(maybe_applied).with_source(error.clone())
}

/// Whether a word is the code of a server's error reply.
fn is_code(word: &str) -> bool {
    1 < word.len() && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}
