//! The adapter to redis-rs; `Pool` builds on the same conversions.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::{ConnectionLike, ConnectionManager, MultiplexedConnection};
use ::redis::cluster_async::ClusterConnection;
use ::redis::{Pipeline, RedisError, ServerErrorKind, Value};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use super::{Connect, Driver, DynDriver, refuse_blocking};
use crate::{Batch, Cmd, Error, ErrorKind, Pool, PoolConfig, Reply, Result};

/// A [`Driver`] over a redis-rs connection that the caller opened.
///
/// Timeouts and reconnecting are the connection's own: a `MultiplexedConnection` does not reconnect, and none of them
/// notices a connection that went silent; [`Pool`](crate::Pool) does both.
/// A batch over a `ClusterConnection` is one pipeline per slot, side by side, since redis-rs sends a pipeline to one slot.
/// A `ClusterConnection` repeats commands by itself after a broken connection, writes included, unless its client was
/// built with `retries(0)`; [`Pool`](crate::Pool) repeats only what did not run.
#[derive(Clone)]
pub struct RedisDriver(RedisConnection);

impl RedisDriver {
    /// Wraps a `redis::aio::ConnectionManager`, `redis::aio::MultiplexedConnection` or
    /// `redis::cluster_async::ClusterConnection`.
    #[must_use]
    pub fn new(connection: impl Into<RedisConnection>) -> Self {
        Self(connection.into())
    }

    /// Returns the driver behind a shared pointer.
    #[must_use]
    pub fn into_driver(self) -> DynDriver {
        Arc::new(self)
    }
}

impl fmt::Debug for RedisDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisDriver").field(&self.0).finish()
    }
}

/// A redis-rs connection of any kind that [`RedisDriver::new`] takes.
#[derive(Clone)]
pub struct RedisConnection(Kind);

#[derive(Clone)]
enum Kind {
    Cluster(ClusterConnection),
    Manager(ConnectionManager),
    Multiplexed(MultiplexedConnection),
}

impl From<ClusterConnection> for RedisConnection {
    fn from(connection: ClusterConnection) -> Self {
        Self(Kind::Cluster(connection))
    }
}

impl From<ConnectionManager> for RedisConnection {
    fn from(connection: ConnectionManager) -> Self {
        Self(Kind::Manager(connection))
    }
}

impl From<MultiplexedConnection> for RedisConnection {
    fn from(connection: MultiplexedConnection) -> Self {
        Self(Kind::Multiplexed(connection))
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Kind::Cluster(_) => "ClusterConnection",
            Kind::Manager(_) => "ConnectionManager",
            Kind::Multiplexed(_) => "MultiplexedConnection",
        })
    }
}

#[async_trait]
impl Driver for RedisDriver {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        refuse_blocking(std::slice::from_ref(&cmd))?;
        let request = to_redis(&cmd);
        let value = match &self.0.0 {
            Kind::Cluster(connection) => connection.clone().req_packed_command(&request).await,
            Kind::Manager(connection) => connection.clone().req_packed_command(&request).await,
            Kind::Multiplexed(connection) => connection.clone().send_packed_command(&request).await,
        };
        read(&cmd, value)
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        refuse_blocking(batch.cmds())?;
        let atomic = batch.is_atomic();
        match &self.0.0 {
            Kind::Cluster(connection) => {
                if atomic {
                    one_slot(batch.cmds())?;
                    return pipeline_on(&mut connection.clone(), batch.cmds(), true).await;
                }
                // redis-rs sends a pipeline to one node, so each slot gets its own.
                by_group(batch.into_cmds(), Cmd::slot, |cmds| {
                    let mut connection = connection.clone();
                    async move { pipeline_on(&mut connection, &cmds, false).await }
                })
                .await
            }
            Kind::Manager(connection) => {
                pipeline_on(&mut connection.clone(), batch.cmds(), atomic).await
            }
            Kind::Multiplexed(connection) => {
                pipeline_on(&mut connection.clone(), batch.cmds(), atomic).await
            }
        }
    }
}

/// [`Connect`] for a redis-rs client: each connection is a new one.
///
/// A connection that broke, timed out or was given up in the middle of a command is opened anew by its next call.
#[derive(Clone, Debug)]
pub struct RedisConnect(Pool);

impl RedisConnect {
    /// Wraps a `redis::Client`; `timeout` bounds opening a connection, and each command beyond its own waiting time.
    #[must_use]
    pub fn new(client: &::redis::Client, timeout: Duration) -> Self {
        Self(Pool::new(PoolConfig::of(client.get_connection_info().clone()).with_timeout(timeout)))
    }
}

