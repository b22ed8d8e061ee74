use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::watch;

use crate::keys::{Key, KeyFamily, Namespace, Ttl};
use crate::{Clock, Cmd, DriverExt as _, DynDriver, Error, ErrorKind, Result, Script, SystemClock};

static ACQUIRE: Script = Script::new(include_str!("scripts/lease_acquire.lua"));
static RELEASE: Script = Script::new(include_str!("scripts/lease_release.lua"));
static RENEW: Script = Script::new(include_str!("scripts/lease_renew.lua"));

/// The keys that [`RedisLeases`] writes.
pub const LEASE_KEYS: &[KeyFamily] = &[KeyFamily::new(
    "lease",
    "lease:{<name>}",
    "hash",
    Ttl::Always("the lease's length"),
    &["EVALSHA", "EVAL", "HMGET", "HGET", "HSET", "PEXPIRE", "DEL", "TIME"],
)];

/// The right to do something alone, for a limited time.
///
/// Work that others must not repeat after the lease ran out carries the [token](Lease::token): who guards the work's
/// result accepts no token smaller than the largest it has seen.
/// Clones are the same lease and share its end; two are equal if name and token are.
#[derive(Clone, Debug)]
pub struct Lease {
    name: String,
    token: u64,
    end: watch::Sender<Instant>,
}

impl Lease {
    /// Makes a lease that holds until `end`, for an implementor of [`Leases`].
    ///
    /// Take the time before asking the server and add the lease's length: then the holder never believes in the lease
    /// for longer than the server does.
    #[must_use]
    pub fn new(name: impl Into<String>, token: u64, end: Instant) -> Self {
        Self { name: name.into(), token, end: watch::Sender::new(end) }
    }

    /// Returns what is leased.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the fencing token: larger than that of every earlier lease of the same name.
    #[must_use]
    pub fn token(&self) -> u64 {
        self.token
    }

    /// Returns how long the lease holds from now; nothing if it ran out, was lost or given back.
    ///
    /// Measured by this process's monotonic clock from before the server was asked.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.end.borrow().saturating_duration_since(now())
    }

    /// Tells whether the lease ran out, was lost or given back.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits until the lease has run out, is lost or given back.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn lost(&self) {
        let mut end = self.end.subscribe();
        loop {
            let current = *end.borrow_and_update();
            if current <= now() {
                return;
            }
            tokio::select! {
                // Neither branch decides: the end is looked at again.
                () = tokio::time::sleep_until(current.into()) => {}
                _ = end.changed() => {}
            }
        }
    }

    /// Notes a new end, for an implementor of [`Leases`]: it was renewed, or it is over.
    pub fn set_end(&self, end: Instant) {
        self.end.send_replace(end);
    }

    /// Notes what a renewal came to.
    fn renewed(&self, renewed: bool, asked: Instant, ttl: u64) {
        self.set_end(if renewed { asked + Duration::from_millis(ttl) } else { asked });
    }
}

impl PartialEq for Lease {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.token == other.token
    }
}

impl Eq for Lease {}

/// The time by which this process counts how long a lease holds.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Gives out leases: at most one owner per name at a time.
///
/// A [`LeaseKeeper`](crate::LeaseKeeper) renews them while they are held and gives them back when they are dropped.
#[async_trait]
pub trait Leases: Debug + Send + Sync + 'static {
    /// Takes the lease of `name` for `ttl`, or returns `None` if another owner has it.
    ///
    /// `owner` must be unique to the attempt: the owner that has the lease already gets it again, with the same token
    /// and a new end, so that a call whose answer was lost can be repeated.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] for an empty name or owner or a `ttl` under a millisecond; otherwise the lease may or may
    /// not have been taken.
    async fn acquire(&self, name: &str, owner: &str, ttl: Duration) -> Result<Option<Lease>>;

    /// Makes the lease last `ttl` from now; `false` if it was lost. The lease and its clones know their new end.
    ///
    /// # Errors
    ///
    /// As [`Leases::acquire`]: until the old end the lease is still held.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool>;

    /// Gives the lease back, which is over then; `false` if it was lost before.
    ///
    /// # Errors
    ///
    /// If the server could not be asked; the lease then ends by itself.
    async fn release(&self, lease: &Lease) -> Result<bool>;
}

/// Leases among all processes that use one Redis: a hash per lease that expires with it, one script a call.
///
/// Tokens are made of the server's time: they grow as long as its clock, across failovers too, does not step back
/// further than the time between two leases.
#[derive(Clone, Debug)]
pub struct RedisLeases {
    driver: DynDriver,
    namespace: Namespace,
}

