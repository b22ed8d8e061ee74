use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{
    HeldSlot, Position, QueueState, Queued, Refusal, Slot, SlotPool, SlotQueue, Standing, Waiter,
};
use crate::Result;

/// A pool in the memory of one process: for tests and tools, and what the one on Redis is compared with.
///
/// Nothing needs to be spawned: slots and places are given back when they are dropped.
#[derive(Clone, Debug)]
pub struct MemorySlotQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    pool: SlotPool,
    // A `std` mutex: it is held for a few steps, never across an await.
    state: Mutex<State>,
}

/// The order of the queue: priority, virtual start, and who came first.
type Place = (u16, u64, u64);

#[derive(Debug, Default)]
struct State {
    held: u32,
    next: u64,
    waiting: BTreeMap<Place, (oneshot::Sender<()>, Standing)>,
    virtual_time: u64,
    finishes: HashMap<String, u64>,
    in_a_row: u32,
    mean_millis: Option<f64>,
}

impl MemorySlotQueue {
    /// Makes a pool whose slots are all free.
    #[must_use]
    pub fn new(pool: SlotPool) -> Self {
        Self(Arc::new(Inner { pool, state: Mutex::default() }))
    }

    fn slot(&self) -> HeldSlot {
        HeldSlot::new(MemorySlot { queue: Arc::clone(&self.0), since: Instant::now(), held: true })
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn estimate(&self, state: &State, place: usize) -> Duration {
        let mean = state.mean_millis.unwrap_or(1000.0);
        let rounds = (place + 1).div_ceil(self.pool.slots as usize);
        Duration::from_secs_f64(rounds as f64 * mean / 1e3)
    }

    fn hand_on(&self, state: &mut State) {
        while state.held < self.pool.slots {
            let Some((&first, _)) = state.waiting.first_key_value() else { return };
            let mut place = first;
            if self.pool.turn <= state.in_a_row {
                let lower = state.waiting.range((first.0 + 1, 0, 0)..).next();
                place = lower.map_or(first, |(&place, _)| place);
                state.in_a_row = 0;
            } else {
                state.in_a_row += 1;
            }
            let Some((waiter, standing)) = state.waiting.remove(&place) else { return };
            standing.tell(None);
            // Whoever went away is skipped.
            if waiter.send(()).is_ok() {
                state.held += 1;
                state.virtual_time = place.1;
            }
        }
        self.tell(state);
    }

    /// Tells all who wait where they stand.
    fn tell(&self, state: &State) {
        for (place, (_, standing)) in state.waiting.values().enumerate() {
            let estimate = self.estimate(state, place);
            standing.tell(Some(Position { ahead: place as u64, estimate }));
        }
    }
}

#[async_trait]
impl SlotQueue for MemorySlotQueue {
    async fn acquire(&self, waiter: &Waiter, wait: Duration) -> Result<Queued> {
        let (mut place, mut turn) = {
            let mut state = self.0.lock();
            let state = &mut *state;
            self.0.hand_on(state);
            if state.waiting.is_empty() && state.held < self.0.pool.slots {
                state.held += 1;
                return Ok(Queued::Granted(self.slot()));
            }
            let length = state.waiting.len();
            if wait.is_zero() || self.0.pool.max_waiting as usize <= length {
                let reason = if wait.is_zero() { Refusal::TimedOut } else { Refusal::Full };
                let estimate = self.0.estimate(state, length);
                return Ok(Queued::Refused { reason, estimate });
            }
            if length == 0 {
                (state.virtual_time, state.in_a_row) = (0, 0);
                state.finishes.clear();
            }
            let finish = state.finishes.entry(waiter.tenant.clone()).or_default();
            let start = state.virtual_time.max(*finish);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a weight lies between 0.001 and 1000"
            )]
            let length = (1000.0 / waiter.weight).round() as u64;
            *finish = start + length;
            state.next += 1;
            let place = (waiter.priority, start, state.next);
            let (sender, turn) = oneshot::channel();
            state.waiting.insert(place, (sender, waiter.standing.clone()));
            self.0.tell(state);
            (Waiting { queue: Arc::clone(&self.0), place: Some(place) }, turn)
        };
        match tokio::time::timeout(wait, &mut turn).await {
            Ok(_) => {
                place.place = None;
                Ok(Queued::Granted(self.slot()))
            }
            Err(_) => {
                let mut state = self.0.lock();
                let left =
                    place.place.take().is_some_and(|place| state.waiting.remove(&place).is_some());
                waiter.standing.tell(None);
                self.0.tell(&state);
                if !left {
                    // It was handed a slot in the very last moment.
                    drop(state);
                    return Ok(Queued::Granted(self.slot()));
                }
                let estimate = self.0.estimate(&state, state.waiting.len());
                Ok(Queued::Refused { reason: Refusal::TimedOut, estimate })
            }
        }
    }

    async fn look(&self) -> Result<QueueState> {
        let state = self.0.lock();
        let (held, waiting) = (u64::from(state.held), state.waiting.len());
        let free = state.held < self.0.pool.slots && waiting == 0;
        let estimate = if free { Duration::ZERO } else { self.0.estimate(&state, waiting) };
        Ok(QueueState { held, waiting: waiting as u64, estimate })
    }
}

/// A place in the queue; dropped, it is left.
struct Waiting {
    queue: Arc<Inner>,
    place: Option<Place>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut state = self.queue.lock();
        match state.waiting.remove(&place) {
            Some((_, standing)) => {
                standing.tell(None);
                self.queue.tell(&state);
            }
            // It was handed a slot that nobody takes.
            None => {
                state.held = state.held.saturating_sub(1);
                self.queue.hand_on(&mut state);
            }
        }
    }
}

struct MemorySlot {
    queue: Arc<Inner>,
    since: Instant,
    held: bool,
}

impl MemorySlot {
    fn give_back(&mut self) {
        if std::mem::take(&mut self.held) {
            let mut state = self.queue.lock();
            let took = self.since.elapsed().as_secs_f64() * 1e3;
            let mean = state.mean_millis.unwrap_or(took);
            state.mean_millis = Some(mean + (took - mean) / 8.0);
            state.held = state.held.saturating_sub(1);
            self.queue.hand_on(&mut state);
        }
    }
}

#[async_trait]
impl Slot for MemorySlot {
    async fn release(mut self: Box<Self>) -> Result<()> {
        self.give_back();
        Ok(())
    }

    fn abandon(mut self: Box<Self>) {
        self.give_back();
    }

    fn is_lost(&self) -> bool {
        false
    }
}