#[async_trait]
impl Connect for RedisConnect {
    async fn connect(&self) -> Result<DynDriver> {
        self.0.connect().await
    }
}

pub(crate) fn timed_out(cmds: &[Cmd]) -> Error {
    let name = cmds.first().map(Cmd::name).unwrap_or_default();
    Error::new(ErrorKind::Timeout, "the server did not answer within the configured time")
        .with("command", name)
        .with_maybe_applied(!cmds.iter().all(Cmd::is_readonly))
}

pub(crate) fn to_redis(cmd: &Cmd) -> ::redis::Cmd {
    let mut request = ::redis::Cmd::with_capacity(cmd.len(), cmd.byte_len());
    write(cmd, &mut request);
    request
}

pub(crate) fn write(cmd: &Cmd, request: &mut ::redis::Cmd) {
    for part in cmd.iter() {
        request.arg(part);
    }
}

/// Reads the outcome of one command.
pub(crate) fn read(cmd: &Cmd, value: Result<Value, RedisError>) -> Result<Reply> {
    match value {
        Ok(Value::BulkString(bytes)) => Ok(Reply::Bulk(Bytes::from(bytes))),
        Ok(Value::ServerError(error)) => {
            Err(Error::server(server_text(&error)).with("command", cmd.name()))
        }
        Ok(value) => Ok(to_reply(value)),
        Err(error) => Err(to_error(error, !cmd.is_readonly()).with("command", cmd.name())),
    }
}

/// Sends `cmds` on one connection, in one round trip.
pub(crate) async fn pipeline_on<C: ConnectionLike + Send>(
    connection: &mut C,
    cmds: &[Cmd],
    atomic: bool,
) -> Result<Vec<Result<Reply>>> {
    let mut request = Pipeline::with_capacity(cmds.len());
    if atomic {
        request.atomic();
    }
    for cmd in cmds {
        request.add_command(to_redis(cmd));
    }
    let (offset, count) = if atomic { (cmds.len() + 1, 1) } else { (0, cmds.len()) };
    let writes = !cmds.iter().all(Cmd::is_readonly);
    let mut values = connection
        .req_packed_commands(&request, offset, count)
        .await
        .map_err(|error| to_error(error, writes).with("batch", cmds.len().to_string()))?;
    if atomic {
        values = match values.pop() {
            Some(Value::Array(values)) => values,
            Some(Value::ServerError(error)) => return Err(Error::server(server_text(&error))),
            _ => {
                return Err(Error::new(
                    ErrorKind::Reply,
                    "expected the replies of a transaction, got none",
                )
                .with_maybe_applied(writes));
            }
        };
    }
    if values.len() != cmds.len() {
        return Err(Error::new(
            ErrorKind::Reply,
            format!("expected {} replies, got {}", cmds.len(), values.len()),
        )
        .with_maybe_applied(writes));
    }
    Ok(cmds.iter().zip(values).map(|(cmd, value)| read(cmd, Ok(value))).collect())
}

/// Splits commands into groups, runs the groups side by side and puts the answers back in order.
///
/// Commands without a group make one of their own.
/// A group that fails as a whole fails each of its commands.
async fn by_group<G, F>(
    cmds: Vec<Cmd>,
    group: impl Fn(&Cmd) -> Option<G>,
    run: impl Fn(Vec<Cmd>) -> F,
) -> Result<Vec<Result<Reply>>>
where
    G: Eq + Hash,
    F: Future<Output = Result<Vec<Result<Reply>>>>,
{
    let count = cmds.len();
    let mut groups: HashMap<Option<G>, (Vec<usize>, Vec<Cmd>)> = HashMap::new();
    for (index, cmd) in cmds.into_iter().enumerate() {
        let (indexes, members) = groups.entry(group(&cmd)).or_default();
        indexes.push(index);
        members.push(cmd);
    }
    let runs = groups.into_values().map(|(indexes, members)| {
        let run = run(members);
        async move { (indexes, run.await) }
    });
    let mut answers: Vec<Option<Result<Reply>>> = (0..count).map(|_| None).collect();
    for (indexes, outcome) in join_all(runs).await {
        let mut outcome = outcome.map(Vec::into_iter);
        for index in indexes {
            let answer = match &mut outcome {
                Ok(replies) => replies.next(),
                Err(error) => Some(Err(error.clone())),
            };
            if let Some(place) = answers.get_mut(index) {
                *place = answer;
            }
        }
    }
    let missing = || Err(Error::new(ErrorKind::Reply, "the server left out a reply"));
    Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect())
}

