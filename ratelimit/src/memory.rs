use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::Namespace;
use inferkit_core::observe::Stopwatch;
use inferkit_core::{Clock, SystemClock};
use tracing::Span;

use crate::decision::{Grant, Usage, burst_ticks};
use crate::ids::Ids;
use crate::layout::{Group, Kind, Layout, cost, difference};
use crate::limit::{ticks, to_f64};
use crate::split::{self, OneDomain};
use crate::{
    Algorithm, Decision, Demand, Permit, Policy, RateLimiter, Rejection, Report, Result, Settled,
    Tier, Weights,
};

/// 2025-01-01T00:00:00Z, in microseconds since the Unix epoch.
const EPOCH_MICROS: f64 = 1_735_689_600_000_000.0;
const DAY_TICKS: f64 = 86_400_000_000.0 * 16.0;
const RECORD_TICKS: f64 = 600_000_000.0 * 16.0;
/// The largest debt, so that arrival times stay exact integers.
const MAX_DEBT: f64 = 4_503_599_627_370_496.0;
/// When to look for records that have run out.
const SWEEP: usize = 4096;

/// A rate limiter within this process, for tests and small tools: the same decisions as those of the one on Redis.
///
/// A dropped permit frees its slots at once.
#[derive(Debug)]
pub struct MemoryRateLimiter {
    clock: Arc<dyn Clock>,
    ids: Ids,
    // A `std` mutex: it is held for decisions, never across an await.
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    packed: HashMap<String, Packed>,
    /// When the leases end, in milliseconds, by request id.
    slots: HashMap<String, BTreeMap<String, f64>>,
    /// The times of requests.
    logs: HashMap<String, BTreeMap<String, f64>>,
    /// When the records of request ids run out.
    records: HashMap<String, f64>,
}

#[derive(Clone, Debug)]
struct Packed {
    /// The latest time that was seen.
    last: f64,
    counters: Vec<Counter>,
}

#[derive(Clone, Copy, Debug)]
enum Counter {
    /// The theoretical arrival time.
    Arrival(f64),
    /// The number of the window, its count and that of the one before.
    Window(f64, f64, f64),
}

/// What a tier says, and its counter if the request is admitted.
struct Verdict {
    usage: Usage,
    next: Option<Counter>,
}

impl MemoryRateLimiter {
    /// Makes a limiter by the system's clock.
    #[must_use]
    pub fn new() -> Self {
        Self::with_clock(Arc::new(SystemClock::default()))
    }

    /// Makes a limiter by `clock`.
    #[must_use]
    pub fn with_clock(clock: Arc<dyn Clock>) -> Self {
        Self { clock, ids: Ids::new(), state: Arc::default() }
    }

