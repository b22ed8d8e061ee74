use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use inferkit_core::keys::{Key, Namespace};
use inferkit_core::{
    Cmd, Connect, DriverExt as _, DynDriver, ErrorKind, FromReply as _, Reply, Script,
};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    HeldSlot, Position, QueueState, Queued, Refusal, Slot, SlotPool, SlotQueue, Standing, Waiter,
};
use crate::Result;
use crate::ids::Ids;

macro_rules! script {
    ($flags:literal, $file:literal) => {
        Script::new(concat!(
            $flags,
            "\n",
            include_str!("../scripts/queue_core.lua"),
            include_str!($file)
        ))
    };
}
static ENTER: Script = script!("#!lua", "../scripts/queue_enter.lua");
// What gives back, and what keeps what is held, may run on a full server.
static LEAVE: Script = script!("#!lua flags=allow-oom", "../scripts/queue_leave.lua");
static BEAT: Script = script!("#!lua flags=allow-oom", "../scripts/queue_beat.lua");
static LOOK: Script = script!("#!lua flags=no-writes", "../scripts/queue_look.lua");

/// The most tickets of one `leave`.
const LEAVES: usize = 256;
/// How long the server is waited for at once.
const ROUND: Duration = Duration::from_secs(1);

/// A pool of slots on Redis that all processes share.
///
/// Spawn [`run`](Self::run): it wakes who waits, renews what is held, and gives back what was dropped.
/// Without it waiters ask for themselves now and then, and a slot is held no longer than a lease.
///
/// Cloning is cheap, and clones share the connection.
#[derive(Clone, Debug)]
pub struct RedisSlotQueue {
    inner: Arc<Inner>,
    _open: Arc<Open>,
}

struct Inner {
    driver: DynDriver,
    connect: Arc<dyn Connect>,
    pool: SlotPool,
    keys: [Key; 5],
    /// The first argument of every script.
    spec: Vec<u8>,
    ids: Ids,
    // A `std` mutex: it is held to look and to note, never across an await.
    tickets: Mutex<HashMap<Arc<str>, Ticket>>,
    beaten: Mutex<Instant>,
    changed: Notify,
    closed: AtomicBool,
    /// Held by the `run` that is at work.
    running: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Ticket {
    stage: Stage,
    since: Instant,
    woken: Arc<Notify>,
    standing: Standing,
    lost: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// It is being sent; it may be handed a slot before the reply comes.
    Entering,
    Waiting,
    /// The server forgot it: it is to enter again.
    Gone,
    Holding,
    /// Nobody wants it any more; whether it held a slot.
    Abandoned(bool),
}

/// Closes the pool when the last clone is dropped.
#[derive(Debug)]
struct Open(Arc<Inner>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.closed.store(true, Ordering::Release);
        self.0.changed.notify_one();
    }
}

impl RedisSlotQueue {
    /// Makes a pool; nothing is sent.
    ///
    /// All processes give it the same numbers; `connect` opens the one connection on which this process is woken.
    #[must_use]
    pub fn new(
        driver: DynDriver,
        connect: Arc<dyn Connect>,
        namespace: &Namespace,
        pool: SlotPool,
    ) -> Self {
        let key =
            |name| namespace.family("rl").tag(&pool.name).literal("queue").literal(name).build();
        let keys = ["held", "waiting", "alive", "state", "granted"].map(key);
        let millis = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
        let (lease, patience) = (millis(pool.lease), millis(pool.patience()));
        let spec = [pool.slots, lease, patience, patience, pool.turn];
        let spec = spec.iter().flat_map(|number| number.to_le_bytes()).collect();
        let inner = Arc::new(Inner {
            driver,
            connect,
            pool,
            keys,
            spec,
            ids: Ids::new(),
            tickets: Mutex::default(),
            beaten: Mutex::new(Instant::now()),
            changed: Notify::new(),
            closed: AtomicBool::new(false),
            running: tokio::sync::Mutex::default(),
        });
        Self { _open: Arc::new(Open(Arc::clone(&inner))), inner }
    }

