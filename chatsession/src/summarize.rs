use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::BuildHasher as _;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use inferkit_core::{Lease, observe};
use tracing::{Instrument as _, debug_span};

use crate::pairs::Pairs;
use crate::{Entry, Error, Recent, Result, Role, SessionId, SessionStore, Summary};

/// Makes one text of an earlier summary and of the messages after it, usually by asking a model: the contract with those who
/// implement one.
#[async_trait]
pub trait Summarizer: Debug + Send + Sync + 'static {
    /// Returns the text that stands for all of it from now on.
    ///
    /// # Errors
    ///
    /// [`Error::summarizer`]; nothing changes then.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the lease is lost, since another process may be at it by then.
    async fn summarize(&self, earlier: Option<&Summary>, entries: &[Entry]) -> Result<String>;
}

/// When a session is summarized, and how much of it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct SummaryRule {
    /// The messages after the last summary must have more tokens than this.
    pub above: u64,
    /// The newest messages, of so many tokens at most, stay as they are; a quarter of `above` by default.
    pub keep: u64,
    /// How long a summarizer that crashed keeps others from trying; one that works keeps its lease: 30 seconds.
    pub lease: Duration,
    /// Whether the messages are [removed from the log](SessionStore::trim) once the summary is stored; by default they stay
    /// until the session is deleted.
    pub trim: bool,
}

impl SummaryRule {
    /// Makes a rule.
    #[must_use]
    pub fn above(tokens: u64) -> Self {
        Self { above: tokens, keep: tokens / 4, lease: Duration::from_secs(30), trim: false }
    }

    /// Sets how many tokens stay as they are.
    #[must_use]
    pub fn keeping(mut self, tokens: u64) -> Self {
        self.keep = tokens;
        self
    }

    /// Sets how long a summarizer that crashed keeps others from trying.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Removes messages from the log once they are in a stored summary.
    #[must_use]
    pub fn trimming(mut self) -> Self {
        self.trim = true;
        self
    }
}

/// What became of a session that was to be summarized.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Summarized {
    /// It is short enough, or its newest messages belong together.
    NotNeeded,
    /// Somebody else is at it.
    Busy,
    /// Another summary was stored or another branch chosen meanwhile; this one is dropped.
    Outdated,
    /// It is stored.
    Stored(Summary),
}

/// See [`SessionStoreExt::summarize`](crate::SessionStoreExt::summarize).
pub(crate) async fn summarize<S: SessionStore + ?Sized>(
    store: &S,
    session: &SessionId,
    summarizer: &dyn Summarizer,
    rule: SummaryRule,
) -> Result<Summarized> {
    let due = async || {
        let recent = store.recent(session, u64::MAX).await?.ok_or(Error::NoSession)?;
        let cut = cut(&recent, rule);
        Ok::<_, Error>(cut.map(|cut| (recent, cut)))
    };
    if due().await?.is_none() {
        return Ok(Summarized::NotNeeded);
    }
    let name = format!("chat summary {session}");
    let owner = format!("{:016x}", RandomState::new().hash_one(Instant::now()));
    let Some(lease) = store.leases().acquire(&name, &owner, rule.lease).await? else {
        return Ok(Summarized::Busy);
    };
    let summarized = async {
        // Whoever had the lease before may have done it.
        let Some((recent, cut)) = due().await? else { return Ok(Summarized::NotNeeded) };
        held(store, session, summarizer, rule, &lease, &recent, cut).await
    };
    let summarized = summarized.instrument(debug_span!("chatsession.summarize")).await;
    let outcome = match &summarized {
        Ok(Summarized::Stored(_)) => "stored",
        Ok(Summarized::Outdated) => "outdated",
        Ok(_) => "none",
        Err(_) => "error",
    };
    observe::count("inferkit_chatsession_summaries_total", &[("outcome", outcome)], 1);
    if let Err(error) = store.leases().release(&lease).await {
        tracing::debug!(%error, "the lease of a summary ends by itself");
    }
    summarized
}

