//! Chat completions as OpenAI writes them.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{CacheControl, Chunk, Finish, Request, Result, Tenant};

/// The body of a request.
#[derive(Deserialize)]
pub(super) struct Chat {
    pub(super) model: String,
    messages: Vec<Value>,
    #[serde(default)]
    pub(super) stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// Everything else, as it came.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Members that say nothing about the answer.
const ABOUT_THE_CALL: [&str; 6] =
    ["metadata", "n", "safety_identifier", "service_tier", "store", "user"];
/// Members whose answers are more than a text.
const MORE_THAN_TEXT: [&str; 8] = [
    "audio",
    "functions",
    "logprobs",
    "modalities",
    "prediction",
    "tools",
    "top_logprobs",
    "web_search_options",
];

impl Chat {
    /// Reads a body; nothing if its answer is more than a text, or if it is no chat at all.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let chat: Self = serde_json::from_slice(body).ok()?;
        let set = |name: &&str| chat.rest.get(*name).is_some_and(|value| !is_unset(value));
        let several = chat.rest.get("n").is_some_and(|n| n.as_u64() != Some(1) && !n.is_null());
        let last = chat.messages.last()?;
        let is_user = last.get("role").and_then(Value::as_str) == Some("user");
        let asks_text = is_user && text(last).is_some();
        (asks_text && !several && !MORE_THAN_TEXT.iter().any(set)).then_some(chat)
    }

    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    /// Makes the cache's request of it: the last message is the prompt, all else must be equal.
    pub(super) fn to_request(&self, tenant: Tenant, control: CacheControl) -> Result<Request> {
        let (last, before) = match self.messages.split_last() {
            Some((last, before)) => (last, before),
            None => (&Value::Null, &[][..]),
        };
        let mut request = Request::new(tenant, &*self.model, text(last).unwrap_or_default())?;
        let role = |message: &Value| {
            message.get("role").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        // What the system says at the start is the setting; said later, its place matters.
        let is_system = |message: &&Value| matches!(&*role(message), "system" | "developer");
        let settings = before.iter().take_while(is_system).count();
        let (system, history) = before.split_at(settings);
        if !system.is_empty() {
            request = request.with_system(json!(system).to_string());
        }
        request = request
            .with_history(history.iter().map(|message| (role(message), message.to_string())));
        if let Some(name) = last.get("name").and_then(Value::as_str) {
            request = request.with_context(name);
        }
        let sampling: Map<String, Value> = self
            .rest
            .iter()
            .filter(|(name, value)| !ABOUT_THE_CALL.contains(&name.as_str()) && !is_unset(value))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !sampling.is_empty() {
            request = request.with_sampling(&sampling)?;
        }
        Ok(request.with_control(control))
    }
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty)
}

/// The text of a message that holds nothing else.
fn text(message: &Value) -> Option<String> {
    match message.get("content")? {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| match part.get("type")?.as_str()? {
                "text" => part.get("text")?.as_str(),
                _ => None,
            });
            Some(texts.collect::<Option<Vec<_>>>()?.join("\n"))
        }
        _ => None,
    }
}

/// Reads a whole answer; nothing if it is more than a text.
pub(super) fn whole(body: &[u8]) -> Option<[Chunk; 2]> {
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

/// How a streamed answer ends, which comes in several events: the reason, then the usage.
#[derive(Default)]
pub(super) struct Ending {
    finish: Option<Finish>,
    usage: Option<(u64, u64)>,
}

impl Ending {
    /// Reads the data of one event; returns the text in it.
    ///
    /// # Errors
    ///
    /// If it is an error, or no event of a chat.
    pub(super) fn take(&mut self, data: &str) -> Result<Option<Chunk>, &'static str> {
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

    /// The end, unless the answer broke off before its reason came.
    pub(super) fn finish(&mut self) -> Option<Chunk> {
        self.finish.take().map(|finish| Chunk::done(finish, self.usage))
    }
}

/// The names and times that all pieces of an answer share.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    id: String,
    model: String,
    created: u64,
}

impl Frame {
    pub(super) fn new(request: &Request) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let id: String = request.id().to_string().chars().take(24).collect();
        Self {
            id: format!("chatcmpl-{id}"),
            model: request.model().to_owned(),
            created: since.as_secs(),
        }
    }

    pub(super) fn whole(&self, text: &str, finish: Finish, usage: Option<(u64, u64)>) -> Value {
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

    pub(super) fn role(&self) -> String {
        let delta = json!({ "role": "assistant", "content": "" });
        event(&self.chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }])))
    }

    pub(super) fn text(&self, text: &str) -> String {
        let delta = json!({ "content": text });
        event(&self.chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }])))
    }

    pub(super) fn end(&self, finish: Finish, usage: Option<(u64, u64)>) -> String {
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

/// An error, as the body of an answer or of an event.
pub(super) fn problem(message: &str) -> Value {
    json!({ "error": { "message": message, "type": "upstream_error", "code": null, "param": null } })
}

pub(super) fn event(data: &Value) -> String {
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