    /// Wakes who waits with one blocking read for the whole process, renews what is held and says who is alive with one
    /// script a third of a lease (a second at most), and gives back what was dropped.
    ///
    /// Spawn it. It ends when the pool, its clones and its slots are dropped and given back.
    /// Only one runs at a time; a second waits to take over.
    ///
    /// # Cancel safety
    ///
    /// It can be aborted and run again at any time.
    pub fn run(&self) -> impl Future<Output = ()> + Send + 'static {
        let inner = Arc::clone(&self.inner);
        async move {
            let _running = inner.running.lock().await;
            tokio::select! {
                () = inner.keep() => {}
                () = inner.listen() => {}
            }
        }
    }
}

impl Inner {
    fn tickets(&self) -> MutexGuard<'_, HashMap<Arc<str>, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pause(&self) -> Duration {
        self.pool.patience() / 3
    }

    fn cmd(&self, script: &'static Script) -> Cmd {
        Cmd::eval(script, &self.keys).arg(&self.spec)
    }

    async fn enter(&self, id: &str, waiter: &Waiter, room: u32) -> Result<(i64, i64, Duration)> {
        let mut who = waiter.weight.to_le_bytes().to_vec();
        who.extend(waiter.priority.to_le_bytes());
        who.extend(room.to_le_bytes());
        let cmd = self.cmd(&ENTER).arg(id).arg(&*waiter.tenant).arg(&who).idempotent();
        let reply: Vec<i64> = self.driver.query(cmd).await?;
        match reply[..] {
            [outcome, place, estimate] => Ok((outcome, place, millis(estimate))),
            _ => Err(unexpected()),
        }
    }

    /// Gives tickets back, and wakes those of this process that were handed their slots.
    ///
    /// If the reply is lost, the next beat finds them.
    async fn leave(&self, tickets: &[(Arc<str>, i64)]) -> Result<()> {
        let mut cmd = self.cmd(&LEAVE).arg(self.ids.prefix()).arg(tickets.len());
        for (id, took) in tickets {
            cmd = cmd.arg(&**id).arg(*took);
        }
        let reply: Reply = self.driver.query(cmd.idempotent()).await?;
        let granted = reply.into_array()?.into_iter().nth(1).ok_or_else(unexpected)?;
        for id in granted.into_array()? {
            self.grant(&String::from_reply(id)?);
        }
        Ok(())
    }

    /// Wakes a ticket that was handed a slot, if it is of this process and still waits.
    fn grant(&self, id: &str) {
        if let Some(ticket) = self.tickets().get_mut(id)
            && matches!(ticket.stage, Stage::Entering | Stage::Waiting)
        {
            ticket.grant();
        }
    }

    /// Says that all tickets are alive, and learns what became of them.
    async fn beat(&self) -> Result<()> {
        *self.beaten.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        let ids: Vec<Arc<str>> = {
            let tickets = self.tickets();
            let alive = |stage| matches!(stage, Stage::Waiting | Stage::Holding);
            tickets
                .iter()
                .filter(|(_, ticket)| alive(ticket.stage))
                .map(|(id, _)| Arc::clone(id))
                .collect()
        };
        if ids.is_empty() {
            return Ok(());
        }
        let cmd = self.cmd(&BEAT).arg(ids.len()).args(ids.iter().map(|id| &**id)).idempotent();
        let reply: Vec<i64> = self.driver.query(cmd).await?;
        let Some((mean, places)) = reply.split_first().filter(|(_, all)| all.len() == ids.len())
        else {
            return Err(unexpected());
        };
        let mut tickets = self.tickets();
        for (id, &place) in ids.iter().zip(places) {
            let Some(ticket) = tickets.get_mut(id) else { continue };
            match (place, ticket.stage) {
                (-1, Stage::Waiting) => ticket.grant(),
                (-2, Stage::Waiting) => {
                    ticket.stage = Stage::Gone;
                    ticket.woken.notify_one();
                }
                (-2, Stage::Holding) => ticket.lost.store(true, Ordering::Release),
                (place, Stage::Waiting) => {
                    let ahead = u64::try_from(place).unwrap_or(0);
                    let rounds = (ahead + 1).div_ceil(u64::from(self.pool.slots));
                    let rounds = u32::try_from(rounds).unwrap_or(u32::MAX);
                    let estimate = millis(*mean).saturating_mul(rounds);
                    ticket.standing.tell(Some(Position { ahead, estimate }));
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn keep(&self) {
        loop {
            let abandoned: Vec<(Arc<str>, i64)> = {
                let mut tickets = self.tickets();
                let leaving =
                    tickets.extract_if(|_, ticket| matches!(ticket.stage, Stage::Abandoned(_)));
                leaving.take(LEAVES).map(|(id, ticket)| (id, ticket.took())).collect()
            };
            if !abandoned.is_empty() {
                // What cannot be given back ends with its lease, or when it counts as dead.
                if let Err(error) = self.leave(&abandoned).await {
                    tracing::debug!(%error, "slots were not given back");
                }
                continue;
            }
            if self.closed.load(Ordering::Acquire) && self.tickets().is_empty() {
                return;
            }
            let due = *self.beaten.lock().unwrap_or_else(PoisonError::into_inner) + self.pause();
            if due <= Instant::now() {
                if let Err(error) = self.beat().await {
                    tracing::debug!(%error, "nobody heard that the tickets are alive");
                }
                continue;
            }
            let _ = timeout_at(due, self.changed.notified()).await;
        }
    }

    /// Reads which tickets were handed a slot.
    async fn listen(&self) {
        loop {
            if let Err(error) = self.follow().await {
                tracing::debug!(%error, "waiting for slots on a new connection");
            }
            sleep(self.pause()).await;
        }
    }

    async fn follow(&self) -> Result<()> {
        let [.., granted] = &self.keys;
        let waiter = self.connect.connect().await?;
        let cmd = Cmd::new("XREVRANGE").key(granted).args(["+", "-", "COUNT", "1"]).readonly();
        let last: Vec<Reply> = self.driver.query(cmd).await?;
        let mut position = match last.into_iter().next() {
            Some(entry) => entry_of(entry)?.0,
            None => "0-0".to_owned(),
        };
        // What was handed over before that position is learned from here.
        self.beat().await?;
        loop {
            let millis = ROUND.as_millis().to_string();
            let cmd = Cmd::new("XREAD").args(["BLOCK", &millis, "STREAMS"]).key(granted);
            let cmd = cmd.arg(&*position).blocking(ROUND).readonly();
            let reply: Reply = waiter.query(cmd).await?;
            if reply.is_nil() {
                continue;
            }
            for (_, entries) in reply.into_pairs()? {
                for entry in entries.into_array()? {
                    let (place, id) = entry_of(entry)?;
                    position = place;
                    self.grant(&id);
                }
            }
        }
    }
}

impl Ticket {
    fn grant(&mut self) {
        (self.stage, self.since) = (Stage::Holding, Instant::now());
        self.woken.notify_one();
    }

    /// For how long a slot was held, in milliseconds; -1 where it was not.
    fn took(&self) -> i64 {
        match self.stage {
            Stage::Holding | Stage::Abandoned(true) => {
                i64::try_from(self.since.elapsed().as_millis()).unwrap_or(i64::MAX)
            }
            _ => -1,
        }
    }
}

/// Who waits; nobody stands anywhere when it is dropped.
struct Waiting<'a>(&'a Standing);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.tell(None);
    }
}

