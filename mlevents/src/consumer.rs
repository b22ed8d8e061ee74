use std::collections::{BTreeSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::{BoxFuture, FutureExt as _, try_join_all};
use futures_util::stream::{self, FuturesUnordered, Stream, StreamExt as _};
use inferkit_core::{Lease, Leases, observe};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::bus::{Delivery, EntryId, EventBus, Reader, Start};
use crate::error::{Error, Result, name};
use crate::event::random_id;
use crate::topic::Topic;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a handler did not do its work.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// It may work later: the event comes again, after a while that doubles each time.
    Retry(Cause),
    /// It will never work: the event goes to the dead letters.
    Reject(Cause),
}

impl Failure {
    /// Says that the event will never be handled, and why.
    pub fn reject(cause: impl Into<Cause>) -> Self {
        Self::Reject(cause.into())
    }
}

impl<E: Into<Cause>> From<E> for Failure {
    fn from(cause: E) -> Self {
        Self::Retry(cause.into())
    }
}

/// What is done with each event.
///
/// It may be called more than once for an event: [`Delivery::idempotency_key`] tells.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles an event; what it returns decides whether the event comes again.
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure>;
}

/// Makes a handler of a function that takes deliveries by value.
pub fn handler<F, R>(handle: F) -> impl Handler
where
    F: Fn(Delivery) -> R + Send + Sync,
    R: Future<Output = Result<(), Failure>> + Send,
{
    Function(handle)
}

struct Function<F>(F);

#[async_trait]
impl<F, R> Handler for Function<F>
where
    F: Fn(Delivery) -> R + Send + Sync,
    R: Future<Output = Result<(), Failure>> + Send,
{
    async fn handle(&self, delivery: &Delivery) -> Result<(), Failure> {
        (self.0)(delivery.clone()).await
    }
}

/// How a group consumes a topic.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ConsumerConfig {
    group: String,
    consumer: String,
    start: Start,
    concurrency: usize,
    idle: Duration,
    wait: Duration,
    look: Duration,
    attempts: u32,
    backoff: Duration,
    longest_backoff: Duration,
    grace: Duration,
    ordered: Option<Duration>,
}

impl ConsumerConfig {
    /// Names the group. The consumer has a random name, 16 events are handled at a time in each partition, and an event
    /// is given up after 5 deliveries.
    pub fn new(group: impl Into<String>) -> Self {
        Self {
            group: group.into(),
            consumer: random_id(),
            start: Start::Beginning,
            concurrency: 16,
            idle: Duration::from_secs(30),
            wait: Duration::from_secs(1),
            look: Duration::from_millis(250),
            attempts: 5,
            backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(300),
            grace: Duration::from_secs(30),
            ordered: None,
        }
    }

    /// Names the consumer; two that live at once must have different names.
    pub fn named(mut self, consumer: impl Into<String>) -> Self {
        self.consumer = consumer.into();
        self
    }

    /// Sets where the group begins, if it is new.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Sets how many events of a partition are handled at a time; no more are taken from the server.
    ///
    /// Deliveries that are due again come on top, up to as many again.
    pub fn concurrency(mut self, events: usize) -> Self {
        self.concurrency = events.max(1);
        self
    }

    /// Sets after which time without a sign another consumer takes an event over; while a handler works, signs are sent.
    pub fn claim_after(mut self, idle: Duration) -> Self {
        self.idle = idle.max(Duration::from_millis(30));
        self
    }

    /// Sets how often the consumer looks for events that are due again.
    pub fn look_every(mut self, look: Duration) -> Self {
        self.look = look.max(Duration::from_millis(5));
        self
    }

    /// Sets after how many deliveries an event goes to the dead letters.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets the time until the first retry, which doubles each time, and the longest one.
    pub fn backoff(mut self, first: Duration, longest: Duration) -> Self {
        (self.backoff, self.longest_backoff) = (first, longest.max(first));
        self
    }

    /// Sets how long handlers may go on after [`Consumer::run`] was stopped.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Keeps the order of each partition: one consumer owns it by a lease of this length, and handles its events one after
    /// the other; one that fails is retried in place.
    ///
    /// Partitions are spread over the consumers that live. It needs [`Consumer::with_leases`].
    pub fn ordered(mut self, lease: Duration) -> Self {
        self.ordered = Some(lease.max(Duration::from_millis(100)));
        self
    }