    fn now(&self) -> f64 {
        ticks_since_2025(self.clock.now())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn look(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        let layout = Layout::of(&Namespace::default(), policy)?;
        let verdicts = self.lock().evaluate(&layout, &demand.weights, self.now(), true);
        Ok(report(&layout, &demand.weights, &verdicts, false))
    }

    fn decide(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let layout = Layout::of(&Namespace::default(), policy)?;
        let now = self.now();
        let given = demand.id.as_ref().filter(|_| layout.holder.is_none());
        let record = given.map(|id| layout.record(&Namespace::default(), id).as_str().to_owned());
        let id = demand.id.clone().unwrap_or_else(|| self.ids.make());
        let mut state = self.lock();
        let verdicts = state.evaluate(&layout, &demand.weights, now, false);
        let rejected = layout
            .tiers()
            .zip(&verdicts)
            .any(|((_, tier), verdict)| !tier.shadow && verdict.usage.wait != 0.0);
        let replayed = state.holds(&layout, &id, record.as_deref(), now);
        let report = report(&layout, &demand.weights, &verdicts, !rejected && !replayed);
        if rejected && !replayed {
            return Ok(Decision::Rejected(Rejection::new(report)));
        }
        if replayed {
            // The lease begins anew, unless a tier has no room: the script does so too.
            if let (false, Some(group)) =
                (rejected, layout.holder.and_then(|at| layout.groups.get(at)))
            {
                let ms = (now / 16_000.0).floor();
                let limit = layout.members(group).map(|tier| to_f64(tier.limit.amount)).next();
                let members = state.slots.entry(group.key.as_str().to_owned()).or_default();
                if limit.is_some_and(|limit| limit <= count(members)) {
                    members.retain(|_, end| ms < *end);
                }
                members.insert(id.to_string(), ms + lease_millis(&layout, group));
            }
        } else {
            state.charge(&layout, &demand.weights, now, &id, &verdicts);
            if let Some(record) = record.clone() {
                state.record(record, now);
            }
        }
        drop(state);
        let grant = Arc::new(Grant {
            id,
            policy: policy.clone(),
            weights: demand.weights.clone(),
            acquired: now,
            recorded: record.is_some(),
        });
        let permit = Permit::granted(Arc::clone(&grant), report).replay(replayed);
        if layout.holder.is_none() {
            return Ok(Decision::Admitted(permit));
        }
        let (state, clock) = (Arc::clone(&self.state), Arc::clone(&self.clock));
        let release = move || {
            let now = ticks_since_2025(clock.now());
            // It has a policy with tiers.
            let _settled = lock(&state).settle(&grant, &Weights::new(), now);
        };
        Ok(Decision::Admitted(permit.on_drop(release)))
    }
}

impl Default for MemoryRateLimiter {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl RateLimiter for MemoryRateLimiter {
    async fn acquire(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        let time = Stopwatch::start();
        let parts = policy.parts();
        let decision = match parts.is_empty() {
            true => self.decide(policy, demand),
            false => split::decide(self, policy, parts, demand).await,
        };
        crate::metrics::decision(&Span::none(), &decision, time);
        decision
    }

    async fn peek(&self, policy: &Policy, demand: &Demand) -> Result<Report> {
        let parts = policy.parts();
        if parts.is_empty() {
            return self.look(policy, demand);
        }
        let reports: Vec<_> =
            parts.iter().map(|part| self.look(&part.policy, demand)).collect::<Result<_>>()?;
        Ok(split::report(policy, &parts, reports.into_iter()))
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        if permit.is_unchecked() || permit.is_settled() {
            return Ok(Settled::Gone);
        }
        match permit.parts().is_empty() {
            true => OneDomain::settle(self, permit, used).await,
            false => split::settle(self, permit, used).await,
        }
    }

    async fn reset(&self, policy: &Policy) -> Result<()> {
        for policy in policy.by_domain() {
            let layout = Layout::of(&Namespace::default(), &policy)?;
            let mut state = self.lock();
            for group in &layout.groups {
                state.packed.remove(group.key.as_str());
                state.slots.remove(group.key.as_str());
                state.logs.remove(group.key.as_str());
            }
        }
        Ok(())
    }
}

impl OneDomain for MemoryRateLimiter {
    async fn decide(&self, policy: &Policy, demand: &Demand) -> Result<Decision> {
        Self::decide(self, policy, demand)
    }

    async fn settle(&self, permit: &Permit, used: &Weights) -> Result<Settled> {
        let settled = self.lock().settle(permit.grant(), used, self.now())?;
        permit.set_settled();
        Ok(settled)
    }
}

impl State {
    /// What every tier says, in the order of the groups.
    fn evaluate(
        &self,
        layout: &Layout<'_>,
        weights: &Weights,
        now: f64,
        exact: bool,
    ) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(layout.policy.tiers().len());
        for group in &layout.groups {
            let key = group.key.as_str();
            let packed = self.packed.get(key);
            for (place, tier) in layout.members(group).enumerate() {
                let cost = cost(tier, weights);
                verdicts.push(match group.kind {
                    Kind::Packed => {
                        let stored = packed
                            .and_then(|packed| Some((packed.last, *packed.counters.get(place)?)));
                        counter(tier, cost, now, stored)
                    }
                    Kind::Slots => slots(tier, now, self.slots.get(key), exact),
                    Kind::Log => log(tier, cost, now, self.logs.get(key)),
                });
            }
        }
        verdicts
    }

    /// Whether a request of this id was admitted before and is not settled.
    fn holds(&self, layout: &Layout<'_>, id: &str, record: Option<&str>, now: f64) -> bool {
        if let Some(record) = record {
            return self.records.get(record).is_some_and(|end| now < *end);
        }
        layout
            .holder
            .and_then(|at| self.slots.get(layout.groups.get(at)?.key.as_str()))
            .and_then(|members| members.get(id))
            .is_some_and(|end| (now / 16_000.0).floor() < *end)
    }

