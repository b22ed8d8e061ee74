use crate::{Entry, EntryId, Error, Recent, Result, Session, Summary};

/// What was found at the end of a log.
pub(crate) enum Walk {
    Found(Branch),
    /// Older messages are needed.
    More,
    /// The session is newer than the messages: both must be read again.
    Stale,
}

/// The end of the active branch.
pub(crate) struct Branch {
    summary: Option<Summary>,
    /// Where its messages are among those that were looked at.
    places: Vec<usize>,
}

impl Branch {
    /// Picks the branch out of the messages that were looked at.
    pub(crate) fn take(self, session: Session, newest: Vec<Entry>) -> Recent {
        let mut places = self.places.into_iter().peekable();
        let taken = newest.into_iter().enumerate();
        let taken = taken.filter(|(place, _)| places.next_if_eq(place).is_some());
        let mut entries: Vec<Entry> = taken.map(|(_, entry)| entry).collect();
        entries.reverse();
        Recent::new(session, self.summary, entries)
    }
}

/// Walks back along the active branch, over the `newest` messages of the log, the last one first; `complete` if there are no
/// older ones.
///
/// An unbranched session's branch is its log.
/// In a branched one each message names its parent, or follows the one before it in the log.
pub(crate) fn walk(
    session: &Session,
    newest: &[Entry],
    complete: bool,
    tokens: u64,
) -> Result<Walk> {
    let found = |summary: Option<&Summary>, places: Vec<usize>| {
        Walk::Found(Branch { summary: summary.cloned(), places })
    };
    let summary = session.summary.as_ref();
    let upto = summary.map_or(EntryId::ZERO, |summary| summary.upto);
    let mut taken = Vec::with_capacity(newest.len());
    let Some(leaf) = session.leaf else {
        let (mut sum, mut enough) = (0_u64, false);
        for (place, entry) in newest.iter().enumerate() {
            if entry.id <= upto || enough {
                return Ok(found(summary, taken));
            }
            taken.push(place);
            sum = sum.saturating_add(entry.tokens);
            enough = tokens <= sum;
        }
        return Ok(if complete || enough { found(summary, taken) } else { Walk::More });
    };
    let base = session.base.as_ref();
    let trimmed = base.map(|base| base.upto);
    // The message that comes next on the way back; `None` is the one before in the log.
    let mut next = Some(leaf);
    for (place, entry) in newest.iter().enumerate() {
        match next {
            Some(id) if id == EntryId::ZERO => return Ok(found(None, taken)),
            Some(id) if Some(id) == trimmed => return Ok(found(base, taken)),
            Some(id) if id < entry.id => continue,
            Some(id) if entry.id < id => {
                let newer = newest.first().is_none_or(|first| first.id < id);
                return if newer { Ok(Walk::Stale) } else { Err(BROKEN) };
            }
            _ => {}
        }
        if entry.id == upto {
            return Ok(found(summary, taken));
        }
        next = entry.parent;
        taken.push(place);
    }
    match next {
        Some(id) if id == EntryId::ZERO => Ok(found(None, taken)),
        Some(id) if Some(id) == trimmed => Ok(found(base, taken)),
        _ if !complete => Ok(Walk::More),
        None => Ok(found(base, taken)),
        Some(id) if newest.first().is_none_or(|first| first.id < id) => Ok(Walk::Stale),
        Some(_) => Err(BROKEN),
    }
}

