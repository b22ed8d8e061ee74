//! A message of rig as messages of a session, and back.

use std::collections::HashMap;

use inferkit_chatsession::{Content, Message as Stored, Part, Role, ToolCall as StoredCall};
use rig_core::completion::Message;
use rig_core::completion::message::{
    AssistantContent, AssistantMessage, CallId, DocumentSourceKind, Image, Text, ToolCall,
    ToolFunction, ToolName, ToolResult, ToolResultContent, UserContent,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::Error;

/// The members of blocks that hold what is said.
const TEXT: &str = "text";
const VALUE: &str = "value";

const DAMAGED: &str = "a part of rig's that is damaged";
const NAMELESS: &str = "a tool without a name";
const PART: &str = "a part of another kind than text or an image's address";

/// What stands beside the text of a message that chat completions cannot say, as a part of its content.
#[derive(Deserialize, Serialize)]
struct Kept {
    #[serde(rename = "type")]
    kind: Kind,
    /// rig's JSON without its texts, which are parts of their own.
    message: Json,
    /// Whether it is the rest of the message before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    continues: bool,
}

#[derive(Deserialize, Serialize)]
enum Kind {
    #[serde(rename = "rig")]
    Rig,
}

/// One message for each tool result, as chat completions have it, and one for what is between them.
pub(super) fn encode(message: &Message) -> Result<Vec<Stored>, serde_json::Error> {
    let Message::User { content } = message else { return Ok(vec![piece(message, false)?]) };
    let mut pieces: Vec<Vec<UserContent>> = Vec::new();
    for block in content {
        let result = matches!(block, UserContent::ToolResult(_));
        match pieces.last_mut() {
            Some(piece) if !result && !matches!(piece[..], [UserContent::ToolResult(_)]) => {
                piece.push(block.clone());
            }
            _ => pieces.push(vec![block.clone()]),
        }
    }
    if pieces.is_empty() {
        pieces.push(Vec::new());
    }
    let pieces = pieces.into_iter().enumerate();
    pieces.map(|(index, content)| piece(&Message::User { content }, 0 < index)).collect()
}

fn piece(message: &Message, continues: bool) -> Result<Stored, serde_json::Error> {
    let mut stored = plain(message);
    let says_all = || read_plain(&stored, &HashMap::new()).is_ok_and(|read| read == *message);
    let is_empty = stored.content.is_empty() && stored.tool_calls.is_empty();
    if !continues && (!is_empty || stored.role == Role::Tool) && says_all() {
        return Ok(stored);
    }
    let mut json = serde_json::to_value(message)?;
    let mut parts = Vec::new();
    each_text(&mut json, &mut |block, member| {
        let text = match block.remove(member) {
            Some(Json::String(text)) if member == TEXT => text,
            Some(value) => value.to_string(),
            None => return,
        };
        parts.push(Part::Text { text });
    });
    let kept = Kept { kind: Kind::Rig, message: json, continues };
    parts.push(Part::Other(serde_json::to_value(kept)?));
    stored.content = Content::Parts(parts);
    Ok(stored)
}

/// Visits the blocks of a message in rig's JSON that say something, those of tool results too: a block, and the member that
/// holds its text or its value.
fn each_text(json: &mut Json, visit: &mut dyn FnMut(&mut Map<String, Json>, &'static str)) {
    let Some(Json::Array(blocks)) = json.get_mut("content") else { return };
    for block in blocks {
        match (kind(block), block) {
            (Some("text"), Json::Object(block)) => visit(block, TEXT),
            (Some("json"), Json::Object(block)) => visit(block, VALUE),
            (_, other) => each_text(other, visit),
        }
    }
}

fn kind(block: &Json) -> Option<&'static str> {
    const KINDS: [&str; 7] = ["text", "json", "reasoning", "image", "audio", "video", "document"];
    let kind = block.get("type")?.as_str()?;
    KINDS.into_iter().find(|known| *known == kind)
}

/// What the model is sent of a message with a part of rig's, so that its tokens can be counted: the text, and how many
/// images, recordings and documents; `None` for other messages, which the store counts.
pub(super) fn sent(stored: &Stored) -> Option<(String, u64)> {
    let kept = kept(stored)?;
    let mut text = stored.content.to_text();
    for call in &stored.tool_calls {
        text.push('\n');
        text.push_str(&call.function.name);
        text.push_str(&call.function.arguments);
    }
    let mut media = 0;
    count_blocks(&kept.message, &mut text, &mut media);
    Some((text, media))
}

fn count_blocks(json: &Json, text: &mut String, media: &mut u64) {
    for block in json.get("content").and_then(Json::as_array).into_iter().flatten() {
        match kind(block) {
            Some("reasoning") => {
                text.push('\n');
                text.push_str(block.get(TEXT).and_then(Json::as_str).unwrap_or_default());
            }
            Some("image" | "audio" | "video" | "document") => *media += 1,
            _ => count_blocks(block, text, media),
        }
    }
}

/// What chat completions can say of a message.
fn plain(message: &Message) -> Stored {
    match message {
        Message::System { content } => Stored::system(content.as_str()),
        Message::User { content } => match &content[..] {
            [UserContent::ToolResult(result)] => {
                let texts = result.content.iter().filter_map(ToolResultContent::as_text);
                Stored::tool(result.call.wire(), said(texts)).with_name(result.name.as_str())
            }
            blocks => Stored::user(said(blocks.iter().filter_map(|block| match block {
                UserContent::Text(text) => Some(text.text()),
                _ => None,
            }))),
        },
        Message::Assistant(AssistantMessage { content, .. }) => {
            let texts = content.iter().filter_map(|block| match block {
                AssistantContent::Text(text) => Some(text.text()),
                _ => None,
            });
            let calls = content.iter().filter_map(|block| match block {
                AssistantContent::ToolCall(call) => Some(stored_call(call)),
                _ => None,
            });
            Stored::assistant(said(texts)).with_tool_calls(calls)
        }
    }
}

fn stored_call(call: &ToolCall) -> StoredCall {
    let ToolFunction { name, arguments, invalid_arguments } = &call.function;
    let arguments = match invalid_arguments {
        Some(text) => text.clone(),
        None => Json::Object(arguments.clone()).to_string(),
    };
    StoredCall::new(call.id.wire(), name.as_str(), arguments)
}

fn said<'a>(texts: impl Iterator<Item = &'a str>) -> Content {
    let mut texts: Vec<String> = texts.map(str::to_owned).collect();
    match texts.pop() {
        None => Content::default(),
        Some(only) if texts.is_empty() => Content::Text(only),
        Some(last) => {
            texts.push(last);
            Content::Parts(texts.into_iter().map(|text| Part::Text { text }).collect())
        }
    }
}

