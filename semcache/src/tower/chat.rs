//! What a chat completion asks, in the cache's words.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::openai::is_unset;
use crate::{CacheControl, Request, Result, Tenant};

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