    /// The time until the next delivery, after so many.
    fn delay(&self, attempts: u32) -> Duration {
        let factor = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff.saturating_mul(factor).min(self.longest_backoff)
    }
}

/// What a consumer did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Ran {
    /// Events that were handled.
    pub handled: u64,
    /// Deliveries that failed and were put off.
    pub retried: u64,
    /// Events that went to the dead letters.
    pub buried: u64,
    /// Deliveries that were given back when it was stopped.
    pub released: u64,
}

impl Ran {
    fn add(mut self, other: Self) -> Self {
        self.handled += other.handled;
        self.retried += other.retried;
        self.buried += other.buried;
        self.released += other.released;
        self
    }
}

/// Consumes a topic for a group, together with others of the same group.
#[derive(Clone)]
pub struct Consumer {
    bus: Arc<dyn EventBus>,
    topic: Topic,
    config: ConsumerConfig,
    leases: Option<Arc<dyn Leases>>,
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("topic", &self.topic)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl Consumer {
    /// Makes a consumer; nothing is sent.
    #[must_use]
    pub fn new(bus: Arc<dyn EventBus>, topic: Topic, config: ConsumerConfig) -> Self {
        Self { bus, topic, config, leases: None }
    }

    /// Sets who gives out the leases of partitions, for [`ConsumerConfig::ordered`].
    #[must_use]
    pub fn with_leases(mut self, leases: Arc<dyn Leases>) -> Self {
        self.leases = Some(leases);
        self
    }

    fn reader(&self, partition: u16) -> Reader<'_> {
        Reader::new(&self.topic, partition, &self.config.group, &self.config.consumer)
    }

    /// Consumes until `stop` is ready: then nothing new is taken, what is under way is finished within the
    /// [grace](ConsumerConfig::grace), and the rest is given back for others to take at once.
    ///
    /// It creates the group where it is not there, also when its stream is lost while it runs.
    /// Handlers run inside of this future: those that compute for long should spawn.
    /// A connection that fails is waited for.
    ///
    /// # Errors
    ///
    /// What the server refuses for good, such as a permission.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the handlers under way; their events come again once they were not heard of for long
    /// enough.
    pub async fn run(&self, handler: &dyn Handler, stop: impl Future<Output = ()>) -> Result<Ran> {
        name("consumer", &self.config.consumer)?;
        if self.config.ordered.is_some() && self.leases.is_none() {
            return Err(Error::Invalid {
                what: "ordered",
                problem: "order needs leases: give some with `with_leases`",
            });
        }
        self.create_group().await?;
        let (stopping, stopped) = watch::channel(false);
        let balance = Balance::new(self.topic.partitions());
        let partitions = (0..self.topic.partitions()).map(|partition| {
            let stopped = stopped.clone();
            match self.config.ordered {
                None => self.share(partition, handler, stopped).boxed(),
                Some(ttl) => self.own(partition, handler, stopped, ttl, &balance).boxed(),
            }
        });
        let work = try_join_all(partitions);
        let announce = self.announce(&balance);
        let stop = async {
            stop.await;
            stopping.send_replace(true);
            std::future::pending::<()>().await;
        };
        let ran = tokio::select! {
            ran = work => ran?,
            () = stop => Vec::new(),
            () = announce => Vec::new(),
        };
        let ran = ran.into_iter().fold(Ran::default(), Ran::add);
        for partition in 0..self.topic.partitions() {
            // One that could not leave has no deliveries and harms nobody.
            is_told(self.bus.leave(self.reader(partition)).await)?;
        }
        if self.config.ordered.is_some() {
            let (group, consumer) = (&self.config.group, &self.config.consumer);
            is_told(self.bus.announce(&self.topic, group, consumer, Duration::ZERO).await)?;
        }
        Ok(ran)
    }

    async fn create_group(&self) -> Result<()> {
        let mut pause = Pause::default();
        loop {
            let created =
                self.bus.create_group(&self.topic, &self.config.group, self.config.start).await;
            match created {
                Err(error) if error.is_transient() => pause.wait().await,
                created => return created,
            }
        }
    }