/// The slot of an atomic batch; an error before anything is sent if its keys lie in different ones.
pub(crate) fn one_slot(cmds: &[Cmd]) -> Result<Option<u16>> {
    let mut slots = cmds.iter().filter_map(Cmd::slot);
    let first = slots.next();
    if slots.any(|slot| Some(slot) != first) {
        return Err(Error::new(
            ErrorKind::CrossSlot,
            "the keys of an atomic batch lie in different cluster slots: give them the same {tag}",
        ));
    }
    Ok(first)
}

fn to_reply(value: Value) -> Reply {
    match value {
        Value::Nil => Reply::Nil,
        Value::Int(value) => Reply::Int(value),
        Value::BulkString(bytes) => Reply::Bulk(Bytes::from(bytes)),
        Value::Array(items) | Value::Set(items) => {
            Reply::Array(items.into_iter().map(to_reply).collect())
        }
        Value::SimpleString(text) => Reply::Status(Bytes::from(text)),
        Value::Okay => Reply::Status(Bytes::from_static(b"OK")),
        Value::Map(pairs) => Reply::Map(
            pairs.into_iter().map(|(name, value)| (to_reply(name), to_reply(value))).collect(),
        ),
        Value::Attribute { data, .. } => to_reply(*data),
        Value::Double(value) => Reply::Double(value),
        Value::Boolean(value) => Reply::Bool(value),
        Value::VerbatimString { text, .. } => Reply::Bulk(Bytes::from(text)),
        Value::BigNumber(digits) => Reply::Bulk(Bytes::from(digits.to_vec())),
        Value::Push { data, .. } => Reply::Array(data.into_iter().map(to_reply).collect()),
        Value::ServerError(error) => Reply::Error(server_text(&error)),
        other => Reply::Error(format!("ERR a reply of an unknown kind: {other:?}")),
    }
}

fn server_text(error: &::redis::ServerError) -> String {
    match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    }
}

/// Classifies what went wrong before anything was sent.
pub(crate) fn connect_error(error: RedisError) -> Error {
    let told = error.to_string();
    let message = if told.contains("certificate") {
        return Error::new(
            ErrorKind::Config,
            "the server's certificate is not trusted: give the right authority with with_ca_certificate",
        )
        .with_source(error);
    } else if error.is_connection_refusal() || !error.is_io_error() || error.is_timeout() {
        return to_error(error, false);
    } else if told.contains("lookup") || told.contains("resolve") {
        "the server's name could not be resolved"
    } else {
        "the connection could not be opened"
    };
    Error::new(ErrorKind::Connection, message).with_source(error)
}

/// Classifies a redis-rs error; `writes` tells whether the request, if it was sent, may have changed something.
pub(crate) fn to_error(error: RedisError, writes: bool) -> Error {
    use ::redis::ErrorKind as Theirs;
    let (kind, maybe_applied, message) = match error.kind() {
        Theirs::Io if error.is_timeout() => {
            (ErrorKind::Timeout, writes, "the server did not answer within the configured time")
        }
        Theirs::Io if error.is_connection_refusal() => {
            (ErrorKind::Connection, false, "the server refuses connections: is it running there?")
        }
        Theirs::Io => {
            (ErrorKind::Connection, writes, "the connection broke before the answer came")
        }
        Theirs::AuthenticationFailed => {
            (ErrorKind::Auth, false, "the server refused the credentials")
        }
        Theirs::Server(ServerErrorKind::ExecAbort) => {
            // The command that was refused says more than the transaction that was discarded for it.
            let refused = error.into_server_errors();
            let first = refused.as_ref().and_then(|refused| refused.first());
            return Error::server(match first {
                Some((_, refusal)) => server_text(refusal),
                None => "EXECABORT the server discarded the transaction".to_owned(),
            });
        }
        Theirs::Server(_) | Theirs::Extension => {
            let code = error.code().unwrap_or("ERR");
            return Error::server(match error.detail() {
                Some(detail) => format!("{code} {detail}"),
                None => code.to_owned(),
            });
        }
        Theirs::Parse | Theirs::UnexpectedReturnType => {
            (ErrorKind::Reply, writes, "the server's reply could not be read")
        }
        Theirs::MasterNameNotFoundBySentinel => {
            (ErrorKind::Connection, false, "no Sentinel knows a primary of that name")
        }
        Theirs::ClusterConnectionNotFound | Theirs::NoValidReplicasFoundBySentinel => {
            (ErrorKind::Connection, false, "no node could be reached")
        }
        Theirs::RESP3NotSupported => {
            (ErrorKind::Config, false, "the server does not speak RESP3: set the protocol to RESP2")
        }
        _ => (ErrorKind::Config, false, "the client refused the request"),
    };
    Error::new(kind, message).with_maybe_applied(maybe_applied).with_source(error)
}
