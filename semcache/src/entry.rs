//! The hash of an entry: its fields, and what of it may be served.

use std::time::Duration;

use bytes::Bytes;

use crate::request::Scope;
use crate::{Answer, Error, Result};

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

/// Which tier wants an entry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tier {
    /// The entry may have been embedded by any model.
    Exact,
    /// The entry must have been embedded by the model that embeds now.
    Semantic,
}

/// The fields that make an answer, as they were read.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) version: Option<Bytes>,
    pub(crate) scope: Option<Bytes>,
    pub(crate) response: Option<Bytes>,
    pub(crate) timestamp: Option<Bytes>,
    pub(crate) tokens_used: Option<Bytes>,
}

impl Stored {
    /// Returns the answer and when it was stored, or nothing if the fields are not an entry of `scope`.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownVersion`] if a later release wrote the entry.
    pub(crate) fn check(self, scope: &Scope, tier: Tier) -> Result<Option<(Answer, Duration)>> {
        match version(self.version.as_deref().unwrap_or_default()) {
            Some(FORMAT_VERSION) => {}
            // No release writes 0.
            None | Some(0) => return Ok(None),
            Some(found) => return Err(Error::UnknownVersion { found, known: FORMAT_VERSION }),
        }
        let found = self.scope.as_deref().unwrap_or_default();
        let ours = match tier {
            Tier::Exact => scope.is_of_request(found),
            Tier::Semantic => scope.is(found),
        };
        if !ours {
            return Ok(None);
        }
        let tokens_used: Option<u64> = number(self.tokens_used.as_ref());
        if tokens_used.is_none() && self.tokens_used.is_some() {
            return Ok(None);
        }
        let (Some(response), Some(timestamp)) = (self.response, number(self.timestamp.as_ref()))
        else {
            return Ok(None);
        };
        let Ok(mut answer) = Answer::new(response) else { return Ok(None) };
        if let Some(tokens_used) = tokens_used {
            answer = answer.with_tokens_used(tokens_used);
        }
        Ok(Some((answer, Duration::from_secs(timestamp))))
    }
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

fn number<T: std::str::FromStr>(field: Option<&Bytes>) -> Option<T> {
    str::from_utf8(field?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Request, Tenant};
    use proptest::prelude::*;

    fn scope() -> Scope {
        Request::new(Tenant::shared(), "m", "p").unwrap().full_scope("e")
    }

    fn stored() -> Stored {
        Stored {
            version: Some("1".into()),
            scope: Some(scope().to_string().into()),
            response: Some("yes".into()),
            timestamp: Some("1706140800".into()),
            tokens_used: Some("250".into()),
        }
    }

    #[test]
    fn only_whole_entries_of_the_scope_are_served() {
        let (answer, stored_at) = stored().check(&scope(), Tier::Semantic).unwrap().unwrap();
        assert_eq!(answer, Answer::new("yes").unwrap().with_tokens_used(250));
        assert_eq!(stored_at, Duration::from_secs(1_706_140_800));
        let broken: [fn(&mut Stored); 11] = [
            |entry| entry.version = None,
            |entry| entry.version = Some("one".into()),
            |entry| entry.version = Some("0".into()),
            |entry| entry.version = Some("-2".into()),
            |entry| entry.scope = None,
            |entry| entry.scope = Some("other".into()),
            |entry| entry.response = None,
            |entry| entry.response = Some(Bytes::new()),
            |entry| entry.timestamp = None,
            |entry| entry.timestamp = Some("noon".into()),
            |entry| entry.tokens_used = Some("-1".into()),
        ];
        for break_it in broken {
            for tier in [Tier::Exact, Tier::Semantic] {
                let mut entry = stored();
                break_it(&mut entry);
                assert!(entry.check(&scope(), tier).unwrap().is_none());
            }
        }
        let far = Stored { version: Some("99999999999999999999999".into()), ..stored() };
        let error = far.check(&scope(), Tier::Exact).unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { found: u32::MAX, known: 1 }));
        let later = Stored { version: Some("2".into()), ..stored() };
        let error = later.check(&scope(), Tier::Exact).unwrap_err();
        assert!(matches!(error, Error::UnknownVersion { found: 2, known: 1 }));
    }

    #[test]
    fn another_embedding_model_s_entry_is_for_the_exact_tier_only() {
        let request = Request::new(Tenant::shared(), "m", "p").unwrap();
        let other = request.full_scope("another model");
        assert!(stored().check(&other, Tier::Exact).unwrap().is_some());
        assert!(stored().check(&other, Tier::Semantic).unwrap().is_none());
        let stranger = request.with_context("x").full_scope("e");
        assert!(stored().check(&stranger, Tier::Exact).unwrap().is_none());
        assert!(stored().check(&stranger, Tier::Semantic).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn no_fields_panic(fields in prop::array::uniform5(prop::option::of(
            prop::collection::vec(any::<u8>(), 0..12),
        ))) {
            let [version, scope_, response, timestamp, tokens_used] =
                fields.map(|field| field.map(Bytes::from));
            let entry = Stored { version, scope: scope_, response, timestamp, tokens_used };
            if let Ok(served) = entry.check(&scope(), Tier::Semantic) {
                prop_assert!(served.is_none());
            }
        }
    }
}
