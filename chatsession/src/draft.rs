use serde::{Deserialize, Serialize};

use crate::{Entry, EntryId, FinishReason, Message, Role, ToolCall, Usage};

/// A piece of an answer that is being streamed.
#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Delta {
    /// More text.
    Text {
        /// The text.
        text: String,
    },
    /// More of a tool call: its id and name come once, its arguments in pieces.
    ToolCall {
        /// Which of the message's calls.
        index: usize,
        /// The call's id.
        #[serde(default)]
        id: String,
        /// The function's name.
        #[serde(default)]
        name: String,
        /// More of the arguments.
        #[serde(default)]
        arguments: String,
    },
    /// What the provider counted, which it reports at the end; the last report stands.
    Usage {
        /// The numbers.
        usage: Usage,
    },
}

impl Delta {
    /// Makes a piece of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text { text: text.into() }
    }
}

/// Shows how much comes, not what.
impl std::fmt::Debug for Delta {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text { text } => write!(f, "Text({} bytes)", text.len()),
            Self::ToolCall { index, .. } => write!(f, "ToolCall({index})"),
            Self::Usage { .. } => f.write_str("Usage"),
        }
    }
}

/// What became of deltas that were pushed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Pushed {
    /// They are in the draft; the id of the last one.
    Open(EntryId),
    /// Somebody has finished the draft, for example because the user stopped it: end the stream.
    Finished,
}

/// A draft as a reader finds it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Draft {
    /// It is being written; the deltas after those that the reader has.
    Open(Vec<(EntryId, Delta)>),
    /// It is in the log as this message; `None` if nothing was said.
    Finished(Option<EntryId>),
    /// There is none: it has not begun, or it was finished a while ago.
    Unknown,
}

/// What became of a draft that was to be finished.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Finished {
    /// It is in the log now.
    Stored(Entry),
    /// It had been finished, as this message; `None` if nothing was said.
    Before(Option<EntryId>),
    /// Nothing was said, so nothing is in the log.
    Empty,
}

/// Puts an answer together from its deltas; `None` if nothing was said.
pub(crate) fn assemble<'a>(
    deltas: impl IntoIterator<Item = &'a Delta>,
    reason: FinishReason,
) -> Option<Message> {
    let (mut said, mut calls, mut counted) = (String::new(), Vec::<ToolCall>::new(), None);
    for delta in deltas {
        match delta {
            Delta::Text { text } => said.push_str(text),
            Delta::ToolCall { index, id, name, arguments } => {
                // Providers number the calls of a message without gaps.
                let index = (*index).min(calls.len());
                if index == calls.len() {
                    calls.push(ToolCall::new("", "", ""));
                }
                let Some(call) = calls.get_mut(index) else { continue };
                call.id.push_str(id);
                call.function.name.push_str(name);
                call.function.arguments.push_str(arguments);
            }
            Delta::Usage { usage } => counted = Some(*usage),
        }
    }
    if said.is_empty() && calls.is_empty() {
        return None;
    }
    let mut message = Message::new(Role::Assistant, said).with_tool_calls(calls);
    message.usage = counted;
    Some(message.with_finish_reason(reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_put_together_from_its_pieces() {
        let call = |index, id: &str, name: &str, arguments: &str| Delta::ToolCall {
            index,
            id: id.into(),
            name: name.into(),
            arguments: arguments.into(),
        };
        let usage = Usage { prompt_tokens: 9, completion_tokens: 31, cached_tokens: 4 };
        let deltas = [
            Delta::text("One mo"),
            Delta::text("ment."),
            call(0, "a", "find", ""),
            call(0, "", "", "{\"x\""),
            call(1, "b", "find", "{}"),
            call(0, "", "", ":1}"),
            Delta::Usage { usage },
        ];
        let message = assemble(&deltas, FinishReason::ToolCalls).unwrap();
        assert_eq!(message.content.to_text(), "One moment.");
        let calls = [ToolCall::new("a", "find", "{\"x\":1}"), ToolCall::new("b", "find", "{}")];
        assert_eq!(message.tool_calls, calls);
        assert_eq!(message.usage, Some(usage));
        let silent = [Delta::text(""), Delta::Usage { usage }];
        assert_eq!(assemble(&silent, FinishReason::Stopped), None);
    }
}