    /// Shares a partition with the other consumers of the group.
    async fn share(
        &self,
        partition: u16,
        handler: &dyn Handler,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<Ran> {
        let reader = self.reader(partition);
        let mut ran = Ran::default();
        let mut running: FuturesUnordered<BoxFuture<'_, (Delivery, Result<(), Failure>)>> =
            FuturesUnordered::new();
        let mut under_way = BTreeSet::new();
        let mut done: Vec<EntryId> = Vec::new();
        let mut reading: Option<BoxFuture<'_, Result<Vec<Delivery>>>> = None;
        let mut look = ticks(self.config.look);
        let mut sign = ticks(self.config.idle / 3);
        let mut from = None;
        let mut pause = Pause::default();
        let mut end: Option<Instant> = None;
        loop {
            let is_over = *stopped.borrow();
            if is_over && end.is_none() {
                end = Some(Instant::now() + self.config.grace);
            }
            if is_over && reading.is_none() && running.is_empty() {
                break;
            }
            let free = self.config.concurrency.saturating_sub(running.len());
            if !is_over && reading.is_none() && 0 < free && pause.is_over() {
                reading = Some(self.bus.read(reader, free, self.config.wait));
            }
            let mut taken = Vec::new();
            let grace = async {
                match end {
                    Some(end) => tokio::time::sleep_until(end).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some((delivery, outcome)) = running.next(), if !running.is_empty() => {
                    let mut finished = vec![(delivery, outcome)];
                    // Whatever else is done by now shares the acknowledgement.
                    while let Some(Some(next)) = running.next().now_or_never() {
                        finished.push(next);
                    }
                    for (delivery, outcome) in finished {
                        under_way.remove(&delivery.entry);
                        self.conclude(reader, &delivery, outcome, &mut done, &mut ran).await?;
                    }
                    self.acknowledge(reader, &mut done).await?;
                }
                read = async {
                    match reading.as_mut() {
                        Some(reading) => reading.await,
                        None => std::future::pending().await,
                    }
                } => {
                    reading = None;
                    match read {
                        Ok(deliveries) => {
                            pause = Pause::default();
                            taken = deliveries;
                        }
                        Err(error) => self.recover(error, &mut pause).await?,
                    }
                }
                _ = sign.tick(), if !under_way.is_empty() => {
                    let entries: Vec<EntryId> = under_way.iter().copied().collect();
                    if let Err(error) = self.bus.extend(reader, &entries).await {
                        self.recover(error, &mut pause).await?;
                    }
                }
                _ = look.tick(), if !is_over => {
                    self.acknowledge(reader, &mut done).await?;
                    // What is being read may fill the places that are free now.
                    if 0 < free {
                        match self.bus.claim(reader, self.config.idle, from, free).await {
                            Ok(claimed) => {
                                from = claimed.next;
                                taken = claimed.deliveries;
                            }
                            Err(error) => self.recover(error, &mut pause).await?,
                        }
                    }
                }
                _ = stopped.changed(), if !is_over => {}
                () = grace => break,
            }
            for delivery in taken {
                if under_way.contains(&delivery.entry) {
                    // Its signs came late, and nobody else took it.
                    continue;
                }
                if *stopped.borrow() {
                    self.release(reader, delivery.entry, &mut ran).await?;
                } else if let Some(reason) = self.hopeless(&delivery) {
                    self.bury(reader, &delivery, &reason, &mut ran).await?;
                } else {
                    under_way.insert(delivery.entry);
                    running.push(handle(handler, delivery).boxed());
                }
            }
        }
        drop((running, reading));
        for entry in under_way {
            self.release(reader, entry, &mut ran).await?;
        }
        self.acknowledge(reader, &mut done).await?;
        Ok(ran)
    }

    /// Why a delivery is not handled at all.
    fn hopeless(&self, delivery: &Delivery) -> Option<String> {
        match &delivery.event {
            Err(problem) => Some(format!("it is no event: {problem}")),
            Ok(_) if self.config.attempts < delivery.attempt => Some(format!(
                "it was delivered {} times, and nobody said what became of it",
                delivery.attempt - 1
            )),
            Ok(_) => None,
        }
    }

    /// Does with a delivery what its outcome says; `false` if the server could not be told, and it comes again.
    async fn conclude(
        &self,
        reader: Reader<'_>,
        delivery: &Delivery,
        outcome: Result<(), Failure>,
        done: &mut Vec<EntryId>,
        ran: &mut Ran,
    ) -> Result<bool> {
        match outcome {
            Ok(()) => {
                done.push(delivery.entry);
                ran.handled += 1;
                count("handled");
                Ok(true)
            }
            Err(Failure::Reject(cause)) => {
                self.bury(reader, delivery, &cause.to_string(), ran).await
            }
            Err(Failure::Retry(cause)) if self.config.attempts <= delivery.attempt => {
                let reason = format!("attempt {} failed: {cause}", delivery.attempt);
                self.bury(reader, delivery, &reason, ran).await
            }
            Err(Failure::Retry(_)) => {
                ran.retried += 1;
                count("retried");
                let delay = self.config.delay(delivery.attempt);
                // If this is lost, the delivery comes again as one that was not heard of.
                is_told(self.bus.retry(reader, delivery.entry, delay).await)
            }
        }
    }

    /// Moves a delivery to the dead letters; `false` if the server could not be told: it comes again, and is moved then.
    async fn bury(
        &self,
        reader: Reader<'_>,
        delivery: &Delivery,
        reason: &str,
        ran: &mut Ran,
    ) -> Result<bool> {
        let buried = self.bus.bury(reader, delivery, reason).await;
        if let Ok(is_moved) = &buried {
            ran.buried += u64::from(*is_moved);
            count("buried");
        }
        is_told(buried)
    }

    async fn release(&self, reader: Reader<'_>, entry: EntryId, ran: &mut Ran) -> Result<()> {
        ran.released += 1;
        count("released");
        is_told(self.bus.retry(reader, entry, Duration::ZERO).await)?;
        Ok(())
    }

    /// Acknowledges what is done; what could not be is tried again by the next call.
    async fn acknowledge(&self, reader: Reader<'_>, done: &mut Vec<EntryId>) -> Result<()> {
        if done.is_empty() {
            return Ok(());
        }
        if is_told(self.bus.ack(reader, done).await)? {
            done.clear();
        }
        Ok(())
    }

    /// Waits for a connection, and makes a group anew that is gone.
    async fn recover(&self, error: Error, pause: &mut Pause) -> Result<()> {
        match error {
            Error::NoGroup { .. } => {
                tracing::warn!(topic = self.topic.name(), "the group is gone and is created again");
                count("healed");
                self.create_group().await
            }
            error if error.is_transient() => {
                pause.begin();
                Ok(())
            }
            error => Err(error),
        }
    }

    /// Says that this consumer lives, and learns how many partitions are its share.
    async fn announce(&self, balance: &Balance) {
        let Some(ttl) = self.config.ordered else { return std::future::pending().await };
        loop {
            let (group, consumer) = (&self.config.group, &self.config.consumer);
            // Without an answer the share stays as it was.
            if let Ok(alive) = self.bus.announce(&self.topic, group, consumer, ttl).await {
                let share = usize::from(self.topic.partitions()).div_ceil(alive.max(1));
                balance.share.store(share, Ordering::Relaxed);
            }
            sleep(ttl / 3).await;
        }
    }

    /// Owns a partition whenever nobody else does, within this consumer's share.
    async fn own(
        &self,
        partition: u16,
        handler: &dyn Handler,
        stopped: watch::Receiver<bool>,
        ttl: Duration,
        balance: &Balance,
    ) -> Result<Ran> {
        let Some(leases) = &self.leases else { return Ok(Ran::default()) };
        let lease_name = format!("{}/{partition}/{}", self.topic.name(), self.config.group);
        let mut ran = Ran::default();
        while !*stopped.borrow() {
            let lease = match balance.take() {
                false => None,
                true => {
                    let lease = leases.acquire(&lease_name, &self.config.consumer, ttl).await;
                    if !matches!(lease, Ok(Some(_))) {
                        balance.give_back();
                    }
                    lease.or_else(|error| match error.is_transient() {
                        true => Ok(None),
                        false => Err(error),
                    })?
                }
            };
            let Some(lease) = lease else {
                let mut stopped = stopped.clone();
                tokio::select! {
                    () = sleep(ttl / 5) => {}
                    _ = stopped.wait_for(|is_over| *is_over) => {}
                }
                continue;
            };
            let worked = {
                let work = self.in_order(partition, handler, &stopped, &lease, balance, &mut ran);
                let keep = keep(&**leases, &lease, ttl);
                tokio::select! {
                    worked = work => worked,
                    () = keep => Ok(()),
                }
            };
            balance.give_back();
            // One that was lost ends by itself.
            let _ = leases.release(&lease).await;
            worked?;
        }
        Ok(ran)
    }

    /// Handles the events of a partition one after the other, those first that a former owner left.
    async fn in_order(
        &self,
        partition: u16,
        handler: &dyn Handler,
        stopped: &watch::Receiver<bool>,
        lease: &Lease,
        balance: &Balance,
        ran: &mut Ran,
    ) -> Result<()> {
        let reader = self.reader(partition);
        let mut pause = Pause::default();
        let mut left_behind = true;
        let mut from = None;
        while !*stopped.borrow() && !balance.is_too_much() {
            let taken = if left_behind {
                let claimed =
                    self.bus.claim(reader, Duration::ZERO, from, self.config.concurrency).await;
                claimed.map(|claimed| {
                    from = claimed.next;
                    left_behind = claimed.next.is_some();
                    Some(claimed.deliveries)
                })
            } else {
                self.read_in_order(reader).await
            };
            let deliveries = match taken {
                Ok(Some(deliveries)) => deliveries,
                // A read whose answer was lost has taken older events.
                Ok(None) => {
                    (left_behind, from) = (true, None);
                    continue;
                }
                Err(error) => {
                    self.recover(error, &mut pause).await?;
                    pause.wait_if_begun().await;
                    (left_behind, from) = (true, None);
                    continue;
                }
            };
            let mut done = Vec::new();
            for mut delivery in deliveries {
                delivery.fence = Some(lease.token());
                let is_through =
                    self.in_place(reader, handler, stopped, delivery, &mut done, ran).await?;
                if !is_through {
                    // It comes before whatever follows it.
                    (left_behind, from) = (true, None);
                    break;
                }
            }
            while !done.is_empty() {
                self.acknowledge(reader, &mut done).await?;
                if !done.is_empty() {
                    pause.wait().await;
                }
            }
        }
        Ok(())
    }

    /// Takes the next events of a partition; `None` if older ones are not done.
    ///
    /// A read can reach the server after its reader gave it up. What it took comes before whatever is read later, and is
    /// known by then.
    async fn read_in_order(&self, reader: Reader<'_>) -> Result<Option<Vec<Delivery>>> {
        let deliveries = self.bus.read(reader, self.config.concurrency, self.config.wait).await?;
        if let Some(first) = deliveries.first()
            && let Some(oldest) = self.bus.oldest_pending(reader).await?
            && oldest < first.entry
        {
            return Ok(None);
        }
        Ok(Some(deliveries))
    }

    /// Handles an event until it is handled or given up; `false` if the consumer was stopped before, or the event could not
    /// be put to the dead letters.
    async fn in_place(
        &self,
        reader: Reader<'_>,
        handler: &dyn Handler,
        stopped: &watch::Receiver<bool>,
        mut delivery: Delivery,
        done: &mut Vec<EntryId>,
        ran: &mut Ran,
    ) -> Result<bool> {
        loop {
            if *stopped.borrow() {
                return Ok(false);
            }
            if let Some(reason) = self.hopeless(&delivery) {
                return self.bury(reader, &delivery, &reason, ran).await;
            }
            match handler.handle(&delivery).await {
                Err(Failure::Retry(_)) if delivery.attempt < self.config.attempts => {
                    ran.retried += 1;
                    count("retried");
                    let mut stopped = stopped.clone();
                    tokio::select! {
                        () = sleep(self.config.delay(delivery.attempt)) => {}
                        _ = stopped.wait_for(|is_over| *is_over) => return Ok(false),
                    }
                    delivery.attempt += 1;
                }
                outcome => return self.conclude(reader, &delivery, outcome, done, ran).await,
            }
        }
    }

    /// Returns the deliveries of a partition as a stream; each is to be [acknowledged](Self::ack) by the caller.
    ///
    /// Deliveries that are due again come in between. Entries that are no events come as they are.
    /// A group that is gone is created again, and a connection that fails is waited for, up to five seconds at a time.
    /// No signs are sent: what takes longer than [`ConsumerConfig::claim_after`] comes again.
    /// An error does not end the stream: who asks again goes on.
    pub fn deliveries(&self, partition: u16) -> impl Stream<Item = Result<Delivery>> + '_ {
        let state = (VecDeque::new(), Instant::now(), None, Pause::default());
        stream::unfold(state, move |(mut ready, mut look, mut from, mut pause)| async move {
            loop {
                if let Some(delivery) = ready.pop_front() {
                    return Some((Ok(delivery), (ready, look, from, pause)));
                }
                let reader = self.reader(partition);
                let count = self.config.concurrency;
                let taken = if look <= Instant::now() {
                    look = Instant::now() + self.config.look;
                    let claimed = self.bus.claim(reader, self.config.idle, from, count).await;
                    claimed.map(|claimed| {
                        from = claimed.next;
                        claimed.deliveries
                    })
                } else {
                    self.bus.read(reader, count, self.config.look.min(self.config.wait)).await
                };
                match taken {
                    Ok(deliveries) => {
                        pause = Pause::default();
                        ready.extend(deliveries);
                    }
                    Err(error) => match self.recover(error, &mut pause).await {
                        Ok(()) => pause.wait_if_begun().await,
                        Err(error) => return Some((Err(error), (ready, look, from, pause))),
                    },
                }
            }
        })
    }

    /// Acknowledges deliveries of one partition; see [`deliveries`](Self::deliveries).
    ///
    /// # Errors
    ///
    /// As [`EventBus::ack`].
    pub async fn ack(&self, partition: u16, entries: &[EntryId]) -> Result<u64> {
        self.bus.ack(self.reader(partition), entries).await
    }

    /// Puts a delivery off; see [`EventBus::retry`].
    ///
    /// # Errors
    ///
    /// As [`EventBus::retry`].
    pub async fn retry(&self, delivery: &Delivery, delay: Duration) -> Result<()> {
        self.bus.retry(self.reader(delivery.partition), delivery.entry, delay).await
    }

    /// Moves a delivery to the dead letters; see [`EventBus::bury`].
    ///
    /// # Errors
    ///
    /// As [`EventBus::bury`].
    pub async fn bury_delivery(&self, delivery: &Delivery, reason: &str) -> Result<bool> {
        self.bus.bury(self.reader(delivery.partition), delivery, reason).await
    }
}

async fn handle(handler: &dyn Handler, delivery: Delivery) -> (Delivery, Result<(), Failure>) {
    let outcome = handler.handle(&delivery).await;
    (delivery, outcome)
}

/// Renews a lease until it is lost.
async fn keep(leases: &dyn Leases, lease: &Lease, ttl: Duration) {
    loop {
        tokio::select! {
            () = sleep(ttl / 3) => {}
            () = lease.lost() => return,
        }
        if let Ok(false) = leases.renew(lease, ttl).await {
            return;
        }
        if lease.is_lost() {
            return;
        }
    }
}

/// How many partitions a consumer owns, and should.
struct Balance {
    share: AtomicUsize,
    owned: AtomicUsize,
}

impl Balance {
    fn new(partitions: u16) -> Self {
        Self { share: AtomicUsize::new(partitions.into()), owned: AtomicUsize::new(0) }
    }

