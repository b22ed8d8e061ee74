use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{ClientId, EntryId};

/// Who says something.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Role {
    /// The model.
    Assistant,
    /// The developer of the application.
    Developer,
    /// The operator of the application.
    System,
    /// A tool, with the result of a call.
    Tool,
    /// The user.
    User,
}

impl Role {
    /// Returns the role's name, as OpenAI's API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Assistant => "assistant",
            Self::Developer => "developer",
            Self::System => "system",
            Self::Tool => "tool",
            Self::User => "user",
        }
    }

    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"assistant" => Self::Assistant,
            b"developer" => Self::Developer,
            b"system" => Self::System,
            b"tool" => Self::Tool,
            b"user" => Self::User,
            _ => return None,
        })
    }
}

/// What a message says: text, or parts of several kinds.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum Content {
    /// Text; empty if there is nothing but tool calls.
    Text(String),
    /// Parts, such as text and images.
    Parts(Vec<Part>),
}

impl Content {
    /// Tells whether nothing is said.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Parts(parts) => parts.is_empty(),
        }
    }

    /// Returns the text, that of all text parts joined by line ends.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Parts(parts) => {
                let texts = parts.iter().filter_map(|part| match part {
                    Part::Text { text } => Some(text.as_str()),
                    Part::Refusal { refusal } => Some(refusal.as_str()),
                    _ => None,
                });
                texts.collect::<Vec<_>>().join("\n")
            }
        }
    }
}

impl Default for Content {
    fn default() -> Self {
        Self::Text(String::new())
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<Part>> for Content {
    fn from(parts: Vec<Part>) -> Self {
        Self::Parts(parts)
    }
}

/// Shows how much is said, not what.
impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Self::Parts(parts) => write!(f, "Parts({})", parts.len()),
        }
    }
}

/// A part of a message's content, as OpenAI's chat completions write it.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Part {
    /// Text.
    Text {
        /// The text.
        text: String,
    },
    /// An image by its URL, which may be a `data:` URL.
    ImageUrl {
        /// The image.
        image_url: ImageUrl,
    },
    /// The model's refusal.
    Refusal {
        /// What the model says instead.
        refusal: String,
    },
    /// A part of any other kind, kept as it is.
    #[serde(untagged)]
    Other(Value),
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Text { .. } => "Text",
            Self::ImageUrl { .. } => "ImageUrl",
            Self::Refusal { .. } => "Refusal",
            Self::Other(_) => "Other",
        })
    }
}

/// Where an image is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "the form is another's and fixed")]
pub struct ImageUrl {
    /// The address.
    pub url: String,
    /// How closely the model looks: `low`, `high` or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A call that the model wants made.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ToolCall {
    /// The call's id, which the result names.
    pub id: String,
    /// The kind of the tool: `function`.
    #[serde(rename = "type", default = "function")]
    pub kind: String,
    /// What is called.
    pub function: Function,
}

fn function() -> String {
    "function".to_owned()
}

impl ToolCall {
    /// Makes a call of a function; `arguments` are JSON text.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        arguments: impl Into<String>,
    ) -> Self {
        let function = Function { name: name.into(), arguments: arguments.into() };
        Self { id: id.into(), kind: self::function(), function }
    }
}

impl fmt::Debug for ToolCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolCall")
            .field("id", &self.id)
            .field("name", &self.function.name)
            .finish_non_exhaustive()
    }
}

