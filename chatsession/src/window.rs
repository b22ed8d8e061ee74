use crate::pairs::Pairs;
use crate::{Entry, Error, Message, Recent, Result, Role, Summary};

/// How a window is made: how many tokens it has, and in which steps its beginning moves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Budget {
    /// The most tokens of system prompt, summary and messages.
    pub tokens: u64,
    /// By how many tokens the beginning moves at once; a quarter of `tokens` by default.
    ///
    /// Between two steps each window begins as the last one did, so that the provider's prompt cache has it.
    pub step: u64,
}

impl Budget {
    /// Makes a budget whose windows move in steps of a quarter.
    #[must_use]
    pub fn new(tokens: u64) -> Self {
        Self { tokens, step: tokens / 4 }
    }

    /// Sets the steps; with 0 or 1 the window moves with every message.
    #[must_use]
    pub fn with_step(mut self, step: u64) -> Self {
        self.step = step;
        self
    }
}

/// What a model is shown of a session.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Window {
    /// The system prompt.
    pub system: Option<String>,
    /// What stands for the messages that were summarized.
    pub summary: Option<Summary>,
    /// The newest messages, in order.
    pub entries: Vec<Entry>,
    /// The tokens of all of it, as estimated or reported when it was stored.
    pub tokens: u64,
    /// How many messages lie between the summary and the window, as far as they were read.
    pub dropped: usize,
}

impl Window {
    /// Fits the end of a branch into a budget.
    ///
    /// A call of a tool and its result are never separated; a result that came late is moved to its call.
    /// Results without a call, and calls that were never answered, are left out, since providers refuse them; calls of the
    /// newest messages may still be answered and stay.
    ///
    /// The window begins at the first message after a multiple of [`Budget::step`], counted in tokens from the beginning of
    /// the branch: so it depends on nothing but the messages, and stays where it is while they fit.
    ///
    /// # Errors
    ///
    /// [`Error::BudgetTooSmall`] if not even the newest messages that belong together fit.
    pub fn new(recent: &Recent, budget: Budget) -> Result<Self> {
        let fixed = recent
            .session
            .system_tokens
            .saturating_add(recent.summary.as_ref().map_or(0, |summary| summary.tokens));
        let entries = &recent.entries;
        let room = budget.tokens.saturating_sub(fixed);
        // Tokens from each message to the end; the offsets of a branch are not asked, since they may have gaps.
        let mut after = vec![0_u64; entries.len() + 1];
        for (index, entry) in entries.iter().enumerate().rev() {
            let rest = after.get(index + 1).copied().unwrap_or_default();
            if let Some(sum) = after.get_mut(index) {
                *sum = rest.saturating_add(entry.tokens);
            }
        }
        let sum = |index: usize| after.get(index).copied().unwrap_or_default();
        let cuts = Pairs::of(entries).cuts();
        let places = || (0..entries.len()).filter(|index| cuts.get(*index) == Some(&true));
        let fits = |index: &usize| sum(*index) <= room;
        let start = match entries.last() {
            None => 0,
            Some(_) if fits(&0) => 0,
            Some(last) => {
                let needed = last.end().saturating_sub(room);
                let grid = match budget.step {
                    0 | 1 => needed,
                    step => needed.div_ceil(step).saturating_mul(step),
                };
                let on_grid =
                    |index: &usize| entries.get(*index).is_some_and(|entry| grid <= entry.offset);
                let start = places().filter(fits).find(on_grid);
                // Steps that are longer than the newest messages: rather the window moves than it is empty.
                let start = start.or_else(|| places().find(fits));
                let least = places().next_back().unwrap_or_default();
                start.ok_or(Error::BudgetTooSmall {
                    needed: fixed.saturating_add(sum(least)),
                    budget: budget.tokens,
                })?
            }
        };
        if budget.tokens < fixed {
            return Err(Error::BudgetTooSmall { needed: fixed, budget: budget.tokens });
        }
        let shown = answerable(entries.get(start..).unwrap_or_default());
        let tokens = shown.iter().map(|entry| entry.tokens).fold(fixed, u64::saturating_add);
        Ok(Self {
            system: recent.session.system.clone(),
            summary: recent.summary.clone(),
            entries: shown,
            tokens,
            dropped: start,
        })
    }

    /// Returns what is sent to the model: the system prompt, the summary as a system message, and the messages.
    #[must_use]
    pub fn to_messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|system| Message::system(system.as_str()));
        let summary = self.summary.iter().map(Summary::to_message);
        let messages = self.entries.iter().map(|entry| entry.message.clone());
        system.chain(summary).chain(messages).collect()
    }
}

/// Puts results behind their calls, and leaves out results without calls, and calls without results unless they may still
/// come.
fn answerable(entries: &[Entry]) -> Vec<Entry> {
    let pairs = Pairs::of(entries);
    // The calls after which nothing but results has come.
    let pending = entries.iter().rposition(|entry| entry.message.role != Role::Tool);
    let mut shown = Vec::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        if entry.message.role == Role::Tool {
            continue;
        }
        if entry.message.tool_calls.is_empty() {
            shown.push(entry.clone());
            continue;
        }
        let results: Vec<&Entry> = pairs.results(index, entries).collect();
        let answered = |id: &str| {
            results.iter().any(|result| result.message.tool_call_id.as_deref() == Some(id))
        };
        let mut entry = entry.clone();
        if Some(index) != pending {
            entry.message.tool_calls.retain(|call| answered(&call.id));
        }
        if !(entry.message.tool_calls.is_empty() && entry.message.content.is_empty()) {
            shown.push(entry);
            shown.extend(results.into_iter().cloned());
        }
    }
    shown
}
