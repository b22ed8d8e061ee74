//! The hash of an entry: its fields, and what of it may be served.

use std::time::Duration;

use bytes::Bytes;

use crate::encoding::decode;
use crate::request::Scope;
use crate::{Answer, EntryId, Error, Finish, Result};

/// The version of the entries that this release writes and reads.
pub const FORMAT_VERSION: u32 = 1;

pub(crate) const VERSION: &str = "v";
pub(crate) const SCOPE: &str = "scope";
pub(crate) const PROMPT: &str = "prompt";
pub(crate) const RESPONSE: &str = "response";
pub(crate) const EMBEDDING: &str = "embedding";
pub(crate) const TIMESTAMP: &str = "timestamp";
pub(crate) const MODEL: &str = "model";
pub(crate) const TOKENS_USED: &str = "tokens_used";
pub(crate) const COMPLETION_TOKENS: &str = "completion_tokens";
/// How the response is packed, if it is.
pub(crate) const ENCODING: &str = "encoding";
/// How the model ended, if it did not say all that it wanted to.
pub(crate) const FINISH: &str = "finish";
/// The only such end that is stored.
pub(crate) const TRUNCATED: &str = "truncated";
/// What the entry can be selected by.
pub(crate) const LABELS: &str = "labels";
/// How long the entry lives, in milliseconds.
pub(crate) const TTL: &str = "ttl";
/// The ids of requests for which the entry was reported as wrong, one after the other.
pub(crate) const WRONG_FOR: &str = "wrong_for";

/// What was reported of the entry: see [`crate::adaptive::encode`].
pub(crate) const OBSERVATIONS: &str = "observations";
/// The id of an entry with which the answer agrees.
pub(crate) const KIN: &str = "kin";

/// What a lookup reads of an entry.
pub(crate) const ANSWER_FIELDS: [&str; 8] =
    [VERSION, SCOPE, RESPONSE, TIMESTAMP, TOKENS_USED, COMPLETION_TOKENS, ENCODING, FINISH];

/// What parts the labels of an entry: the separator of the index.
pub(crate) const LABEL_SEPARATOR: &str = "\u{1f}";

/// Which tier wants an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tier {
    /// The entry may have been embedded by any model.
    Exact,
    /// The entry must have been embedded by the model that embeds now.
    Semantic,
}

/// What an entry must be to be served.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'w> {
    pub(crate) scope: &'w Scope,
    pub(crate) epoch: &'w [u8],
    pub(crate) tier: Tier,
    /// When it must have been stored, at the earliest.
    pub(crate) since: Option<Duration>,
}

/// The fields that make an answer, as they were read.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) version: Option<Bytes>,
    pub(crate) scope: Option<Bytes>,
    pub(crate) response: Option<Bytes>,
    pub(crate) timestamp: Option<Bytes>,
    pub(crate) tokens_used: Option<Bytes>,
    pub(crate) completion_tokens: Option<Bytes>,
    pub(crate) encoding: Option<Bytes>,
    pub(crate) finish: Option<Bytes>,
}

impl Stored {
    /// Takes the [`ANSWER_FIELDS`] in their order.
    pub(crate) fn read(mut next: impl FnMut() -> Option<Bytes>) -> Self {
        Self {
            version: next(),
            scope: next(),
            response: next(),
            timestamp: next(),
            tokens_used: next(),
            completion_tokens: next(),
            encoding: next(),
            finish: next(),
        }
    }

    /// Returns the answer and when it was stored, or nothing if the fields are not an entry that is wanted.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVersion`] if a later release wrote the entry; [`Error::Encoding`] if it is packed in a way that
    /// this build cannot unpack.
    pub(crate) fn check(self, wanted: Wanted<'_>) -> Result<Option<(Answer, Duration)>> {
        match version(self.version.as_deref().unwrap_or_default()) {
            Some(FORMAT_VERSION) => {}
            // No release writes 0.
            None | Some(0) => return Ok(None),
            Some(found) => return Err(Error::UnknownVersion { found, known: FORMAT_VERSION }),
        }
        let found = self.scope.as_deref().unwrap_or_default();
        let ours = match wanted.tier {
            Tier::Exact => wanted.scope.is_of_request(found, wanted.epoch),
            Tier::Semantic => wanted.scope.is(found, wanted.epoch),
        };
        if !ours {
            return Ok(None);
        }
        let counts = [self.tokens_used, self.completion_tokens];
        let [tokens_used, completion] = counts.map(|count| match count {
            None => Some(None),
            count => number(count.as_ref()).map(Some),
        });
        let (Some(tokens_used), Some(completion)) = (tokens_used, completion) else {
            return Ok(None);
        };
        let (Some(response), Some(timestamp)) = (self.response, number(self.timestamp.as_ref()))
        else {
            return Ok(None);
        };
        let stored_at = Duration::from_secs(timestamp);
        if wanted.since.is_some_and(|since| stored_at < since) {
            return Ok(None);
        }
        let Some(finish) = finish(self.finish.as_ref()) else { return Ok(None) };
        let Some(response) = decode(response, self.encoding.as_deref())? else { return Ok(None) };
        let Ok(answer) = Answer::new(response) else { return Ok(None) };
        let answer = answer.with_counts(tokens_used, completion).with_finish(finish);
        Ok(Some((answer, stored_at)))
    }
}