/// Summarizes under a lease that is kept.
async fn held<S: SessionStore + ?Sized>(
    store: &S,
    session: &SessionId,
    summarizer: &dyn Summarizer,
    rule: SummaryRule,
    lease: &Lease,
    recent: &Recent,
    cut: usize,
) -> Result<Summarized> {
    let earlier = recent.summary.as_ref();
    let entries = recent.entries.get(..cut).unwrap_or_default();
    let Some(last) = entries.last() else { return Ok(Summarized::NotNeeded) };
    let mut working = summarizer.summarize(earlier, entries);
    let text = loop {
        tokio::select! {
            text = &mut working => break text?,
            () = tokio::time::sleep(rule.lease / 3) => {
                // An error is no loss yet: the next third tries again.
                let _ = store.leases().renew(lease, rule.lease).await;
                if lease.is_lost() {
                    return Ok(Summarized::Busy);
                }
            }
        }
    };
    if text.is_empty() {
        return Err(Error::summarizer("it returned an empty text", false));
    }
    let tokens = store.count_tokens(&text).await?;
    let count = u64::try_from(entries.len()).unwrap_or(u64::MAX);
    let messages = earlier.map_or(0, |summary| summary.messages).saturating_add(count);
    let summary = Summary::new(text, tokens, last.id, messages);
    let version = recent.session.summary_version;
    if !store.commit_summary(session, version, &summary).await? {
        return Ok(Summarized::Outdated);
    }
    if rule.trim {
        store.trim(session).await?;
    }
    Ok(Summarized::Stored(summary))
}

/// How many of the oldest messages are summarized; `None` if it is not worth it.
fn cut(recent: &Recent, rule: SummaryRule) -> Option<usize> {
    let entries = &recent.entries;
    let total: u64 = entries.iter().map(|entry| entry.tokens).sum();
    if total <= rule.above {
        return None;
    }
    // Calls of the newest message may still be answered.
    let speaker = entries.iter().rposition(|entry| entry.message.role != Role::Tool);
    let last = match speaker.and_then(|index| Some((index, entries.get(index)?))) {
        Some((index, entry)) if !entry.message.tool_calls.is_empty() => index,
        _ => entries.len().saturating_sub(1),
    };
    let cuts = Pairs::of(entries).cuts();
    let mut rest = total;
    let mut best = None;
    for (index, entry) in entries.iter().enumerate().take(last + 1) {
        if 0 < index && cuts.get(index) == Some(&true) {
            best = Some(index);
            if rest <= rule.keep {
                break;
            }
        }
        rest = rest.saturating_sub(entry.tokens);
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EntryId, Message, NewSession, Session, ToolCall, UserId};

    fn cut_of(messages: &[Message], above: u64, keep: u64) -> Option<usize> {
        let new = NewSession::new(SessionId::new("s").unwrap(), UserId::new("u").unwrap());
        let entries = messages.iter().zip(1..).map(|(message, number)| {
            Entry::new(EntryId::new(number, 0), None, 0, 10, message.clone())
        });
        let recent = Recent::new(Session::new(&new, 0, 0), None, entries.collect());
        cut(&recent, SummaryRule::above(above).keeping(keep))
    }

    #[test]
    fn the_newest_messages_stay() {
        let talk = vec![Message::user("x"); 10];
        assert_eq!(cut_of(&talk, 100, 50), None);
        assert_eq!(cut_of(&talk, 99, 50), Some(5));
        assert_eq!(cut_of(&talk, 99, 0), Some(9), "at least one");
        assert_eq!(cut_of(&talk, 99, 59), Some(5));
        assert_eq!(cut_of(&talk, 99, 99), Some(1));
        assert_eq!(cut_of(&talk[..1], 1, 0), None);
        assert_eq!(cut_of(&[], 0, 0), None);
    }

    #[test]
    fn pairs_are_not_split_and_orphans_block_nothing() {
        let call = |id: &str| Message::tool_calls([ToolCall::new(id, "f", "")]);
        let (user, result) = (Message::user("x"), Message::tool("1", "y"));
        let talk = [user.clone(), call("1"), result, user.clone()];
        assert_eq!(cut_of(&talk, 1, 20), Some(3));
        assert_eq!(cut_of(&talk[..3], 1, 10), Some(1), "the pair is the newest");
        assert_eq!(cut_of(&talk[1..3], 1, 10), None, "there is nothing but the pair");
        let pending = [user.clone(), user.clone(), call("1")];
        assert_eq!(cut_of(&pending, 1, 0), Some(2), "its result may still come");
        let orphan = [call("never answered"), user.clone(), user];
        assert_eq!(cut_of(&orphan, 1, 10), Some(2));
    }
}
