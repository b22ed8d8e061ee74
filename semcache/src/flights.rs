use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{
    Batch, Cmd, Connect, DriverExt as _, DynDriver, FromReply as _, LeaseKeeper, Leases,
    RedisLeases, Reply, Result,
};
use tokio::sync::Semaphore;

use crate::Request;

/// How long the end of a generation is remembered for those who wait for it.
const REMEMBERED_MILLIS: u64 = 60_000;

/// The most connections that wait at the server at the same time.
const MOST_WAITING: usize = 16;

/// Lets the [`Coalescer`](crate::Coalescer)s of several processes wait for each other, on Redis.
///
/// Who generates an answer holds a lease; who waits reads a stream with a blocking `XREAD`, on connections of its own of
/// which there are at most 16.
/// The namespace is that of the cache.
pub struct RedisFlights {
    driver: DynDriver,
    connect: Arc<dyn Connect>,
    namespace: Namespace,
    leases: Arc<dyn Leases>,
    keeper: LeaseKeeper,
    // A `std` mutex: it is held to take and give back, never across an await.
    idle: Mutex<Vec<DynDriver>>,
    permits: Semaphore,
}

impl RedisFlights {
    /// Makes flights; nothing is sent.
    #[must_use]
    pub fn new(driver: DynDriver, connect: Arc<dyn Connect>, namespace: Namespace) -> Self {
        let leases: Arc<dyn Leases> =
            Arc::new(RedisLeases::new(Arc::clone(&driver), namespace.clone()));
        Self {
            driver,
            connect,
            namespace,
            keeper: LeaseKeeper::new(Arc::clone(&leases)),
            leases,
            idle: Mutex::default(),
            permits: Semaphore::new(MOST_WAITING),
        }
    }

    pub(crate) fn leases(&self) -> &dyn Leases {
        &*self.leases
    }

    pub(crate) fn keeper(&self) -> &LeaseKeeper {
        &self.keeper
    }

    pub(crate) fn lease_name(request: &Request) -> String {
        format!("{}/{}", request.tenant().hex().as_str(), request.id())
    }

    fn key(&self, request: &Request) -> Key {
        let keys = self.namespace.family("cache").hex(request.tenant().digest());
        keys.hex(&request.id().0).literal("flight").build()
    }

    /// Where the stream of a request ends now: what is announced from now on comes behind.
    pub(crate) async fn mark(&self, request: &Request) -> Result<Mark> {
        let cmd = Cmd::new("XREVRANGE").key(self.key(request)).args(["+", "-", "COUNT", "1"]);
        let entries: Vec<Reply> = self.driver.query(cmd.readonly()).await?;
        match entries.into_iter().next() {
            Some(entry) => Ok(Mark(entry_of(entry)?.0)),
            None => Ok(Mark(Bytes::from_static(b"0-0"))),
        }
    }

    /// Tells those who wait how a generation ended.
    pub(crate) async fn announce(&self, request: &Request, landing: Landing) -> Result<()> {
        let key = self.key(request);
        let mut batch = Batch::atomic();
        let add = Cmd::new("XADD").key(&key).args(["MAXLEN", "8", "*", "landing"]);
        let added = batch.push::<()>(add.arg(landing.as_str()));
        let expire = Cmd::new("PEXPIRE").key(&key).arg(REMEMBERED_MILLIS);
        let expires = batch.push::<()>(expire);
        let mut answers = self.driver.run(batch).await?;
        answers.take(added)?;
        answers.take(expires)
    }

    /// Waits until the end of a generation is announced behind `mark`; `None` after `at_most`.
    pub(crate) async fn wait(
        &self,
        request: &Request,
        mark: &Mark,
        at_most: Duration,
    ) -> Result<Option<Landing>> {
        let Ok(permit) = tokio::time::timeout(at_most, self.permits.acquire()).await else {
            return Ok(None);
        };
        let waiter = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let waiter = match waiter {
            Some(waiter) => waiter,
            None => self.connect.connect().await?,
        };
        // Zero would mean for ever.
        let millis = u64::try_from(at_most.as_millis()).unwrap_or(u64::MAX).max(1);
        let cmd = Cmd::new("XREAD").arg("BLOCK").arg(millis).arg("STREAMS").key(self.key(request));
        let cmd = cmd.arg(&mark.0).blocking(Duration::from_millis(millis)).readonly();
        let reply: Reply = waiter.query(cmd).await?;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(waiter);
        drop(permit);
        if reply.is_nil() {
            return Ok(None);
        }
        let Some((_, entries)) = reply.into_pairs()?.into_iter().next() else { return Ok(None) };
        match entries.into_array()?.into_iter().next_back() {
            Some(last) => Ok(Some(Landing::of(&entry_of(last)?.1))),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for RedisFlights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisFlights").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// The id and the value of an entry of a stream.
fn entry_of(entry: Reply) -> Result<(Bytes, Bytes)> {
    let mut parts = entry.into_array()?.into_iter();
    let id = Bytes::from_reply(parts.next().unwrap_or(Reply::Nil))?;
    let fields = parts.next().unwrap_or(Reply::Nil).into_pairs()?;
    let value = fields.into_iter().next().map_or(Reply::Nil, |(_, value)| value);
    Ok((id, Bytes::from_reply(value)?))
}

/// A place in the stream of a request.
pub(crate) struct Mark(Bytes);

/// How a generation ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Landing {
    /// There is no answer: somebody else may try.
    Failed,
    /// The answer is in the cache.
    Stored,
    /// There is an answer, and it is not for others.
    Unstored,
}

impl Landing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Stored => "stored",
            Self::Unstored => "unstored",
        }
    }

    fn of(text: &[u8]) -> Self {
        match text {
            b"stored" => Self::Stored,
            b"unstored" => Self::Unstored,
            _ => Self::Failed,
        }
    }
}