/// How the model ended, by a field [`FINISH`]; none if nobody writes such a one.
pub(crate) fn finish(field: Option<&Bytes>) -> Option<Finish> {
    match field {
        None => Some(Finish::Complete),
        Some(finish) => (finish == TRUNCATED).then_some(Finish::Truncated),
    }
}

/// Tells whether `id` is among the ids of a field [`WRONG_FOR`].
pub(crate) fn is_wrong_for(field: Option<&Bytes>, id: &EntryId) -> bool {
    field.is_some_and(|ids| ids.as_chunks::<64>().0.contains(&id.hex().0))
}

/// Reads a version, which is a number of whatever length.
fn version(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |number: u32, digit| {
        number.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
    }))
}

pub(crate) fn number<T: std::str::FromStr>(field: Option<&Bytes>) -> Option<T> {
    str::from_utf8(field?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, Tenant};
    use proptest::prelude::*;

    const EPOCH: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn scope() -> Scope {
        Request::new(Tenant::shared(), "m", "p").unwrap().full_scope("e")
    }

    fn wanted(scope: &Scope, tier: Tier) -> Wanted<'_> {
        Wanted { scope, epoch: EPOCH, tier, since: None }
    }

    fn stored() -> Stored {
        let scope = [scope().to_string().as_bytes(), EPOCH].concat();
        Stored {
            version: Some("1".into()),
            scope: Some(scope.into()),
            response: Some("yes".into()),
            timestamp: Some("1706140800".into()),
            tokens_used: Some("250".into()),
            completion_tokens: Some("50".into()),
            encoding: None,
            finish: None,
        }
    }

    #[test]
    fn only_whole_entries_of_the_scope_are_served() {
        let scope = scope();
        let (answer, stored_at) = stored().check(wanted(&scope, Tier::Semantic)).unwrap().unwrap();
        assert_eq!(answer, Answer::new("yes").unwrap().with_usage(200, 50));
        assert_eq!(stored_at, Duration::from_secs(1_706_140_800));
        let broken: [fn(&mut Stored); 15] = [
            |entry| entry.version = None,
            |entry| entry.version = Some("one".into()),
            |entry| entry.version = Some("0".into()),
            |entry| entry.version = Some("-2".into()),
            |entry| entry.scope = None,
            |entry| entry.scope = Some("other".into()),
            |entry| entry.scope = Some(self::scope().to_string().into()),
            |entry| entry.scope = Some((self::scope().to_string() + &"f".repeat(32)).into()),
            |entry| entry.response = None,
            |entry| entry.response = Some(Bytes::new()),
            |entry| entry.timestamp = None,
            |entry| entry.timestamp = Some("noon".into()),
            |entry| entry.tokens_used = Some("-1".into()),
            |entry| entry.completion_tokens = Some("few".into()),
            |entry| entry.finish = Some("failed".into()),
        ];
        for break_it in broken {
            for tier in [Tier::Exact, Tier::Semantic] {
                let mut entry = stored();
                break_it(&mut entry);
                assert!(entry.check(wanted(&scope, tier)).unwrap().is_none());
            }
        }
        for (version, expected) in [("99999999999999999999999", u32::MAX), ("2", 2)] {
            let later = Stored { version: Some(version.into()), ..stored() };
            let error = later.check(wanted(&scope, Tier::Exact)).unwrap_err();
            let Error::UnknownVersion { found, known: 1 } = error else { panic!("{error:?}") };
            assert_eq!(found, expected);
        }
        let packed = Stored { encoding: Some("lzma".into()), ..stored() };
        let error = packed.check(wanted(&scope, Tier::Exact)).unwrap_err();
        assert!(matches!(error, Error::Encoding { .. }), "{error:?}");
    }

    #[test]
    fn without_an_epoch_nothing_is_served() {
        let scope = scope();
        let bare = || Stored { scope: Some(scope.to_string().into()), ..stored() };
        let wanted = Wanted { epoch: b"", ..wanted(&scope, Tier::Exact) };
        assert!(bare().check(wanted).unwrap().is_none());
    }

    #[test]
    fn what_is_older_than_wanted_is_not_served() {
        let scope = scope();
        for (since, served) in [(1_706_140_800, true), (1_706_140_801, false)] {
            let since = Some(Duration::from_secs(since));
            let wanted = Wanted { since, ..wanted(&scope, Tier::Exact) };
            assert_eq!(stored().check(wanted).unwrap().is_some(), served);
        }
    }

    #[test]
    fn another_embedding_model_s_entry_is_for_the_exact_tier_only() {
        let request = Request::new(Tenant::shared(), "m", "p").unwrap();
        let other = request.full_scope("another model");
        assert!(stored().check(wanted(&other, Tier::Exact)).unwrap().is_some());
        assert!(stored().check(wanted(&other, Tier::Semantic)).unwrap().is_none());
        let stranger = request.with_context("x").full_scope("e");
        assert!(stored().check(wanted(&stranger, Tier::Exact)).unwrap().is_none());
        assert!(stored().check(wanted(&stranger, Tier::Semantic)).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_fields_panic(fields in prop::array::uniform8(prop::option::of(
            prop::collection::vec(any::<u8>(), 0..12),
        ))) {
            let mut fields = fields.into_iter();
            let entry = Stored::read(|| fields.next().flatten().map(Bytes::from));
            if let Ok(served) = entry.check(wanted(&scope(), Tier::Semantic)) {
                prop_assert!(served.is_none());
            }
        }
    }
}
