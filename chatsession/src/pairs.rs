use std::collections::HashMap;

use crate::{Entry, Role};

/// Which messages hold together: a call of a tool and its result stand or fall together, or the provider refuses them.
pub(crate) struct Pairs {
    /// For each message that holds results: the index of the message with the call.
    call_of: Vec<Option<usize>>,
}

impl Pairs {
    /// Finds the pairs: a result answers the latest call of its id that has no answer yet.
    ///
    /// Some providers use an id again in a later turn.
    pub(crate) fn of(entries: &[Entry]) -> Self {
        let mut open: HashMap<&str, usize> = HashMap::new();
        let mut call_of = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            let result = entry.message.tool_call_id.as_deref();
            let result = result.filter(|_| entry.message.role == Role::Tool);
            call_of.push(result.and_then(|id| open.remove(id)));
            for call in &entry.message.tool_calls {
                open.insert(&call.id, index);
            }
        }
        Self { call_of }
    }

    /// Tells for each place between messages whether no pair lies across it: `cuts()[i]` is the place before message `i`.
    ///
    /// Calls without results and results without calls hinder no cut, so that one of them does not block it for ever.
    pub(crate) fn cuts(&self) -> Vec<bool> {
        let mut cuts = vec![true; self.call_of.len() + 1];
        let mut earliest = usize::MAX;
        for (index, call) in self.call_of.iter().enumerate().rev() {
            earliest = earliest.min(call.unwrap_or(usize::MAX));
            if let Some(cut) = cuts.get_mut(index) {
                *cut = index <= earliest;
            }
        }
        cuts
    }

    /// Returns the results of the calls of message `index`, in order.
    pub(crate) fn results<'a>(
        &self,
        index: usize,
        entries: &'a [Entry],
    ) -> impl Iterator<Item = &'a Entry> {
        let results = self.call_of.iter().zip(entries);
        results.filter(move |(call, _)| **call == Some(index)).map(|(_, entry)| entry)
    }
}