/// Reads a session's messages, also those that rig has not written.
pub(super) fn decode(stored: &[Stored]) -> Result<Vec<Message>, Error> {
    let mut messages: Vec<Message> = Vec::with_capacity(stored.len());
    let mut names = HashMap::new();
    for stored in stored {
        for call in &stored.tool_calls {
            names.insert(&*call.id, &*call.function.name);
        }
        let Some(kept) = kept(stored) else {
            messages.push(read_plain(stored, &names)?);
            continue;
        };
        let message = restore(stored, kept.message)?;
        match (messages.last_mut(), message) {
            (Some(Message::User { content: before }), Message::User { content })
                if kept.continues =>
            {
                before.extend(content);
            }
            (_, message) => messages.push(message),
        }
    }
    Ok(messages)
}

fn kept(stored: &Stored) -> Option<Kept> {
    let Content::Parts(parts) = &stored.content else { return None };
    match parts.last() {
        Some(Part::Other(json)) => Kept::deserialize(json).ok(),
        _ => None,
    }
}

fn restore(stored: &Stored, mut json: Json) -> Result<Message, Error> {
    let Content::Parts(parts) = &stored.content else { return Err(foreign(stored, DAMAGED)) };
    let mut texts = parts.iter().filter_map(|part| match part {
        Part::Text { text } => Some(text),
        _ => None,
    });
    let mut readable = true;
    each_text(&mut json, &mut |block, member| {
        let value = match texts.next() {
            Some(text) if member == TEXT => Ok(Json::String(text.clone())),
            Some(text) => serde_json::from_str(text),
            None => Ok(Json::Null),
        };
        readable &= value.is_ok();
        block.insert(member.to_owned(), value.unwrap_or_default());
    });
    if !readable {
        return Err(foreign(stored, DAMAGED));
    }
    let mut message = serde_json::from_value(json).map_err(|_| foreign(stored, DAMAGED))?;
    if let Message::Assistant(AssistantMessage { content, .. }) = &mut message {
        // A window leaves out calls that were never answered.
        content.retain(|block| match block {
            AssistantContent::ToolCall(call) => {
                stored.tool_calls.iter().any(|stored| stored.id == call.id.wire())
            }
            _ => true,
        });
    }
    Ok(message)
}