/// A function and its arguments.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "the form is another's and fixed")]
pub struct Function {
    /// The function's name.
    #[serde(default)]
    pub name: String,
    /// The arguments, as JSON text that the model wrote; it need not be valid.
    #[serde(default)]
    pub arguments: String,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What the provider counted for the request that this message answers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[expect(clippy::exhaustive_structs, reason = "the form is another's and fixed")]
pub struct Usage {
    /// The tokens of the request.
    pub prompt_tokens: u64,
    /// The tokens of the answer.
    pub completion_tokens: u64,
    /// Those tokens of the request that the provider's prompt cache had.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cached_tokens: u64,
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Why an answer ended where it does.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FinishReason {
    /// The provider's filter cut it off.
    ContentFilter,
    /// Whoever streamed it went away; what had come is kept.
    Interrupted,
    /// The token limit was reached.
    Length,
    /// It is complete.
    Stop,
    /// The user stopped it; what had come is kept.
    Stopped,
    /// The model wants tools called.
    ToolCalls,
    /// A reason of the provider's own.
    #[serde(untagged)]
    Other(String),
}

/// Something that was said.
///
/// As JSON it is a message of OpenAI's chat completions, with `finish_reason`, `usage` and `client_id` besides.
/// `Debug` shows no content.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub content: Content,
    /// The calls that the model wants made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// The call that a tool's result answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// The name of the speaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Why an answer ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// What the provider counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The client's id, by which a message that is sent twice is stored once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// The number of tokens, where the caller knows better than the store's counter.
    #[serde(skip)]
    pub tokens: Option<u64>,
}

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Content, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl Message {
    /// Makes a message.
    #[must_use]
    pub fn new(role: Role, content: impl Into<Content>) -> Self {
        Self {
            role,
            content: content.into(),
            tool_calls: Vec::new(),
            tool_call_id: None,
            name: None,
            finish_reason: None,
            usage: None,
            client_id: None,
            tokens: None,
        }
    }

    /// Makes a message of the operator.
    #[must_use]
    pub fn system(content: impl Into<Content>) -> Self {
        Self::new(Role::System, content)
    }

    /// Makes a message of the user.
    #[must_use]
    pub fn user(content: impl Into<Content>) -> Self {
        Self::new(Role::User, content)
    }

    /// Makes an answer of the model.
    #[must_use]
    pub fn assistant(content: impl Into<Content>) -> Self {
        Self::new(Role::Assistant, content)
    }

    /// Makes the model's message that wants tools called.
    #[must_use]
    pub fn tool_calls(calls: impl IntoIterator<Item = ToolCall>) -> Self {
        let mut message = Self::assistant("");
        message.tool_calls.extend(calls);
        message
    }

    /// Makes the result of a tool call.
    #[must_use]
    pub fn tool(call: impl Into<String>, content: impl Into<Content>) -> Self {
        let mut message = Self::new(Role::Tool, content);
        message.tool_call_id = Some(call.into());
        message
    }

    /// Sets the client's id.
    #[must_use]
    pub fn with_client_id(mut self, id: ClientId) -> Self {
        self.client_id = Some(id);
        self
    }

    /// Sets why the answer ended.
    #[must_use]
    pub fn with_finish_reason(mut self, reason: FinishReason) -> Self {
        self.finish_reason = Some(reason);
        self
    }

    /// Sets the name of the speaker.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the number of tokens, so that the store does not count them.
    #[must_use]
    pub fn with_tokens(mut self, tokens: u64) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// Adds calls that the model wants made.
    #[must_use]
    pub fn with_tool_calls(mut self, calls: impl IntoIterator<Item = ToolCall>) -> Self {
        self.tool_calls.extend(calls);
        self
    }

    /// Sets what the provider counted; its `completion_tokens` are the message's tokens unless they are set.
    #[must_use]
    pub fn with_usage(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// The tokens as far as they are known without counting.
    pub(crate) fn known_tokens(&self) -> Option<u64> {
        let reported = || self.usage.map(|usage| usage.completion_tokens);
        self.tokens.or_else(|| reported().filter(|_| self.role == Role::Assistant))
    }
}

/// A message in its session's log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Entry {
    /// The place in the log.
    pub id: EntryId,
    /// The message that it follows, where that is not the one before it in the log; [`EntryId::ZERO`] if it begins anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<EntryId>,
    /// The tokens of all messages before it on its branch, from the session's beginning.
    pub offset: u64,
    /// Its own tokens, as counted when it was stored.
    pub tokens: u64,
    /// The message.
    pub message: Message,
}

impl Entry {
    /// Makes an entry, for an implementor of [`SessionStore`](crate::SessionStore).
    #[must_use]
    pub fn new(
        id: EntryId,
        parent: Option<EntryId>,
        offset: u64,
        tokens: u64,
        message: Message,
    ) -> Self {
        Self { id, parent, offset, tokens, message }
    }

    /// Returns the tokens of its branch up to and with this message.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.tokens)
    }
}