/// A ticket of a future; dropped, it is given back by `run`.
struct Held {
    inner: Arc<Inner>,
    id: Arc<str>,
    lost: Arc<AtomicBool>,
    done: bool,
}

impl Held {
    fn stage(&self) -> Stage {
        self.inner.tickets().get(&self.id).map_or(Stage::Gone, |ticket| ticket.stage)
    }

    /// Notes that it waits, unless it was handed a slot meanwhile.
    fn wait(&self) {
        if let Some(ticket) = self.inner.tickets().get_mut(&self.id)
            && ticket.stage == Stage::Entering
        {
            ticket.stage = Stage::Waiting;
        }
    }

    fn set(&self, stage: Stage) {
        if let Some(ticket) = self.inner.tickets().get_mut(&self.id) {
            (ticket.stage, ticket.since) = (stage, Instant::now());
        }
    }

    /// Gives the ticket back at once.
    async fn leave(&mut self) -> Result<()> {
        let ticket = self.inner.tickets().remove(&self.id);
        self.done = true;
        let took = ticket.map_or(-1, |ticket| ticket.took());
        self.inner.leave(&[(Arc::clone(&self.id), took)]).await
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.done {
            if let Some(ticket) = self.inner.tickets().get_mut(&self.id) {
                ticket.stage = Stage::Abandoned(ticket.stage == Stage::Holding);
            }
            self.inner.changed.notify_one();
        }
    }
}