    fn charge(
        &mut self,
        layout: &Layout<'_>,
        weights: &Weights,
        now: f64,
        id: &str,
        verdicts: &[Verdict],
    ) {
        let mut verdicts = verdicts.iter();
        let ms = (now / 16_000.0).floor();
        for group in &layout.groups {
            let key = group.key.as_str();
            let mut counters = Vec::new();
            for tier in layout.members(group) {
                let Some(verdict) = verdicts.next() else { return };
                counters.extend(verdict.next);
                if verdict.usage.wait != 0.0 {
                    continue;
                }
                match group.kind {
                    Kind::Packed => {}
                    Kind::Slots => {
                        let members = self.slots.entry(key.to_owned()).or_default();
                        if to_f64(tier.limit.amount) <= count(members) {
                            members.retain(|_, end| ms < *end);
                        }
                        members.insert(id.to_owned(), ms + lease_millis(layout, group));
                    }
                    Kind::Log if cost(tier, weights) == 0.0 => {}
                    Kind::Log => {
                        let entries = self.logs.entry(key.to_owned()).or_default();
                        entries.retain(|_, at| now - ticks(tier.limit.period) < *at);
                        for number in 1..=weight(cost(tier, weights)) {
                            entries.insert(entry(id, number), now);
                        }
                    }
                }
            }
            if group.kind == Kind::Packed {
                self.packed.insert(key.to_owned(), Packed { last: now, counters });
            }
        }
    }

    fn record(&mut self, record: String, now: f64) {
        if SWEEP <= self.records.len() && self.records.len().is_power_of_two() {
            self.records.retain(|_, end| now < *end);
        }
        self.records.insert(record, now + RECORD_TICKS);
    }

