//! Who answers what the cache does not know.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use eventsource_stream::Eventsource as _;
use futures_util::{Stream, StreamExt as _, stream};
use inferkit::semcache::openai::ChatReader;
use inferkit::semcache::{Chunk, Finish};
use inferkit_examples::answerer::Offline;
use inferkit_examples::{Result, chain};
use reqwest::{Client, Response, Url};

use crate::config;
use crate::openai::Chat;
use crate::problem::Problem;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a model may be silent.
const SILENCE: Duration = Duration::from_secs(60);

/// An answer as it comes, with the reason of its end beside the cache's own words for it.
pub(crate) type Pieces = Pin<Box<dyn Stream<Item = Result<Chunk, Problem>> + Send>>;

/// One who answers.
#[derive(Debug)]
pub(crate) enum Upstream {
    /// The shipped answers.
    Offline(Arc<Offline>),
    Http(Endpoint),
}

/// An OpenAI-compatible endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    client: Client,
    url: Url,
    model: String,
    key: Option<config::Secret>,
}

/// A failure, and whether another upstream may be asked instead.
pub(crate) struct Failed {
    pub(crate) problem: Problem,
    pub(crate) elsewhere: bool,
}

impl Upstream {
    /// # Errors
    ///
    /// If the address cannot be one, or the variable with the key is not set.
    pub(crate) fn new(config: &config::Upstream) -> Result<Self> {
        let base = config.url.trim_end_matches('/');
        let url = Url::parse(&format!("{base}/chat/completions"))
            .map_err(|error| format!("the url of upstream {:?}: {error}", config.name))?;
        let key = config.api_key_env.as_ref().and_then(|name| std::env::var(name).ok());
        let key = key.filter(|key| !key.is_empty()).map(config::Secret);
        let client =
            Client::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(SILENCE).build()?;
        Ok(Self::Http(Endpoint { client, url, model: config.model.clone(), key }))
    }

    /// Asks for an answer as a stream.
    pub(crate) async fn ask(&self, chat: &Chat) -> Result<Pieces, Failed> {
        match self {
            Self::Offline(answers) => offline(answers, chat).await,
            Self::Http(endpoint) => endpoint.ask(chat).await,
        }
    }

    /// Passes a request on as it is.
    pub(crate) async fn pass_on(&self, chat: &Chat) -> Result<Response, Problem> {
        match self {
            Self::Offline(_) => Err(Problem::bad_request(
                "the shipped answers are texts only: configure a model for tools, images and choices",
            )),
            Self::Http(endpoint) => {
                endpoint.send(chat, chat.stream).await.map_err(|failed| failed.problem)
            }
        }
    }
}

/// Answers from the shipped file; what it does not know is said so, and not kept by the cache.
async fn offline(answers: &Offline, chat: &Chat) -> Result<Pieces, Failed> {
    let answer = answers.answer(&chat.question()).await.map_err(|error| Failed {
        problem: Problem::new(StatusCode::BAD_GATEWAY, "upstream_failed", error.to_string()),
        elsewhere: true,
    })?;
    // `Failed` answers are passed on, and never stored.
    let finish = if answer.cacheable { Finish::Complete } else { Finish::Failed };
    let usage = Some((answer.prompt_tokens, answer.completion_tokens));
    let words: Vec<_> =
        answer.text.split_inclusive(' ').map(|word| Chunk::text(word.to_owned())).collect();
    let end = Chunk::done(finish, usage);
    Ok(Box::pin(stream::iter(words.into_iter().chain([end]).map(Ok))))
}

impl Endpoint {
    async fn send(&self, chat: &Chat, stream: bool) -> Result<Response, Failed> {
        let mut request =
            self.client.post(self.url.clone()).json(&chat.to_upstream(&self.model, stream));
        if let Some(config::Secret(key)) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|error| Failed {
            problem: self.failed(&format!("cannot be reached: {}", chain(&error.without_url()))),
            elsewhere: true,
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = response.text().await.unwrap_or_default();
        let mut text: String = text.chars().take(300).collect();
        if let Some(config::Secret(key)) = &self.key {
            // Some endpoints repeat what they were sent.
            text = text.replace(key.as_str(), "[key]");
        }
        let elsewhere = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        let problem = match status {
            StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY => {
                Problem::new(status, "upstream_refused", text)
            }
            _ => self.failed(&format!("answered {status}: {text}")),
        };
        Err(Failed { problem, elsewhere })
    }

    async fn ask(&self, chat: &Chat) -> Result<Pieces, Failed> {
        let response = self.send(chat, true).await?;
        let host = self.host();
        let events = response.bytes_stream().eventsource();
        let mut end = ChatReader::new();
        let pieces = events.map(Some).chain(stream::iter([None])).filter_map(move |event| {
            let piece = match event {
                Some(Ok(event)) => {
                    end.take(&event.data).map_err(|what| broken(&host, what)).transpose()
                }
                Some(Err(error)) => Some(Err(broken(&host, &error.to_string()))),
                None => end.finish().map(Ok),
            };
            std::future::ready(piece)
        });
        Ok(Box::pin(pieces))
    }

    fn host(&self) -> String {
        self.url.host_str().unwrap_or("the upstream").to_owned()
    }

    fn failed(&self, what: &str) -> Problem {
        let detail = format!("{} {what}", self.host());
        Problem::new(StatusCode::BAD_GATEWAY, "upstream_failed", detail)
    }
}

fn broken(host: &str, what: &str) -> Problem {
    let detail = format!("the answer of {host} broke off: {what}");
    Problem::new(StatusCode::BAD_GATEWAY, "upstream_broke_off", detail)
}
