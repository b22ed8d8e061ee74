use std::sync::Arc;
use std::time::{Duration, Instant};

use inferkit::chatsession::{
    Append, Config, Janitor, Lifetime, MemoryArchive, Message, NewSession, RedisSessionStore,
    SessionId, SessionStore, SessionStoreExt as _, UserId,
};
use inferkit::core::keys::Namespace;
use inferkit::core::{DynDriver, Pool, PoolConfig};
use inferkit_localredis::{Flavor, Server, unique_prefix};
use redis::aio::MultiplexedConnection;

use crate::{Effort, Line, Promise, Result, median_micros, raw_connection};

const MESSAGES: u64 = 50;
const TOKENS: u64 = 100;

/// What it takes to append a message of 400 bytes and to read a window of 50, beside a bare `XADD` of the same entry and a
/// bare `XREVRANGE` of the same log; and to archive and delete idle sessions, beside reading and deleting their keys.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Plain)).await??;
    let pool = Pool::connect_with(PoolConfig::single(server.url())?.with_connections(1)).await?;
    let driver = pool.into_driver();
    let raw = raw_connection(&server).await?;
    let store = store(&driver, Lifetime::default())?;
    let text = "Plants turn light into sugar. ".repeat(14);
    let text = text.get(..400).unwrap_or_default();
    let session = create(&store, "appended").await?;
    let calls = 4000 / effort.divisor;
    let append_cpu = Promise::at_most("chatsession", "append_cpu", 2.0, "us of server CPU")
        .measure(
            effort,
            async || append(&server, &store, &session, text, calls).await,
            async || xadd(&server, &raw, text, calls).await,
        )
        .await?;

    let session = create(&store, "read").await?;
    for _ in 0..200 {
        let _ = store.say(&session, Message::user(text).with_tokens(TOKENS)).await?;
    }
    let log = store.log_key(&session).to_string();
    let calls = 2000 / effort.divisor;
    let window50 = Promise::at_most("chatsession", "window50", 1.15, "us")
        .measure(
            effort,
            async || window(&store, &session, calls).await,
            async || xrevrange(&raw, &log, calls).await,
        )
        .await?;

    let sessions = 2000 / effort.divisor;
    let archive_cpu = Promise::at_most("chatsession", "archive_cpu", 4.0, "us of server CPU")
        .measure(
            effort,
            async || archive(&server, &driver, text, sessions).await,
            async || read_and_delete(&server, &driver, &raw, text, sessions).await,
        )
        .await?;
    Ok(vec![append_cpu, window50, archive_cpu])
}

fn store(driver: &DynDriver, lifetime: Lifetime) -> Result<RedisSessionStore> {
    let config = Config::new().with_namespace(Namespace::new(&unique_prefix())?);
    Ok(RedisSessionStore::new(Arc::clone(driver), config.with_lifetime(lifetime))?)
}

async fn create(store: &RedisSessionStore, name: &str) -> Result<SessionId> {
    let id = SessionId::new(name)?;
    store.create(&NewSession::new(id.clone(), UserId::new("ann")?)).await?;
    Ok(id)
}