    fn settle(&mut self, grant: &Grant, used: &Weights, now: f64) -> Result<Settled> {
        let layout = Layout::of(&Namespace::default(), &grant.policy)?;
        if grant.recorded {
            let record = layout.record(&Namespace::default(), &grant.id);
            if self.records.remove(record.as_str()).is_none_or(|end| end <= now) {
                return Ok(Settled::Gone);
            }
        } else if let Some(group) = layout.holder.and_then(|at| layout.groups.get(at)) {
            let members = self.slots.get_mut(group.key.as_str());
            if members.is_none_or(|members| members.remove(&*grant.id).is_none()) {
                return Ok(Settled::Gone);
            }
        }
        for group in &layout.groups {
            let key = group.key.as_str();
            let packed = self.packed.get(key).cloned();
            let (mut counters, mut changed) = (Vec::new(), false);
            for (place, tier) in layout.members(group).enumerate() {
                let delta = difference(tier, &grant.weights, used);
                changed |= delta != 0.0;
                match group.kind {
                    Kind::Packed => {
                        let stored = packed
                            .as_ref()
                            .and_then(|packed| Some((packed.last, *packed.counters.get(place)?)));
                        counters.push(settled(tier, delta, now, grant.acquired, stored));
                    }
                    Kind::Slots => {
                        if let Some(members) = self.slots.get_mut(key) {
                            members.remove(&*grant.id);
                        }
                    }
                    Kind::Log => {
                        let entries = self.logs.entry(key.to_owned()).or_default();
                        let reserved = weight(cost(tier, &grant.weights));
                        let kept = weight((cost(tier, &grant.weights) + delta).max(0.0));
                        for number in kept + 1..=reserved {
                            entries.remove(&entry(&grant.id, number));
                        }
                        for number in reserved + 1..=kept {
                            entries.insert(entry(&grant.id, number), now);
                        }
                    }
                }
            }
            if changed && group.kind == Kind::Packed {
                self.packed.insert(key.to_owned(), Packed { last: now, counters });
            }
        }
        Ok(Settled::Done)
    }
}

/// The arrival time or the window of a counter at `now`, as the last charge left it.
fn current(tier: &Tier, now: f64, stored: Option<(f64, Counter)>) -> Counter {
    let index = window(tier, now).0;
    match stored {
        Some((last, Counter::Arrival(arrival))) => {
            // When the clock stepped back, no time has passed.
            Counter::Arrival((arrival - (last - now).max(0.0)).max(now))
        }
        Some((_, Counter::Window(stored, count, previous))) if index <= stored => {
            Counter::Window(stored, count, previous)
        }
        Some((_, Counter::Window(stored, count, _))) if stored == index - 1.0 => {
            Counter::Window(index, 0.0, count)
        }
        Some((_, Counter::Window(..))) => Counter::Window(index, 0.0, 0.0),
        None if tier.limit.algorithm == Algorithm::Gcra => Counter::Arrival(now),
        None => Counter::Window(index, 0.0, 0.0),
    }
}

fn counter(tier: &Tier, cost: f64, now: f64, stored: Option<(f64, Counter)>) -> Verdict {
    match current(tier, now, stored) {
        Counter::Arrival(arrival) => {
            let (used, burst) = (arrival - now, burst_ticks(&tier.limit));
            let wait = match () {
                () if burst < cost => -1.0,
                () => (used + cost - burst).max(0.0),
            };
            let charged = if wait == 0.0 { cost } else { 0.0 };
            Verdict {
                usage: Usage { used, reset: used, wait },
                next: Some(Counter::Arrival(arrival + charged)),
            }
        }
        Counter::Window(index, count, previous) => {
            let limit = to_f64(tier.limit.amount);
            let end = window_end(tier, index);
            let reset = end - now;
            let (used, wait) = if tier.limit.algorithm == Algorithm::SlidingWindow {
                sliding(cost, limit, ticks(tier.limit.period), now, (index, count, previous))
            } else {
                (count, if limit < count + cost { reset } else { 0.0 })
            };
            let wait = if limit < cost { -1.0 } else { wait };
            let charged = if wait == 0.0 { cost } else { 0.0 };
            Verdict {
                usage: Usage { used: used.ceil(), reset, wait },
                next: Some(Counter::Window(index, count + charged, previous)),
            }
        }
    }
}

/// What a sliding window has in use, and how long a request of `cost` waits.
fn sliding(
    cost: f64,
    limit: f64,
    period: f64,
    now: f64,
    (index, count, previous): (f64, f64, f64),
) -> (f64, f64) {
    let since = now - index * period;
    let (early, elapsed) = ((-since).max(0.0), since.max(0.0));
    let used = count + previous * (period - elapsed) / period;
    if used + cost <= limit {
        return (used, 0.0);
    }
    let room = limit - cost - count;
    let wait = if 0.0 <= room {
        // The older window fades until there is room.
        (period - elapsed - period * room / previous).ceil()
    } else {
        // This window has to become the older one and fade.
        period - elapsed + (period - period * (limit - cost) / count).ceil().max(0.0)
    };
    (used, (wait + early).max(1.0))
}

fn slots(tier: &Tier, now: f64, members: Option<&BTreeMap<String, f64>>, exact: bool) -> Verdict {
    let ms = (now / 16_000.0).floor();
    let limit = to_f64(tier.limit.amount);
    let mut used = members.map_or(0.0, count);
    if exact || limit <= used {
        // Slots whose lease is over are counted until their room is needed.
        used = members.map_or(0.0, |members| {
            to_f64(members.values().filter(|end| ms < **end).count() as u64)
        });
    }
    let wait = if limit < used + 1.0 { ticks(tier.limit.hint) } else { 0.0 };
    Verdict { usage: Usage { used, reset: 0.0, wait }, next: None }
}

fn log(tier: &Tier, cost: f64, now: f64, entries: Option<&BTreeMap<String, f64>>) -> Verdict {
    let (limit, period) = (to_f64(tier.limit.amount), ticks(tier.limit.period));
    let times = entries.into_iter().flat_map(BTreeMap::values).copied();
    let mut all: Vec<f64> = times.collect();
    all.sort_by(f64::total_cmp);
    let newest = all.last().copied();
    all.retain(|at| now - period < *at);
    let used = to_f64(all.len() as u64);
    let reset = if all.is_empty() { 0.0 } else { newest.map_or(0.0, |at| at + period - now) };
    let wait = if limit < cost {
        -1.0
    } else if limit < used + cost {
        let nth = usize::try_from(weight(used + cost - limit - 1.0)).unwrap_or(usize::MAX);
        all.get(nth).map_or(1.0, |at| (at + period - now).max(1.0))
    } else {
        0.0
    };
    Verdict { usage: Usage { used, reset, wait }, next: None }
}

fn settled(
    tier: &Tier,
    delta: f64,
    now: f64,
    acquired: f64,
    stored: Option<(f64, Counter)>,
) -> Counter {
    match current(tier, now, stored) {
        Counter::Arrival(arrival) => {
            Counter::Arrival((arrival + delta).max(now).min(now + MAX_DEBT))
        }
        Counter::Window(index, count, previous) => {
            let of = window(tier, acquired).0;
            if index <= of {
                Counter::Window(index, (count + delta).max(0.0), previous)
            } else if tier.limit.algorithm == Algorithm::SlidingWindow && of == index - 1.0 {
                Counter::Window(index, count, (previous + delta).max(0.0))
            } else {
                Counter::Window(index, count + delta.max(0.0), previous)
            }
        }
    }
}

fn report(layout: &Layout<'_>, weights: &Weights, verdicts: &[Verdict], charged: bool) -> Report {
    let mut states: Vec<_> = layout
        .tiers()
        .zip(verdicts)
        .map(|((index, tier), verdict)| {
            (index, verdict.usage.state(tier, cost(tier, weights), charged))
        })
        .collect();
    states.sort_by_key(|(index, _)| *index);
    Report::new(layout.policy, states.into_iter().map(|(_, state)| state).collect())
}

/// The number of the window of `now`.
fn window(tier: &Tier, now: f64) -> (f64,) {
    if tier.limit.algorithm == Algorithm::CalendarMonth {
        return (month_of(now),);
    }
    ((now / ticks(tier.limit.period)).floor(),)
}

fn window_end(tier: &Tier, index: f64) -> f64 {
    if tier.limit.algorithm == Algorithm::CalendarMonth {
        return first_day(index + 1.0) * DAY_TICKS;
    }
    (index + 1.0) * ticks(tier.limit.period)
}

/// The number of a month (year * 12 + month - 1) and back to its first day since 2025-01-01, found by counting days.
fn month_of(now: f64) -> f64 {
    let day = (now / DAY_TICKS).floor();
    let mut month = 2025.0 * 12.0 + (day / 31.0).floor() - 1.0;
    while first_day(month + 1.0) <= day {
        month += 1.0;
    }
    while day < first_day(month) {
        month -= 1.0;
    }
    month
}

fn first_day(month: f64) -> f64 {
    let (year, of_year) = ((month / 12.0).floor(), month.rem_euclid(12.0));
    let leap_days = |year: f64| {
        let before = year - 1.0;
        (before / 4.0).floor() - (before / 100.0).floor() + (before / 400.0).floor()
    };
    let years = (year - 2025.0) * 365.0 + leap_days(year) - leap_days(2025.0);
    let leap = leap_days(year + 1.0) - leap_days(year);
    let lengths = [31.0, 28.0 + leap, 31.0, 30.0, 31.0, 30.0, 31.0, 31.0, 30.0, 31.0, 30.0];
    let months = lengths.iter().zip(0_u8..).filter(|(_, at)| f64::from(*at) < of_year);
    years + months.map(|(length, _)| length).sum::<f64>()
}

/// Ticks of 1/16 microsecond since 2025-01-01, as the scripts count them.
pub(crate) fn ticks_since_2025(since_unix: Duration) -> f64 {
    (ticks(since_unix) / 16.0 - EPOCH_MICROS) * 16.0
}

fn lease_millis(layout: &Layout<'_>, group: &Group) -> f64 {
    layout.members(group).next().map_or(0.0, |tier| (ticks(tier.limit.period) / 16_000.0).ceil())
}

fn count(members: &BTreeMap<String, f64>) -> f64 {
    to_f64(members.len() as u64)
}

/// The name of the n-th entry of a request in a log.
fn entry(id: &str, number: u64) -> String {
    if number == 1 { id.to_owned() } else { format!("{id}#{number}") }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number, not negative, and at most 2^53"
)]
fn weight(cost: f64) -> u64 {
    cost as u64
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
