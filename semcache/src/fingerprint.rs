//! What an answer depends on besides tenant, model and prompt, as digests.

use serde::Serialize;
use serde_json::Value;

use crate::digest::{Digest, digest};
use crate::{Error, Result};

/// One digest for each part of a request that is set.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Fingerprint {
    pub(crate) system: Option<Digest>,
    pub(crate) history: Option<Digest>,
    pub(crate) tools: Option<Digest>,
    pub(crate) response_format: Option<Digest>,
    pub(crate) sampling: Option<Digest>,
    pub(crate) context: Option<Digest>,
}

impl Fingerprint {
    /// The parts in a fixed order; one that is not set is empty.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let Self { system, history, tools, response_format, sampling, context } = self;
        [system, history, tools, response_format, sampling, context]
            .into_iter()
            .map(|part| part.as_ref().map_or(&b""[..], Digest::as_slice))
    }

    pub(crate) fn bytes(bytes: &[u8]) -> Digest {
        digest(b"inferkit semcache bytes 1", [bytes])
    }

    pub(crate) fn messages<R: AsRef<[u8]>, T: AsRef<[u8]>>(
        messages: impl IntoIterator<Item = (R, T)>,
    ) -> Option<Digest> {
        // Each message on its own, so that nothing is held but digests.
        let messages: Vec<Digest> = messages
            .into_iter()
            .map(|(role, text)| {
                digest(b"inferkit semcache message 1", [role.as_ref(), text.as_ref()])
            })
            .collect();
        let parts = messages.iter().map(Digest::as_slice);
        (!messages.is_empty()).then(|| digest(b"inferkit semcache messages 1", parts))
    }

    /// The digest of a value as JSON, in which the order of the names of an object does not count.
    pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<Digest> {
        let value = serde_json::to_value(value).map_err(|source| Error::NotJson { source })?;
        let mut text = String::new();
        write(&value, &mut text);
        Ok(digest(b"inferkit semcache json 1", [text.as_bytes()]))
    }
}

/// Writes JSON with sorted names, whatever order the map keeps.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (name, value) in members {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        plain => text.push_str(&plain.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_order_of_names_does_not_count_and_that_of_items_does() {
        let same = [
            serde_json::from_str::<Value>(r#"{"a":1,"b":{"d":[1,2],"c":null}}"#).unwrap(),
            serde_json::from_str(r#"{"b":{"c":null,"d":[1,2]},"a":1}"#).unwrap(),
        ];
        let [one, other] = same.map(|value| Fingerprint::json(&value).unwrap());
        assert_eq!(one, other);
        let all = [json!([1, 2]), json!([2, 1]), json!(["1", 2]), json!([[1], 2]), json!([1, [2]])];
        for (index, value) in all.iter().enumerate() {
            for other in all.iter().skip(index + 1) {
                assert_ne!(Fingerprint::json(value).unwrap(), Fingerprint::json(other).unwrap());
            }
        }
        let names = std::collections::HashMap::from([((1, 2), 3)]);
        assert!(matches!(Fingerprint::json(&names), Err(Error::NotJson { .. })));
    }

    #[test]
    fn messages_are_not_run_together() {
        let of = |messages: &[(&str, &str)]| Fingerprint::messages(messages.iter().copied());
        assert_eq!(of(&[]), None);
        let all = [
            of(&[("user", "ab")]),
            of(&[("usera", "b")]),
            of(&[("user", "a"), ("user", "b")]),
            of(&[("user", "b"), ("user", "a")]),
            of(&[("user", "a"), ("assistant", "b")]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| one != other));
        }
    }
}