/// The CPU time of the server's main thread so far, in microseconds.
fn server_cpu(server: &Server) -> Result<f64> {
    let info = server.command(&["INFO", "cpu"])?;
    let seconds = ["used_cpu_user_main_thread:", "used_cpu_sys_main_thread:"].map(|name| {
        let value = info.lines().find_map(|line| line.strip_prefix(name));
        value.and_then(|value| value.trim().parse::<f64>().ok())
    });
    match seconds {
        [Some(user), Some(system)] => Ok((user + system) * 1e6),
        _ => Err("the server does not tell its CPU time".into()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a number of calls")]
fn per_call(spent: f64, calls: usize) -> f64 {
    spent / calls as f64
}

async fn append(
    server: &Server,
    store: &RedisSessionStore,
    session: &SessionId,
    text: &str,
    calls: usize,
) -> Result<f64> {
    let before = server_cpu(server)?;
    for _ in 0..calls {
        let _ = store.say(session, Message::user(text).with_tokens(TOKENS)).await?;
    }
    Ok(per_call(server_cpu(server)? - before, calls))
}

async fn xadd(
    server: &Server,
    raw: &MultiplexedConnection,
    text: &str,
    calls: usize,
) -> Result<f64> {
    let mut raw = raw.clone();
    let before = server_cpu(server)?;
    for _ in 0..calls {
        // The fields of the entry that ours stores.
        let fields = ["v", "1t", "role", "user", "content", text, "tokens", "100", "at", "100"];
        let id: String = redis::cmd("XADD")
            .arg("raw")
            .arg("*")
            .arg(&fields)
            .arg(&["extra", "", "parent", ""])
            .query_async(&mut raw)
            .await?;
        if id.is_empty() {
            return Err("nothing was added".into());
        }
    }
    Ok(per_call(server_cpu(server)? - before, calls))
}

async fn window(store: &RedisSessionStore, session: &SessionId, calls: usize) -> Result<f64> {
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        let recent = store.recent(session, MESSAGES * TOKENS).await?;
        times.push(start.elapsed().as_secs_f64());
        if recent.is_none_or(|recent| recent.entries.len() != 50) {
            return Err("a message is missing".into());
        }
    }
    Ok(median_micros(times))
}

async fn xrevrange(raw: &MultiplexedConnection, log: &str, calls: usize) -> Result<f64> {
    let mut raw = raw.clone();
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let start = Instant::now();
        let messages: Vec<redis::Value> = redis::cmd("XREVRANGE")
            .arg(log)
            .arg("+")
            .arg("-")
            .arg("COUNT")
            .arg(MESSAGES)
            .query_async(&mut raw)
            .await?;
        times.push(start.elapsed().as_secs_f64());
        if messages.len() != 50 {
            return Err("a message is missing".into());
        }
    }
    Ok(median_micros(times))
}

/// Makes sessions of four messages that are due at once.
async fn due_sessions(
    driver: &DynDriver,
    text: &str,
    sessions: usize,
) -> Result<RedisSessionStore> {
    let moment = Duration::from_millis(1);
    let store = store(driver, Lifetime::new(moment, moment))?;
    for number in 0..sessions {
        let session = create(&store, &number.to_string()).await?;
        let messages = (0..4).map(|_| Message::user(text).with_tokens(TOKENS));
        let _ = store.append(&session, &Append::new(messages)).await?;
    }
    Ok(store)
}

async fn archive(server: &Server, driver: &DynDriver, text: &str, sessions: usize) -> Result<f64> {
    let store = due_sessions(driver, text, sessions).await?;
    let archive = Arc::new(MemoryArchive::new());
    let janitor = Janitor::new(Arc::new(store)).archiving(archive, |_| true);
    let before = server_cpu(server)?;
    let (mut archived, mut deleted) = (0, 0);
    loop {
        let swept = janitor.sweep().await?;
        archived += swept.archived;
        deleted += swept.deleted;
        if swept.due == 0 {
            break;
        }
    }
    if [archived, deleted] != [sessions; 2] {
        return Err("a session was not archived and deleted".into());
    }
    Ok(per_call(server_cpu(server)? - before, sessions))
}

/// Reads both keys of each session and deletes them, 64 sessions at a time, in two pipelines.
async fn read_and_delete(
    server: &Server,
    driver: &DynDriver,
    raw: &MultiplexedConnection,
    text: &str,
    sessions: usize,
) -> Result<f64> {
    let store = due_sessions(driver, text, sessions).await?;
    let mut raw = raw.clone();
    let before = server_cpu(server)?;
    let all: Vec<usize> = (0..sessions).collect();
    for some in all.chunks(64) {
        let (mut read, mut delete) = (redis::pipe(), redis::pipe());
        for number in some {
            let id = SessionId::new(number.to_string())?;
            let (log, meta) = (store.log_key(&id).to_string(), store.meta_key(&id).to_string());
            read.cmd("HGETALL").arg(&meta).cmd("XRANGE").arg(&log).arg("-").arg("+");
            delete.cmd("UNLINK").arg(&log).arg(&meta);
        }
        let read: Vec<redis::Value> = read.query_async(&mut raw).await?;
        let deleted: Vec<u64> = delete.query_async(&mut raw).await?;
        if read.len() != 2 * some.len() || deleted.iter().sum::<u64>() != 2 * some.len() as u64 {
            return Err("a session is missing".into());
        }
    }
    Ok(per_call(server_cpu(server)? - before, sessions))
}