/// Reads what chat completions can say; `names` are those of the tools by the ids of their calls.
fn read_plain(stored: &Stored, names: &HashMap<&str, &str>) -> Result<Message, Error> {
    Ok(match stored.role {
        Role::System | Role::Developer => Message::System { content: stored.content.to_text() },
        Role::User => {
            let content = parts(stored)
                .map(|part| match part {
                    Part::Text { text } => Ok(UserContent::Text(Text::new(text))),
                    Part::ImageUrl { image_url } => Ok(UserContent::Image(Image {
                        data: DocumentSourceKind::url(image_url.url),
                        ..Image::default()
                    })),
                    _ => Err(foreign(stored, PART)),
                })
                .collect::<Result<_, _>>()?;
            Message::User { content }
        }
        Role::Assistant => {
            let mut content = parts(stored)
                .map(|part| match part {
                    Part::Text { text } | Part::Refusal { refusal: text } => {
                        Ok(AssistantContent::Text(Text::new(text)))
                    }
                    _ => Err(foreign(stored, PART)),
                })
                .collect::<Result<Vec<_>, _>>()?;
            for call in &stored.tool_calls {
                let name =
                    ToolName::new(&*call.function.name).map_err(|_| foreign(stored, NAMELESS))?;
                let function = ToolFunction::parse(name, &call.function.arguments);
                content.push(AssistantContent::ToolCall(ToolCall::from_wire(&*call.id, function)));
            }
            Message::Assistant(AssistantMessage::new(content))
        }
        Role::Tool => {
            let call = stored.tool_call_id.as_deref().unwrap_or_default();
            let name = stored.name.as_deref().or_else(|| names.get(call).copied());
            let content = parts(stored)
                .map(|part| match part {
                    Part::Text { text } => Ok(ToolResultContent::Text(Text::new(text))),
                    _ => Err(foreign(stored, PART)),
                })
                .collect::<Result<_, _>>()?;
            let result = ToolResult {
                call: CallId::from_wire(call),
                name: ToolName::new(name.unwrap_or("tool"))
                    .map_err(|_| foreign(stored, NAMELESS))?,
                content,
                is_error: false,
            };
            Message::User { content: vec![UserContent::ToolResult(result)] }
        }
        _ => return Err(foreign(stored, "an unknown role")),
    })
}

fn parts(stored: &Stored) -> impl Iterator<Item = Part> {
    let parts = match &stored.content {
        Content::Text(text) if text.is_empty() => Vec::new(),
        Content::Text(text) => vec![Part::Text { text: text.clone() }],
        Content::Parts(parts) => parts.clone(),
        _ => Vec::new(),
    };
    parts.into_iter()
}

fn foreign(stored: &Stored, what: &'static str) -> Error {
    Error::Message { role: stored.role.as_str(), what }
}
