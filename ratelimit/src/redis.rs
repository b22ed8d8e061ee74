use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::observe::{self, Stopwatch};
use inferkit_core::{
    Answers, Batch, Clock, Cmd, DriverExt as _, DynDriver, ErrorKind, Script, Slot,
};
use tracing::field::Empty;
use tracing::{Instrument as _, debug_span};

use crate::decision::{Grant, Usage};
use crate::ids::Ids;
use crate::keeper::Keeper;
use crate::layout::{Kind, Layout, cost};
use crate::memory::ticks_since_2025;
use crate::split::{self, OneDomain};
use crate::{
    Decision, Demand, Permit, Policy, RateLimiter, Rejection, Report, Result, Settled, Weights,
};

/// How long a request id is remembered under a policy without slots, in milliseconds.
const RECORD_MILLIS: u64 = 10 * 60 * 1000;

/// The scripts, each with a clock before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scripts {
    acquire: &'static Script,
    peek: &'static Script,
    settle: &'static Script,
    renew: &'static Script,
}

// Without `#!lua` a full server would run a script whose first write frees memory; what gives back may run on a full one.
macro_rules! scripts {
    ($name:ident, $clock:literal) => {
        static $name: Scripts = {
            static ACQUIRE: Script = Script::new(concat!(
                "#!lua\n",
                include_str!($clock),
                include_str!("scripts/month.lua"),
                include_str!("scripts/acquire.lua")
            ));
            static PEEK: Script = Script::new(concat!(
                "#!lua flags=no-writes\n",
                include_str!($clock),
                include_str!("scripts/month.lua"),
                include_str!("scripts/acquire.lua")
            ));
            static SETTLE: Script = Script::new(concat!(
                "#!lua flags=allow-oom\n",
                include_str!($clock),
                include_str!("scripts/month.lua"),
                include_str!("scripts/settle.lua")
            ));
            static RENEW: Script = Script::new(concat!(
                "#!lua flags=allow-oom\n",
                include_str!($clock),
                include_str!("scripts/renew.lua")
            ));
            Scripts { acquire: &ACQUIRE, peek: &PEEK, settle: &SETTLE, renew: &RENEW }
        };
    };
}
scripts!(PRODUCTION, "scripts/clock.lua");
#[cfg(feature = "conformance")]
scripts!(TEST_BUILD, "scripts/clock_of_tests.lua");

/// A rate limiter on Redis: every decision is one script, by the server's clock.
///
/// Use it in an `Arc`, and spawn [`run`](Self::run) if policies have slots.
pub struct RedisRateLimiter {
    shared: Arc<Shared>,
    ids: Ids,
}

pub(crate) struct Shared {
    driver: DynDriver,
    namespace: Namespace,
    scripts: Scripts,
    /// The clock of the test build of the scripts; without it the server's.
    clock: Option<Arc<dyn Clock>>,
    keeper: Keeper,
}

impl RedisRateLimiter {
    /// Makes a limiter without a key prefix; no I/O.
    #[must_use]
    pub fn new(driver: DynDriver) -> Self {
        Self::with_namespace(driver, Namespace::default())
    }

    /// Makes a limiter whose keys begin with the namespace's prefix; no I/O.
    #[must_use]
    pub fn with_namespace(driver: DynDriver, namespace: Namespace) -> Self {
        Self::made(driver, namespace, PRODUCTION, None)
    }

    /// Makes a limiter that decides by `clock`, through a build of the scripts that takes the time as an argument.
    ///
    /// For tests only.
    #[cfg(feature = "conformance")]
    #[must_use]
    pub fn with_clock(driver: DynDriver, namespace: Namespace, clock: Arc<dyn Clock>) -> Self {
        Self::made(driver, namespace, TEST_BUILD, Some(clock))
    }

    fn made(
        driver: DynDriver,
        namespace: Namespace,
        scripts: Scripts,
        clock: Option<Arc<dyn Clock>>,
    ) -> Self {
        let keeper = Keeper::default();
        let shared = Shared { driver, namespace, scripts, clock, keeper };
        Self { shared: Arc::new(shared), ids: Ids::new() }
    }