const BROKEN: Error = Error::Corrupt { what: "a branch" };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Message, NewSession, SessionId, UserId};

    fn id(number: u64) -> EntryId {
        EntryId::new(number, 0)
    }

    /// Messages of ten tokens each by their numbers and parents, the last one first.
    fn log(entries: &[(u64, Option<u64>)]) -> Vec<Entry> {
        let entry = |&(number, parent): &(u64, Option<u64>)| {
            Entry::new(id(number), parent.map(id), 0, 10, Message::user("x"))
        };
        entries.iter().rev().map(entry).collect()
    }

    fn session(leaf: Option<u64>) -> Session {
        let new = NewSession::new(SessionId::new("s").unwrap(), UserId::new("u").unwrap());
        let mut session = Session::new(&new, 0, 0);
        session.leaf = leaf.map(id);
        session
    }

    fn summary(upto: u64) -> Summary {
        Summary::new("text", 1, id(upto), upto)
    }

    fn walked(
        session: &Session,
        log: &[Entry],
        complete: bool,
        tokens: u64,
    ) -> (Option<u64>, Vec<u64>) {
        let Walk::Found(branch) = walk(session, log, complete, tokens).unwrap() else {
            panic!("not found")
        };
        let recent = branch.take(session.clone(), log.to_vec());
        let summary = recent.summary.map(|summary| summary.upto.millis());
        (summary, recent.entries.iter().map(|entry| entry.id.millis()).collect())
    }

    #[test]
    fn an_unbranched_log_is_its_own_branch() {
        let log = log(&[(1, None), (2, None), (3, None), (4, None)]);
        let mut session = session(None);
        assert_eq!(walked(&session, &log, true, 1000), (None, vec![1, 2, 3, 4]));
        assert_eq!(walked(&session, &log, false, 20), (None, vec![3, 4]));
        assert_eq!(walked(&session, &log, false, 11), (None, vec![3, 4]));
        assert!(matches!(walk(&session, &log, false, 1000).unwrap(), Walk::More));
        session.summary = Some(summary(2));
        assert_eq!(walked(&session, &log, false, 1000), (Some(2), vec![3, 4]));
        session.summary = Some(summary(4));
        assert_eq!(walked(&session, &log, false, 1000), (Some(4), vec![]));
    }

    #[test]
    fn a_branch_follows_the_parents() {
        // 1 - 2 - 3, and from 1 also 4 - 5, and from the beginning 6.
        let log = log(&[(1, None), (2, None), (3, None), (4, Some(1)), (5, None), (6, Some(0))]);
        assert_eq!(walked(&session(Some(5)), &log, true, 0), (None, vec![1, 4, 5]));
        assert_eq!(walked(&session(Some(3)), &log, true, 0), (None, vec![1, 2, 3]));
        assert_eq!(walked(&session(Some(6)), &log, false, 0), (None, vec![6]));
        assert_eq!(walked(&session(Some(0)), &log, true, 0), (None, vec![]));
        assert!(matches!(walk(&session(Some(7)), &log, true, 0).unwrap(), Walk::Stale));
        assert!(matches!(walk(&session(Some(5)), &log[..3], false, 0).unwrap(), Walk::More));
        let mut summarized = session(Some(5));
        summarized.summary = Some(summary(1));
        assert_eq!(walked(&summarized, &log, true, 0), (Some(1), vec![4, 5]));
        summarized.summary = Some(summary(2));
        assert_eq!(walked(&summarized, &log, true, 0), (None, vec![1, 4, 5]), "another branch's");
    }

    #[test]
    fn a_branch_from_trimmed_messages_begins_with_their_summary() {
        let log = log(&[(3, None), (4, None), (5, Some(2)), (6, Some(0))]);
        let mut session = session(Some(5));
        (session.base, session.summary) = (Some(summary(2)), Some(summary(3)));
        assert_eq!(walked(&session, &log, true, 0), (Some(2), vec![5]));
        session.leaf = Some(id(4));
        assert_eq!(walked(&session, &log, true, 0), (Some(3), vec![4]));
        session.summary = None;
        assert_eq!(walked(&session, &log, true, 0), (Some(2), vec![3, 4]));
        session.leaf = Some(id(6));
        assert_eq!(walked(&session, &log, true, 0), (None, vec![6]));
        let missing = walk(&session, &log[1..2], true, 0);
        assert!(matches!(missing, Ok(Walk::Stale)), "its newest message is not among them");
    }
}
