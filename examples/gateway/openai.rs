//! What goes over the wire, in OpenAI's words.

use inferkit::chatsession::{Content, Message, Part, Role};
use inferkit::semcache::{CacheControl, Request, Tenant};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::problem::Problem;

/// The body of `POST /v1/chat/completions`.
#[derive(Deserialize)]
pub(crate) struct Chat {
    pub(crate) model: String,
    pub(crate) messages: Vec<Message>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    stream_options: Option<StreamOptions>,
    /// Everything else, as it came.
    #[serde(flatten)]
    pub(crate) rest: Map<String, Value>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

/// Members that say nothing about the answer.
const ABOUT_THE_CALL: [&str; 5] =
    ["user", "metadata", "store", "service_tier", "safety_identifier"];
/// Members whose answers are more than a text.
const MORE_THAN_TEXT: [&str; 8] = [
    "tools",
    "functions",
    "logprobs",
    "top_logprobs",
    "audio",
    "modalities",
    "prediction",
    "web_search_options",
];

impl Chat {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Problem> {
        let chat: Self = serde_json::from_slice(body)
            .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))?;
        if chat.messages.is_empty() {
            return Err(Problem::bad_request("messages is empty: send at least one"));
        }
        Ok(chat)
    }

    pub(crate) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }

    pub(crate) fn max_tokens(&self) -> Option<u64> {
        ["max_completion_tokens", "max_tokens"]
            .into_iter()
            .find_map(|name| self.rest.get(name).and_then(Value::as_u64))
    }

    /// Tells why an answer cannot come from the cache; such requests go to the model as they are.
    pub(crate) fn beyond_cache(&self) -> Option<&'static str> {
        let set = |name: &&&str| self.rest.get(**name).is_some_and(|value| !is_unset(value));
        if let Some(name) = MORE_THAN_TEXT.iter().find(set) {
            return Some(name);
        }
        if self.rest.get("n").and_then(Value::as_u64).is_some_and(|n| n != 1) {
            return Some("n");
        }
        match self.messages.last() {
            Some(last) if last.role == Role::User && text(&last.content).is_some() => None,
            _ => Some("messages: the last one is not a text of the user"),
        }
    }

    /// Returns the size of what the model is told, without images and the like.
    pub(crate) fn text_bytes(&self) -> usize {
        self.messages.iter().map(|message| message.content.to_text().len()).sum()
    }

    /// Returns what the user asks last.
    pub(crate) fn question(&self) -> String {
        self.messages.last().map(|last| last.content.to_text()).unwrap_or_default()
    }

    /// Makes the cache's request of it: the last message is the prompt, all else must be equal.
    pub(crate) fn to_request(
        &self,
        tenant: &str,
        control: CacheControl,
    ) -> inferkit::semcache::Result<Request> {
        let (last, before) = match self.messages.split_last() {
            Some((last, before)) => (Some(last), before),
            None => (None, &[][..]),
        };
        // What the system says at the start is the setting; said later, its place matters.
        let is_system = |message: &Message| matches!(message.role, Role::System | Role::Developer);
        let settings = before.iter().take_while(|message| is_system(message)).count();
        let (system, history) = before.split_at(settings);
        let mut request = Request::new(Tenant::new(tenant)?, &*self.model, &*self.question())?;
        if !system.is_empty() {
            request = request.with_system(json!(system).to_string());
        }
        let history = history.iter().map(|message| (message.role.as_str(), json!(message)));
        let history = history.map(|(role, message)| (role, message.to_string()));
        request = request.with_history(history);
        if let Some(name) = last.and_then(|last| last.name.as_deref()) {
            request = request.with_context(name);
        }
        let sampling: Map<String, Value> = self
            .rest
            .iter()
            .filter(|(name, value)| !ABOUT_THE_CALL.contains(&name.as_str()) && !is_unset(value))
            .filter(|(name, _)| *name != "n")
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        if !sampling.is_empty() {
            request = request.with_sampling(&sampling)?;
        }
        Ok(request.with_control(control))
    }

    /// Returns the body for an upstream that knows the model by another name.
    pub(crate) fn to_upstream(&self, model: &str, stream: bool) -> Value {
        let mut body = self.rest.clone();
        body.insert("model".to_owned(), json!(model));
        body.insert("messages".to_owned(), json!(self.messages));
        body.insert("stream".to_owned(), json!(stream));
        if stream {
            body.insert("stream_options".to_owned(), json!({ "include_usage": true }));
        }
        Value::Object(body)
    }
}

fn is_unset(value: &Value) -> bool {
    value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty)
}

/// The text of a message that holds nothing else.
fn text(content: &Content) -> Option<String> {
    match content {
        Content::Text(text) => Some(text.clone()),
        Content::Parts(parts) => {
            parts.iter().all(|part| matches!(part, Part::Text { .. })).then(|| content.to_text())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(body: &str) -> Chat {
        Chat::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn what_shapes_the_answer_tells_requests_apart() {
        let id = |body: &str| chat(body).to_request("acme", CacheControl::new()).unwrap().id();
        let plain = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]}"#;
        let with = |more: &str| format!("{}{more}}}", &plain[..plain.len() - 1]);
        assert_eq!(id(plain), id(&with(r#","stream":true,"user":"ann","n":1"#)));
        for other in [r#","temperature":0.9"#, r#","max_tokens":5"#, r#","seed":1"#] {
            assert_ne!(id(plain), id(&with(other)), "{other}");
        }
        let system = plain.replace("[{", r#"[{"role":"system","content":"Be brief."},{"#);
        assert_ne!(id(plain), id(&system));
        let named = plain.replace(r#""content":"Hi""#, r#""content":"Hi","name":"ann""#);
        assert_ne!(id(plain), id(&named));
        let order = |messages: [&str; 3]| {
            let messages = messages.join(",");
            let last = r#"{"role":"user","content":"Hi"}"#;
            id(&format!(r#"{{"model":"m","messages":[{messages},{last}]}}"#))
        };
        let (user, answer) =
            (r#"{"role":"user","content":"A"}"#, r#"{"role":"assistant","content":"B"}"#);
        let system = r#"{"role":"system","content":"C"}"#;
        assert_ne!(order([system, user, answer]), order([user, system, answer]));
        assert_ne!(order([user, system, answer]), order([user, answer, system]));
        assert_ne!(
            chat(plain).to_request("acme", CacheControl::new()).unwrap().id(),
            chat(plain).to_request("other", CacheControl::new()).unwrap().id()
        );
    }

    #[test]
    fn what_is_more_than_a_text_goes_past_the_cache() {
        let plain = r#"{"model":"m","messages":[{"role":"user","content":"Hi"}]"#;
        for (more, beyond) in [
            ("", None),
            (r#","tools":[]"#, None),
            (r#","logprobs":false,"n":1"#, None),
            (r#","tools":[{"type":"function"}]"#, Some("tools")),
            (r#","n":2"#, Some("n")),
            (r#","logprobs":true"#, Some("logprobs")),
        ] {
            assert_eq!(chat(&format!("{plain}{more}}}")).beyond_cache(), beyond, "{more}");
        }
        let image = r#"{"model":"m","messages":[{"role":"user","content":
            [{"type":"image_url","image_url":{"url":"data:x"}}]}]}"#;
        assert!(chat(image).beyond_cache().is_some());
    }
}