    /// Whether one more is within the share; it counts as owned then.
    fn take(&self) -> bool {
        let share = self.share.load(Ordering::Relaxed);
        let more = |owned| (owned < share).then_some(owned + 1);
        self.owned.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.owned.fetch_sub(1, Ordering::Relaxed);
    }

    fn is_too_much(&self) -> bool {
        self.share.load(Ordering::Relaxed) < self.owned.load(Ordering::Relaxed)
    }
}

/// A time to wait that doubles while nothing works, up to five seconds.
#[derive(Debug, Default)]
struct Pause {
    last: Duration,
    until: Option<Instant>,
}

impl Pause {
    fn begin(&mut self) {
        self.last = (self.last * 2).clamp(Duration::from_millis(50), Duration::from_secs(5));
        self.until = Some(Instant::now() + self.last);
    }

    fn is_over(&self) -> bool {
        self.until.is_none_or(|until| until <= Instant::now())
    }

    async fn wait(&mut self) {
        self.begin();
        self.wait_if_begun().await;
    }

    async fn wait_if_begun(&self) {
        if let Some(until) = self.until {
            tokio::time::sleep_until(until).await;
        }
    }
}

fn ticks(period: Duration) -> tokio::time::Interval {
    let mut ticks = interval(period.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Whether the server was told; an error is what it refuses for good.
fn is_told<T>(result: Result<T>) -> Result<bool> {
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.is_transient() => Ok(false),
        // The group is made anew by the next read.
        Err(Error::NoGroup { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn count(outcome: &'static str) {
    observe::count("inferkit_mlevents_deliveries_total", &[("outcome", outcome)], 1);
}