    /// Renews the slots that are held, at a third of their lease, and frees those of dropped permits: one round trip each,
    /// for all of them together.
    ///
    /// Spawn it. It ends when the limiter and all its permits are dropped and freed.
    /// Only one runs at a time; a second waits to take over.
    ///
    /// # Cancel safety
    ///
    /// It can be aborted and run again at any time.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let shared = Arc::clone(&self.shared);
        async move { shared.keeper.run(&shared).await }
    }

    /// Returns the keys of a policy's subjects.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPolicy`](crate::Error::EmptyPolicy).
    pub fn keys(&self, policy: &Policy) -> Result<Vec<Key>> {
        let mut keys = Vec::new();
        for policy in policy.by_domain() {
            let layout = Layout::of(&self.shared.namespace, &policy)?;
            keys.extend(layout.groups.into_iter().map(|group| group.key));
        }
        Ok(keys)
    }

    async fn decide_all(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let parts = policy.parts();
        match parts.is_empty() {
            true => self.decide_one(policy, demand).await,
            false => split::decide(self, policy, parts, demand).await,
        }
    }

    async fn decide_one(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let shared = &self.shared;
        let layout = Layout::of(&shared.namespace, policy)?;
        let given = demand.id.as_ref().filter(|_| layout.holder.is_none());
        let record = given.map(|id| layout.record(&shared.namespace, id));
        let recorded = record.is_some();
        let id = match &demand.id {
            Some(id) => Arc::clone(id),
            // Packed counters do not hold ids.
            None if layout.groups.iter().all(|group| group.kind == Kind::Packed) => Arc::from(""),
            None => self.ids.make(),
        };
        let keys: Vec<&Key> = layout.groups.iter().map(|group| &group.key).chain(&record).collect();
        let spec = layout.acquire(&demand.weights, true, record.as_ref().map(|_| RECORD_MILLIS));
        let mut cmd = shared.timed(Cmd::eval(shared.scripts.acquire, &keys).arg(&*id).arg(&spec));
        if recorded || layout.holder.is_some() {
            cmd = cmd.idempotent();
        }
        let slots = layout.holder.is_some();
        let reply: Vec<i64> = shared.driver.query(cmd).await?;
        let (status, acquired, report) = read(&layout, &demand.weights, &reply)?;
        if status == 0 {
            return Ok(Decision::Rejected(Rejection::new(report)));
        }
        let (policy, weights) = (policy.clone(), demand.weights.clone());
        let grant = Arc::new(Grant { id, policy, weights, acquired, recorded });
        let permit = Permit::granted(Arc::clone(&grant), report).replay(status == 2);
        if !slots {
            return Ok(Decision::Admitted(permit));
        }
        let groups = layout.groups.iter().filter(|group| group.kind == Kind::Slots);
        let held = groups.filter_map(|group| {
            let limit = &layout.members(group).next()?.limit;
            Some((group.key.clone(), limit.period))
        });
        let (handle, lost) = shared.keeper.hold(&grant, held.collect());
        let keeping = Arc::clone(shared);
        let permit = permit.held(handle, lost).on_drop(move || keeping.keeper.drop_held(handle));
        Ok(Decision::Admitted(permit))
    }

    /// Appends a [`peek`](RateLimiter::peek) to a batch, so that it shares its round trip.
    ///
    /// # Errors
    ///
    /// [`Error::EmptyPolicy`](crate::Error::EmptyPolicy): nothing is appended.
    pub fn push_peek(
        &self,
        batch: &mut Batch,
        policy: &Policy,
        demand: &Demand,
    ) -> Result<PeekSlots> {
        let policies = policy.by_domain();
        let layouts: Vec<_> = policies
            .iter()
            .map(|policy| Layout::of(&self.shared.namespace, policy))
            .collect::<Result<_>>()?;
        let push = |layout| batch.push(self.peek_cmd(layout, demand));
        Ok(PeekSlots(layouts.iter().map(push).collect()))
    }

    /// Takes the answer to [`push_peek`](Self::push_peek), of the same policy and demand.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`](crate::Error::Backend).
    pub fn take_peek(
        &self,
        answers: &mut Answers,
        slots: PeekSlots,
        policy: &Policy,
        demand: &Demand,
    ) -> Result<Report> {
        let (parts, policies) = (policy.parts(), policy.by_domain());
        let mut reports = Vec::with_capacity(policies.len());
        for (policy, slot) in policies.iter().zip(slots.0) {
            let layout = Layout::of(&self.shared.namespace, policy)?;
            reports.push(peeked(&layout, demand, &answers.take(slot)?)?);
        }
        match (parts.is_empty(), reports.pop()) {
            (true, Some(report)) => Ok(report),
            (_, last) => Ok(split::report(policy, &parts, reports.into_iter().chain(last))),
        }
    }

    fn peek_cmd(&self, layout: &Layout<'_>, demand: &Demand) -> Cmd {
        let keys: Vec<&Key> = layout.groups.iter().map(|group| &group.key).collect();
        let spec = layout.acquire(&demand.weights, false, None);
        let cmd = Cmd::eval(self.shared.scripts.peek, &keys).arg("").arg(&spec);
        self.shared.timed(cmd).idempotent()
    }

    async fn look(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        let mut batch = Batch::new();
        let slots = self.push_peek(&mut batch, policy, demand)?;
        let mut answers = self.shared.driver.run(batch).await?;
        self.take_peek(&mut answers, slots, policy, demand)
    }
}