impl RedisLeases {
    /// Makes leases in `namespace`; no I/O.
    #[must_use]
    pub fn new(driver: DynDriver, namespace: Namespace) -> Self {
        Self { driver, namespace }
    }

    fn key(&self, name: &str) -> Key {
        self.namespace.family("lease").tag(name).build()
    }
}

#[async_trait]
impl Leases for RedisLeases {
    /// One `EVALSHA`.
    async fn acquire(&self, name: &str, owner: &str, ttl: Duration) -> Result<Option<Lease>> {
        let ttl = check(name, owner, ttl)?;
        let asked = now();
        let cmd = Cmd::eval(&ACQUIRE, &[self.key(name)]).arg(owner).arg(ttl).idempotent();
        let token: u64 = self.driver.query(cmd).await?;
        Ok((token != 0).then(|| Lease::new(name, token, asked + Duration::from_millis(ttl))))
    }

    /// One `EVALSHA`.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        let ttl = check(&lease.name, "owner", ttl)?;
        let asked = now();
        let key = [self.key(&lease.name)];
        let cmd = Cmd::eval(&RENEW, &key).arg(lease.token).arg(ttl).idempotent();
        let renewed = self.driver.query(cmd).await?;
        lease.renewed(renewed, asked, ttl);
        Ok(renewed)
    }

    /// One `EVALSHA`.
    async fn release(&self, lease: &Lease) -> Result<bool> {
        let key = [self.key(&lease.name)];
        let released =
            self.driver.query(Cmd::eval(&RELEASE, &key).arg(lease.token).idempotent()).await?;
        lease.set_end(now());
        Ok(released)
    }
}

/// Leases within this process.
///
/// They end by the clock they are made with; how long a [`Lease`] believes to hold is counted by the process's own.
#[derive(Debug)]
pub struct MemoryLeases {
    clock: Arc<dyn Clock>,
    // A `std` mutex: never held across an await.
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    leases: HashMap<String, (String, u64, Duration)>,
    last_token: u64,
}

impl MemoryLeases {
    /// Makes leases that end by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, held: Mutex::default() }
    }

    fn live<T>(&self, lease: &Lease, then: impl FnOnce(&mut Held, Duration) -> T) -> Option<T> {
        let now = self.clock.now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, token, end) = held.leases.get(&lease.name)?;
        (*token == lease.token && now < *end).then(|| then(&mut held, now))
    }
}

impl Default for MemoryLeases {
    fn default() -> Self {
        Self::new(Arc::new(SystemClock))
    }
}

#[async_trait]
impl Leases for MemoryLeases {
    async fn acquire(&self, name: &str, owner: &str, ttl: Duration) -> Result<Option<Lease>> {
        let (asked, ttl) = (now(), Duration::from_millis(check(name, owner, ttl)?));
        let now = self.clock.now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let token = match held.leases.get(name) {
            Some((holder, token, end)) if now < *end => {
                if holder != owner {
                    return Ok(None);
                }
                *token
            }
            _ => {
                held.last_token += 1;
                held.last_token
            }
        };
        held.leases.insert(name.to_owned(), (owner.to_owned(), token, now + ttl));
        Ok(Some(Lease::new(name, token, asked + ttl)))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        let (asked, millis) = (now(), check(&lease.name, "owner", ttl)?);
        let renewed = self.live(lease, |held, now| {
            if let Some((_, _, end)) = held.leases.get_mut(&lease.name) {
                *end = now + Duration::from_millis(millis);
            }
        });
        lease.renewed(renewed.is_some(), asked, millis);
        Ok(renewed.is_some())
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        let released = self.live(lease, |held, _| held.leases.remove(&lease.name)).is_some();
        lease.set_end(now());
        Ok(released)
    }
}

/// The length in milliseconds, if name, owner and length are fit.
fn check(name: &str, owner: &str, ttl: Duration) -> Result<u64> {
    if name.is_empty() || owner.is_empty() {
        return Err(Error::new(ErrorKind::Config, "a lease needs a name and an owner"));
    }
    match u64::try_from(ttl.as_millis()) {
        Ok(millis) if 0 < millis && millis <= 1 << 42 => Ok(millis),
        _ => Err(Error::new(
            ErrorKind::Config,
            "a lease lasts between a millisecond and a hundred years",
        )),
    }
}