#[async_trait]
impl Slot for Held {
    async fn release(mut self: Box<Self>) -> Result<()> {
        self.leave().await
    }

    fn abandon(self: Box<Self>) {}

    fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }
}

#[async_trait]
impl SlotQueue for RedisSlotQueue {
    /// One `EVALSHA` if a slot is free; who waits is woken without asking, and leaves with another if its time is over.
    async fn acquire(&self, waiter: &Waiter, wait: Duration) -> Result<Queued> {
        let inner = &self.inner;
        let deadline = Instant::now() + wait;
        let id = inner.ids.make();
        let (woken, lost) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let ticket = Ticket {
            stage: Stage::Entering,
            since: Instant::now(),
            woken: Arc::clone(&woken),
            standing: waiter.standing.clone(),
            lost: Arc::clone(&lost),
        };
        inner.tickets().insert(Arc::clone(&id), ticket);
        let mut held = Held { inner: Arc::clone(inner), id, lost, done: false };
        let _standing = Waiting(&waiter.standing);
        let room = if wait.is_zero() { 0 } else { inner.pool.max_waiting };
        let mut estimate;
        loop {
            let (outcome, place, about) = inner.enter(&held.id, waiter, room).await?;
            estimate = about;
            match outcome {
                1 => {
                    held.set(Stage::Holding);
                    return Ok(Queued::Granted(HeldSlot::new(held)));
                }
                2 => {
                    let ahead = u64::try_from(place).unwrap_or(0);
                    waiter.standing.tell(Some(Position { ahead, estimate }));
                }
                _ => {
                    inner.tickets().remove(&held.id);
                    held.done = true;
                    let reason = if wait.is_zero() { Refusal::TimedOut } else { Refusal::Full };
                    return Ok(Queued::Refused { reason, estimate });
                }
            }
            held.wait();
            loop {
                match held.stage() {
                    Stage::Holding => return Ok(Queued::Granted(HeldSlot::new(held))),
                    Stage::Gone | Stage::Abandoned(_) => break,
                    Stage::Entering | Stage::Waiting => {}
                }
                let now = Instant::now();
                if deadline <= now {
                    held.leave().await?;
                    return Ok(Queued::Refused { reason: Refusal::TimedOut, estimate });
                }
                let look = (now + inner.pause()).min(deadline);
                if timeout_at(look, woken.notified()).await.is_err() {
                    let beaten = *inner.beaten.lock().unwrap_or_else(PoisonError::into_inner);
                    // Nobody runs: who waits asks for itself.
                    if inner.pause() * 2 < beaten.elapsed() {
                        inner.beat().await?;
                    }
                }
            }
            held.set(Stage::Entering);
        }
    }

    /// One `EVALSHA` that reads.
    async fn look(&self) -> Result<QueueState> {
        let reply: Vec<i64> = self.inner.driver.query(self.inner.cmd(&LOOK).readonly()).await?;
        match reply[..] {
            [held, waiting, estimate] => Ok(QueueState {
                held: u64::try_from(held).unwrap_or(0),
                waiting: u64::try_from(waiting).unwrap_or(0),
                estimate: millis(estimate),
            }),
            _ => Err(unexpected()),
        }
    }
}

fn millis(number: i64) -> Duration {
    Duration::from_millis(u64::try_from(number).unwrap_or(0))
}

fn unexpected() -> crate::Error {
    let message =
        "a script of the queue answered with another form: use a server that runs it unchanged";
    inferkit_core::Error::new(ErrorKind::Reply, message).into()
}

/// The id of a stream's entry, and the ticket in it.
fn entry_of(entry: Reply) -> Result<(String, String)> {
    let mut parts = entry.into_array()?.into_iter();
    let id = String::from_reply(parts.next().unwrap_or(Reply::Nil))?;
    let fields = parts.next().unwrap_or(Reply::Nil).into_pairs()?;
    let value = fields.into_iter().next().map_or(Reply::Nil, |(_, value)| value);
    Ok((id, String::from_reply(value)?))
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inner")
            .field("pool", &self.pool)
            .field("tickets", &self.tickets().len())
            .finish_non_exhaustive()
    }
}