/// Where the answer to a [`push_peek`](RedisRateLimiter::push_peek) will be.
#[derive(Debug)]
pub struct PeekSlots(Vec<Slot<Vec<i64>>>);

impl OneDomain for RedisRateLimiter {
    async fn decide(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        self.decide_one(policy, demand).await
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        let cmd = self.shared.settle_cmd(permit.grant(), used)?;
        let settled = self.shared.driver.query::<bool>(cmd).await?;
        permit.set_settled();
        if let Some(handle) = permit.handle() {
            self.shared.keeper.forget(handle);
        }
        Ok(if settled { Settled::Done } else { Settled::Gone })
    }
}

impl Shared {
    /// Adds the time where the scripts are those of tests.
    fn timed(&self, cmd: Cmd) -> Cmd {
        match &self.clock {
            Some(clock) => cmd.arg(format!("{:.0}", ticks_since_2025(clock.now()))),
            None => cmd,
        }
    }

    pub(crate) fn driver(&self) -> &DynDriver {
        &self.driver
    }

    /// Settles what is granted; `true` if it was still held.
    pub(crate) fn settle_cmd(&self, grant: &Grant, used: &Weights) -> Result<Cmd> {
        let layout = Layout::of(&self.namespace, &grant.policy)?;
        let record = grant.recorded.then(|| layout.record(&self.namespace, &grant.id));
        let keys: Vec<&Key> = layout.groups.iter().map(|group| &group.key).chain(&record).collect();
        let spec = layout.settle(&grant.weights, used, grant.recorded, grant.acquired);
        let cmd = Cmd::eval(self.scripts.settle, &keys).arg(&*grant.id).arg(&spec);
        let once = grant.recorded || layout.holder.is_some();
        let cmd = self.timed(cmd);
        Ok(if once { cmd.idempotent() } else { cmd })
    }

    /// Renews the leases of slots in one key.
    pub(crate) fn renew_cmd(&self, slots: &Key, lease: Duration, ids: &[&str]) -> Cmd {
        let millis = lease.as_micros().div_ceil(1000);
        let cmd = Cmd::eval(self.scripts.renew, &[slots])
            .arg(u64::try_from(millis).unwrap_or(u64::MAX))
            .arg(ids.len())
            .args(ids);
        self.timed(cmd).idempotent()
    }
}

