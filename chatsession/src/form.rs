use std::borrow::Cow;

use bytes::Bytes;
use inferkit_core::Reply;
use serde::{Deserialize, Serialize};

use crate::{
    ClientId, Content, Entry, EntryId, Error, FinishReason, Message, Result, Role, ToolCall, Usage,
};

/// The version of the stored form of messages and sessions.
pub const FORMAT_VERSION: u32 = 1;

/// The forms of a message: text as it is, or parts as JSON.
const TEXT: &str = "1t";
const PARTS: &str = "1p";

/// The names of the fields of a message in the log, in their order; the server stores them once for many messages.
const FIELDS: [&[u8]; 7] = [b"v", b"role", b"content", b"tokens", b"at", b"extra", b"parent"];

const DAMAGED: Error = Error::Corrupt { what: "a message" };

/// What of a message is stored as text.
#[derive(Debug)]
pub(crate) struct Form<'a> {
    pub(crate) form: &'static str,
    pub(crate) content: Cow<'a, str>,
    pub(crate) extra: String,
}

/// What few messages have, as JSON.
#[derive(Default, Deserialize, Serialize)]
struct Extra<'a> {
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    tool_calls: Option<Cow<'a, [ToolCall]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool_call_id: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    finish_reason: Option<Cow<'a, FinishReason>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<Cow<'a, ClientId>>,
}

fn is_none_or_empty(calls: &Option<Cow<'_, [ToolCall]>>) -> bool {
    calls.as_ref().is_none_or(|calls| calls.is_empty())
}

impl<'a> Form<'a> {
    pub(crate) fn of(message: &'a Message) -> Result<Self> {
        let json = |error: serde_json::Error| Error::unwritable(error);
        let (form, content) = match &message.content {
            Content::Text(text) => (TEXT, Cow::Borrowed(text.as_str())),
            Content::Parts(parts) => {
                (PARTS, Cow::Owned(serde_json::to_string(parts).map_err(json)?))
            }
        };
        let Message { tool_calls, tool_call_id, name, finish_reason, usage, client_id, .. } =
            message;
        let extra = Extra {
            tool_calls: Some(Cow::Borrowed(tool_calls)),
            tool_call_id: tool_call_id.as_deref().map(Cow::Borrowed),
            name: name.as_deref().map(Cow::Borrowed),
            finish_reason: finish_reason.as_ref().map(Cow::Borrowed),
            usage: *usage,
            client_id: client_id.as_ref().map(Cow::Borrowed),
        };
        let extra = match serde_json::to_string(&extra).map_err(json)? {
            nothing if nothing == "{}" => String::new(),
            extra => extra,
        };
        Ok(Self { form, content, extra })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.content.len() + self.extra.len()
    }
}

/// Reads a message of the log.
pub(crate) fn entry(reply: Reply) -> Result<Entry> {
    let (id, fields) = stream_entry(reply)?;
    let mut fields = fields.into_iter();
    let mut next = |name: &[u8]| {
        let named = fields.next().is_some_and(|field| field.as_bytes() == Some(name));
        match fields.next() {
            Some(Reply::Bulk(value)) if named => Ok(value),
            _ => Err(DAMAGED),
        }
    };
    let [form, role, content, tokens, at, extra, parent] = FIELDS;
    let parts = is_parts(&next(form)?)?;
    let role = Role::parse(&next(role)?).ok_or(DAMAGED)?;
    let content = text(next(content)?)?;
    let content = if parts {
        Content::Parts(serde_json::from_str(&content).map_err(|_| DAMAGED)?)
    } else {
        Content::Text(content)
    };
    let (tokens, offset) = (number(&next(tokens)?)?, number(&next(at)?)?);
    let mut message = Message::new(role, content);
    let extra = next(extra)?;
    if !extra.is_empty() {
        let extra: Extra<'_> = serde_json::from_slice(&extra).map_err(|_| DAMAGED)?;
        message.tool_calls = extra.tool_calls.map(Cow::into_owned).unwrap_or_default();
        message.tool_call_id = extra.tool_call_id.map(Cow::into_owned);
        message.name = extra.name.map(Cow::into_owned);
        message.finish_reason = extra.finish_reason.map(Cow::into_owned);
        message.usage = extra.usage;
        message.client_id = extra.client_id.map(Cow::into_owned);
    }
    let parent = match text(next(parent)?)? {
        parent if parent.is_empty() => None,
        parent => Some(parent.parse().map_err(|_| DAMAGED)?),
    };
    Ok(Entry::new(id, parent, offset, tokens, message))
}

