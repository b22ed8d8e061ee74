use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// What will be a vector, unless whoever makes it gives up.
type Promised = Option<Arc<[f32]>>;

/// The digests of texts, and the vectors that somebody in this process is about to have for them.
type Waiting = HashMap<[u8; 32], watch::Receiver<Promised>>;

/// The texts that calls of this process are embedding at the moment, by digest.
#[derive(Debug, Default)]
pub(crate) struct Flights(Mutex<Waiting>);

/// What one call found: the texts that it embeds itself, and those that others are embedding.
pub(crate) struct Claim<'f> {
    /// The places of the caller's texts in the order that was asked for.
    pub(crate) mine: Vec<usize>,
    pub(crate) theirs: Vec<(usize, Awaited)>,
    flights: &'f Flights,
    senders: Vec<([u8; 32], watch::Sender<Promised>)>,
}

/// A vector that another call is making.
pub(crate) struct Awaited(watch::Receiver<Promised>);

impl Flights {
    /// Claims every text that nobody is embedding yet.
    pub(crate) fn claim(&self, texts: impl Iterator<Item = (usize, [u8; 32])>) -> Claim<'_> {
        let (mut mine, mut theirs, mut senders) = (Vec::new(), Vec::new(), Vec::new());
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (place, digest) in texts {
            match waiting.get(&digest) {
                Some(receiver) => theirs.push((place, Awaited(receiver.clone()))),
                None => {
                    let (sender, receiver) = watch::channel(None);
                    waiting.insert(digest, receiver);
                    senders.push((digest, sender));
                    mine.push(place);
                }
            }
        }
        Claim { mine, theirs, flights: self, senders }
    }
}

impl Claim<'_> {
    /// Hands the vectors of the own texts to whoever waits for them; copied only where somebody does.
    pub(crate) fn land<'v>(&self, vectors: impl Iterator<Item = &'v [f32]>) {
        for ((_, sender), vector) in self.senders.iter().zip(vectors) {
            // One receiver lies in the map.
            if 1 < sender.receiver_count() {
                let _ = sender.send(Some(vector.into()));
            }
        }
    }
}

/// Also when the call fails or is dropped: who waits then embeds the text itself.
impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let mut waiting = self.flights.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (digest, _) in &self.senders {
            waiting.remove(digest);
        }
    }
}

impl Awaited {
    /// Waits for the vector; `None` if the other call gave up.
    pub(crate) async fn vector(mut self) -> Option<Vec<f32>> {
        let vector = self.0.wait_for(Option::is_some).await.ok()?;
        vector.as_ref().map(|vector| vector.to_vec())
    }
}
