//! Who answers, and who summarizes.

use std::collections::HashSet;
use std::{env, fmt};

use async_trait::async_trait;
use inferkit::chatsession::{self, Entry, Message, Role, Summarizer, Summary};
use serde_json::{Value, json};

use crate::Result;

/// Something that answers.
#[derive(Debug)]
pub(crate) enum Model {
    /// An OpenAI-compatible endpoint.
    Endpoint(Endpoint),
    /// Quotes what was said before.
    Quoting,
}

pub(crate) struct Endpoint {
    client: reqwest::Client,
    url: String,
    key: Option<String>,
    model: String,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("model", &self.model).finish_non_exhaustive()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(endpoint) => f.write_str(&endpoint.model),
            Self::Quoting => f.write_str("none: answers are quotations; set OPENAI_BASE_URL"),
        }
    }
}

impl Model {
    pub(crate) fn from_env() -> Result<Self> {
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let (base, key) = (variable("OPENAI_BASE_URL"), variable("OPENAI_API_KEY"));
        if base.is_none() && key.is_none() {
            return Ok(Self::Quoting);
        }
        // Fails only if somebody has installed one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let base = base.unwrap_or_else(|| "https://api.openai.com/v1".to_owned());
        let url = format!("{}/chat/completions", base.trim_end_matches('/'));
        let model = variable("OPENAI_MODEL").unwrap_or_else(|| "gpt-4o-mini".to_owned());
        Ok(Self::Endpoint(Endpoint { client: reqwest::Client::new(), url, key, model }))
    }

    /// Answers the last message.
    pub(crate) async fn answer(&self, messages: &[Message]) -> Result<String> {
        match self {
            Self::Endpoint(endpoint) => endpoint.complete(messages).await,
            Self::Quoting => Ok(quote(messages)),
        }
    }
}

impl Endpoint {
    async fn complete(&self, messages: &[Message]) -> Result<String> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| json!({"role": message.role, "content": message.content}))
            .collect();
        let mut request = self.client.post(&self.url);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let request = request.json(&json!({"model": self.model, "messages": messages}));
        let answer: Value = request.send().await?.error_for_status()?.json().await?;
        let text = answer.pointer("/choices/0/message/content").and_then(Value::as_str);
        Ok(text.filter(|text| !text.is_empty()).ok_or("the model did not answer")?.to_owned())
    }
}

/// Quotes what shares the most words with the question.
fn quote(messages: &[Message]) -> String {
    let words = |text: &str| -> HashSet<String> {
        let words = text.split(|letter: char| !letter.is_alphanumeric());
        words.filter(|word| 2 < word.len()).map(str::to_lowercase).collect()
    };
    let Some((question, earlier)) = messages.split_last() else { return String::new() };
    let asked = words(&question.content.to_text());
    let said = earlier.iter().filter(|message| message.role != Role::Assistant);
    let texts: Vec<String> = said.map(|message| message.content.to_text()).collect();
    let best = texts
        .iter()
        .flat_map(|text| text.lines())
        .max_by_key(|line| words(line).intersection(&asked).count());
    match best.filter(|line| !words(line).is_disjoint(&asked)) {
        Some(line) => format!("You said: {}", line.trim_start_matches("- ")),
        None => "I remember nothing about that.".to_owned(),
    }
}

#[async_trait]
impl Summarizer for Model {
    async fn summarize(
        &self,
        earlier: Option<&Summary>,
        entries: &[Entry],
    ) -> chatsession::Result<String> {
        let earlier = earlier.map_or("", |summary| summary.text.as_str());
        match self {
            Self::Endpoint(endpoint) => {
                let mut talk = format!("{earlier}\n");
                for entry in entries {
                    let (role, text) =
                        (entry.message.role.as_str(), entry.message.content.to_text());
                    talk.push_str(&format!("{role}: {text}\n"));
                }
                let ask = format!("Summarize this conversation in at most five sentences:\n{talk}");
                let summary = endpoint.complete(&[Message::user(ask)]).await;
                summary.map_err(|error| chatsession::Error::summarizer(error, true))
            }
            // The newest questions, shortened.
            Self::Quoting => {
                let asked = entries.iter().filter(|entry| entry.message.role == Role::User);
                let new = asked.map(|entry| {
                    let text = entry.message.content.to_text();
                    let words: Vec<&str> = text.split_whitespace().take(8).collect();
                    format!("- {}", words.join(" "))
                });
                let lines: Vec<String> = earlier.lines().map(str::to_owned).chain(new).collect();
                let newest = lines.len().saturating_sub(6);
                Ok(lines.into_iter().skip(newest).collect::<Vec<_>>().join("\n"))
            }
        }
    }
}