/// Nothing is charged, so what is told is the state before.
fn peeked(layout: &Layout<'_>, demand: &Demand, reply: &[i64]) -> Result<Report> {
    let (_, _, report) = read_as(layout, &demand.weights, reply, false)?;
    Ok(report)
}

/// What a reply of `acquire` says: its status, the time of the server in ticks, and the tiers.
fn read(layout: &Layout<'_>, weights: &Weights, reply: &[i64]) -> Result<(i64, f64, Report)> {
    let charged = reply.first() == Some(&1);
    read_as(layout, weights, reply, charged)
}

fn read_as(
    layout: &Layout<'_>,
    weights: &Weights,
    reply: &[i64],
    charged: bool,
) -> Result<(i64, f64, Report)> {
    let count = layout.policy.tiers().len();
    let (Some((&[status, now], facts)), true) =
        (reply.split_first_chunk(), reply.len() == 2 + 3 * count)
    else {
        let message =
            "the script answered with another number of tiers: use a server that runs it unchanged";
        return Err(inferkit_core::Error::new(ErrorKind::Reply, message).into());
    };
    let mut states: Vec<_> = vec![None; count];
    for ((index, tier), facts) in layout.tiers().zip(facts.chunks_exact(3)) {
        if let (Some(place), &[used, reset, wait]) = (states.get_mut(index), facts) {
            let usage = Usage { used: float(used), reset: float(reset), wait: float(wait) };
            *place = Some(usage.state(tier, cost(tier, weights), charged));
        }
    }
    let states = states.into_iter().flatten().collect();
    Ok((status, float(now), Report::new(layout.policy, states)))
}

#[expect(clippy::cast_precision_loss, reason = "the script answers with integers up to 2^53")]
fn float(value: i64) -> f64 {
    value as f64
}

#[async_trait]
impl RateLimiter for RedisRateLimiter {
    /// One `EVALSHA` per domain, one after the other; one more per domain before it where one rejects.
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let span = debug_span!("ratelimit.acquire", outcome = Empty);
        let time = Stopwatch::start();
        let decision = self.decide_all(policy, demand).instrument(span.clone()).await;
        crate::metrics::decision(&span, &decision, time);
        decision
    }

    /// One round trip: an `EVALSHA` per domain, which a replica may not answer: its state lags.
    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        self.look(policy, demand).instrument(debug_span!("ratelimit.peek")).await
    }

    /// One `EVALSHA` per domain.
    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        if permit.is_unchecked() || permit.is_settled() {
            return Ok(Settled::Gone);
        }
        let span = debug_span!("ratelimit.settle", outcome = Empty);
        let settled = match permit.parts().is_empty() {
            true => OneDomain::settle(self, permit, used).instrument(span.clone()).await,
            false => split::settle(self, permit, used).instrument(span.clone()).await,
        };
        let outcome = match settled {
            Ok(Settled::Done) => "settled",
            Ok(Settled::Gone) => "gone",
            Err(_) => "error",
        };
        span.record("outcome", outcome);
        observe::count("inferkit_ratelimit_settles_total", &[("outcome", outcome)], 1);
        settled
    }

    /// One round trip: a `DEL` per domain.
    async fn reset(&self, policy: &Policy) -> Result<()> {
        let mut batch = Batch::new();
        let mut slots = Vec::new();
        for policy in policy.by_domain() {
            let keys = self.keys(&policy)?;
            let cmd = keys.iter().fold(Cmd::new("DEL"), Cmd::key).idempotent();
            slots.push(batch.push::<()>(cmd));
        }
        let span = debug_span!("ratelimit.reset");
        let mut answers = self.shared.driver.run(batch).instrument(span).await?;
        for slot in slots {
            answers.take(slot)?;
        }
        Ok(())
    }
}

impl Drop for RedisRateLimiter {
    fn drop(&mut self) {
        self.shared.keeper.close();
    }
}

impl fmt::Debug for RedisRateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisRateLimiter")
            .field("driver", &self.shared.driver)
            .field("namespace", &self.shared.namespace)
            .field("keeper", &self.shared.keeper)
            .finish_non_exhaustive()
    }
}
