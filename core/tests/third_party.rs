//! The public API suffices to write a driver and leases of one's own.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_core::{
    Batch, Cmd, Driver, DriverExt as _, DynDriver, Error, ErrorKind, Lease, Leases, Pool, Protocol,
    Reply, Result, Retried, driver_conformance,
};
use inferkit_localredis::Flavor;

/// Fails every `every`th call in passing, before it is sent.
#[derive(Debug)]
struct Flaky<D> {
    inner: D,
    calls: AtomicUsize,
    every: usize,
}

impl<D: Driver> Flaky<D> {
    fn toss(&self) -> Result<()> {
        if self.calls.fetch_add(1, Ordering::SeqCst).is_multiple_of(self.every) {
            return Err(Error::new(ErrorKind::Connection, "the coin says no"));
        }
        Ok(())
    }
}

#[async_trait]
impl<D: Driver> Driver for Flaky<D> {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        self.toss()?;
        self.inner.call(cmd).await
    }

    async fn pipeline(&self, batch: Batch) -> Result<Vec<Result<Reply>>> {
        self.toss()?;
        self.inner.pipeline(batch).await
    }
}

async fn make() -> (Retried<Flaky<Pool>>, String) {
    let (inner, prefix) = support::pool(Flavor::Redis, Protocol::Resp3).await;
    let flaky = Flaky { inner, calls: AtomicUsize::new(0), every: 7 };
    (Retried::new(flaky, 12, Duration::from_millis(1)), prefix)
}

driver_conformance!(make);

/// Answers nothing, and says that it may have run.
#[derive(Debug)]
struct Lost(AtomicUsize);

#[async_trait]
impl Driver for Lost {
    async fn call(&self, cmd: Cmd) -> Result<Reply> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Err(Error::new(ErrorKind::Timeout, "lost").with_maybe_applied(!cmd.is_readonly()))
    }

    async fn pipeline(&self, _: Batch) -> Result<Vec<Result<Reply>>> {
        Err(Error::new(ErrorKind::Timeout, "lost").with_maybe_applied(true))
    }
}

#[tokio::test]
async fn only_what_is_safe_is_repeated() {
    let calls = |cmd: Cmd| async move {
        let lost = Arc::new(Lost(AtomicUsize::new(0)));
        let driver: DynDriver =
            Arc::new(Retried::new(Arc::clone(&lost), 4, Duration::from_millis(1)));
        driver.query::<()>(cmd).await.unwrap_err();
        lost.0.load(Ordering::SeqCst)
    };
    assert_eq!(calls(Cmd::new("INCR").key("k")).await, 1);
    assert_eq!(calls(Cmd::new("GET").key("k").readonly()).await, 4);
    assert_eq!(calls(Cmd::new("SET").key("k").arg(1).idempotent()).await, 4);
}

#[derive(Debug)]
struct Generous;

#[async_trait]
impl Leases for Generous {
    async fn acquire(&self, name: &str, _: &str, ttl: Duration) -> Result<Option<Lease>> {
        Ok(Some(Lease::new(name, 1, Instant::now() + ttl)))
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<bool> {
        lease.set_end(Instant::now() + ttl);
        Ok(true)
    }

    async fn release(&self, lease: &Lease) -> Result<bool> {
        lease.set_end(Instant::now());
        Ok(true)
    }
}

#[tokio::test]
async fn leases_of_one_s_own_fit_behind_a_pointer() {
    let leases: Arc<dyn Leases> = Arc::new(Generous);
    let lease = leases.acquire("n", "a", Duration::from_secs(1)).await.unwrap().unwrap();
    assert_eq!((lease.name(), lease.token()), ("n", 1));
    assert!(leases.release(&lease).await.unwrap() && lease.is_lost());
}
