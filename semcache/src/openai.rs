//! Answers to chat completions as OpenAI writes them: reading those of a model, and writing those of a cache (feature
//! `tower`).

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{Chunk, Finish, Result};

/// Reads a whole answer; nothing if it is more than a text.
pub(crate) fn whole(body: &[u8]) -> Option<[Chunk; 2]> {
    let answer: Value = serde_json::from_slice(body).ok()?;
    let choice = answer.pointer("/choices/0")?;
    let message = choice.get("message")?;
    if message.get("tool_calls").is_some_and(|calls| !is_unset(calls)) {
        return None;
    }
    let text = message.get("content")?.as_str().filter(|text| !text.trim().is_empty())?;
    let finish = Finish::of_reason(choice.get("finish_reason")?.as_str()?);
    let end = Chunk::done(finish, answer.get("usage").and_then(usage));
    Some([Chunk::text(text.to_owned()), end])
}

fn usage(usage: &Value) -> Option<(u64, u64)> {
    let number = |name| usage.get(name).and_then(Value::as_u64);
    Some((number("prompt_tokens")?, number("completion_tokens")?))
}

/// Reads a streamed answer, event by event; its end comes in several: the reason, then the usage.
///
/// # Examples
///
/// ```
/// use inferkit_semcache::Chunk;
/// use inferkit_semcache::openai::ChatReader;
///
/// let mut reader = ChatReader::new();
/// let text = reader.take(r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}"#)?;
/// assert_eq!(text, Some(Chunk::text("Hi")));
/// assert!(reader.finish().is_some());
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug, Default)]
pub struct ChatReader {
    finish: Option<Finish>,
    usage: Option<(u64, u64)>,
}

impl ChatReader {
    /// Makes one that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the data of one event; returns the text in it.
    ///
    /// # Errors
    ///
    /// If it is an error, or no event of a chat.
    pub fn take(&mut self, data: &str) -> Result<Option<Chunk>, &'static str> {
        if data.trim() == "[DONE]" {
            return Ok(None);
        }
        let event: Value = serde_json::from_str(data).map_err(|_| "an event is no JSON")?;
        if event.get("error").is_some_and(|error| !error.is_null()) {
            return Err("the model reported an error");
        }
        self.usage = event.get("usage").and_then(usage).or(self.usage);
        if let Some(reason) = event.pointer("/choices/0/finish_reason").and_then(Value::as_str) {
            self.finish = Some(Finish::of_reason(reason));
        }
        if event.pointer("/choices/0/delta/tool_calls").is_some_and(|calls| !is_unset(calls)) {
            return Err("the model calls a tool that the request does not name");
        }
        let text = event.pointer("/choices/0/delta/content").and_then(Value::as_str);
        let text = text.filter(|text| !text.is_empty());
        Ok(text.map(|text| Chunk::text(Bytes::copy_from_slice(text.as_bytes()))))
    }

    /// Returns the end, unless the answer broke off before its reason came.
    pub fn finish(&mut self) -> Option<Chunk> {
        self.finish.take().map(|finish| Chunk::done(finish, self.usage))
    }
}

/// Writes an answer, whole or as server-sent events, whose pieces share a name and a time.
#[derive(Clone, Debug)]
pub struct ChatWriter {
    id: String,
    model: String,
    created: u64,
}

impl ChatWriter {
    /// Makes one for an answer of `model` that is made now.
    #[must_use]
    pub fn new(id: impl Into<String>, model: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { id: id.into(), model: model.into(), created: since.as_secs() }
    }

    /// Writes a whole answer, with the tokens of the request and of the answer, if known.
    #[must_use]
    pub fn whole(&self, text: &str, finish: Finish, usage: Option<(u64, u64)>) -> Value {
        let mut answer = json!({
            "id": self.id, "object": "chat.completion", "created": self.created, "model": self.model,
            "choices": [{
                "index": 0,
                "message": { "role": "assistant", "content": text, "refusal": null },
                "logprobs": null,
                "finish_reason": reason(finish),
            }],
        });
        if let (Some(usage), Some(answer)) = (usage, answer.as_object_mut()) {
            answer.insert("usage".to_owned(), told(usage));
        }
        answer
    }

    fn chunk(&self, choices: &Value) -> Value {
        json!({
            "id": self.id, "object": "chat.completion.chunk", "created": self.created,
            "model": self.model, "choices": choices,
        })
    }

    /// Writes the event that comes first.
    #[must_use]
    pub fn role(&self) -> String {
        let delta = json!({ "role": "assistant", "content": "" });
        event(&self.chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }])))
    }

    /// Writes the event of a piece of the text.
    #[must_use]
    pub fn text(&self, text: &str) -> String {
        let delta = json!({ "content": text });
        event(&self.chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }])))
    }

    /// Writes the last events: the reason, the usage if it is given, and `[DONE]`.
    #[must_use]
    pub fn end(&self, finish: Finish, usage: Option<(u64, u64)>) -> String {
        let choices = json!([{ "index": 0, "delta": {}, "finish_reason": reason(finish) }]);
        let mut text = event(&self.chunk(&choices));
        if let Some(usage) = usage {
            let mut chunk = self.chunk(&json!([]));
            if let Some(chunk) = chunk.as_object_mut() {
                chunk.insert("usage".to_owned(), told(usage));
            }
            text.push_str(&event(&chunk));
        }
        text.push_str("data: [DONE]\n\n");
        text
    }
}

/// Writes a server-sent event.
#[must_use]
pub fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Complete => "stop",
        Finish::Truncated => "length",
        Finish::Failed => "content_filter",
    }
}

fn told((prompt, completion): (u64, u64)) -> Value {
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    })
}

pub(crate) fn is_unset(value: &Value) -> bool {
    value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_comes_after_reason_and_usage_and_only_then() {
        let mut end = ChatReader::new();
        let text = end.take(r#"{"choices":[{"delta":{"content":"Hi"},"finish_reason":null}]}"#);
        assert_eq!(text, Ok(Some(Chunk::text("Hi"))));
        assert!(end.finish().is_none(), "it broke off");
        let reason = end.take(r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#);
        assert_eq!(reason, Ok(None));
        let usage = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        assert_eq!(end.take(usage), Ok(None));
        assert_eq!(end.take("[DONE]"), Ok(None));
        assert_eq!(end.finish(), Some(Chunk::done(Finish::Complete, Some((3, 1)))));
        assert!(end.take("nonsense").is_err());
        assert!(end.take(r#"{"error":{"message":"overloaded"}}"#).is_err());
    }

    #[test]
    fn what_is_written_is_read_again() {
        let (writer, mut reader) = (ChatWriter::new("id", "m"), ChatReader::new());
        let events =
            writer.role() + &writer.text("Hi") + &writer.end(Finish::Truncated, Some((3, 1)));
        let mut text = Vec::new();
        for event in events.split_terminator("\n\n") {
            text.extend(reader.take(event.strip_prefix("data: ").unwrap()).unwrap());
        }
        assert_eq!(text, [Chunk::text("Hi")]);
        let end = Chunk::done(Finish::Truncated, Some((3, 1)));
        assert_eq!(reader.finish(), Some(end.clone()));
        let body = writer.whole("Hi", Finish::Truncated, Some((3, 1))).to_string();
        assert_eq!(whole(body.as_bytes()), Some([Chunk::text("Hi"), end]));
    }
}