/// Takes an entry of a stream apart: its id, and names and values alternating.
pub(crate) fn stream_entry(reply: Reply) -> Result<(EntryId, Vec<Reply>)> {
    let mut parts = reply.into_array().map_err(|_| DAMAGED)?.into_iter();
    let id = parts.next().and_then(|id| id.as_str().and_then(|id| id.parse().ok()));
    let fields = parts.next().ok_or(DAMAGED)?.into_array().map_err(|_| DAMAGED)?;
    Ok((id.ok_or(DAMAGED)?, fields))
}

/// Whether a message's content has parts, if its form is known.
fn is_parts(form: &[u8]) -> Result<bool> {
    match form {
        form if form == TEXT.as_bytes() => return Ok(false),
        form if form == PARTS.as_bytes() => return Ok(true),
        _ => {}
    }
    let digits = form.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let version = form.get(..digits).unwrap_or_default();
    Err(unknown_version(version).unwrap_or(DAMAGED))
}

/// The error of a version that is not this release's, if it is a number.
pub(crate) fn unknown_version(version: &[u8]) -> Option<Error> {
    if version.is_empty() || !version.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let found = str::from_utf8(version).ok()?.parse().unwrap_or(u32::MAX);
    (found != FORMAT_VERSION).then_some(Error::UnknownVersion { found, known: FORMAT_VERSION })
}

fn number(bytes: &[u8]) -> Result<u64> {
    str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).ok_or(DAMAGED)
}

fn text(bytes: Bytes) -> Result<String> {
    String::from_utf8(bytes.into()).map_err(|_| DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ImageUrl, Part};
    use proptest::prelude::*;

    fn stored(message: &Message) -> Reply {
        let form = Form::of(message).unwrap();
        let bulk = |text: &str| Reply::Bulk(Bytes::copy_from_slice(text.as_bytes()));
        let values =
            [form.form, message.role.as_str(), &form.content, "7", "35", &form.extra, "1-2"];
        let fields = FIELDS.iter().zip(values);
        let fields =
            fields.flat_map(|(name, value)| [Reply::Bulk(Bytes::from_static(name)), bulk(value)]);
        Reply::Array(vec![bulk("5-6"), Reply::Array(fields.collect())])
    }

    #[test]
    fn a_message_reads_back_as_it_was() {
        let parts = vec![
            Part::Text { text: "What is this?".into() },
            Part::ImageUrl { image_url: ImageUrl { url: "https://a/b.png".into(), detail: None } },
            Part::Other(serde_json::json!({"type": "input_audio", "input_audio": {"data": ""}})),
        ];
        let usage = Usage { prompt_tokens: 1, completion_tokens: 2, cached_tokens: 0 };
        for message in [
            Message::user("naïve \0 🙂"),
            Message::user(parts).with_name("ann"),
            Message::tool_calls([ToolCall::new("a", "b", "{")]).with_usage(usage),
            Message::tool("a", ""),
            Message::assistant("x").with_finish_reason(FinishReason::Other("odd".into())),
            Message::user("x").with_client_id(ClientId::new("c:1").unwrap()),
        ] {
            let expected =
                Entry::new(EntryId::new(5, 6), Some(EntryId::new(1, 2)), 35, 7, message.clone());
            assert_eq!(entry(stored(&message)).unwrap(), expected);
        }
    }

    #[test]
    fn later_versions_are_refused() {
        for (form, expected) in [(&b"2t"[..], 2), (b"99999999999", u32::MAX)] {
            let error = is_parts(form).unwrap_err();
            assert!(matches!(error, Error::UnknownVersion { found, .. } if found == expected));
        }
        for form in [&b""[..], b"t", b"1", b"1x"] {
            assert!(matches!(is_parts(form).unwrap_err(), Error::Corrupt { .. }));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..16)) {
            let fields: Vec<Reply> = values.into_iter().map(|value| Reply::Bulk(value.into())).collect();
            let id = Reply::Bulk(Bytes::from_static(b"1-1"));
            let _ = entry(Reply::Array(vec![id, Reply::Array(fields)]));
        }
    }
}
