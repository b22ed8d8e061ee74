use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Client, Url};
use rustls_platform_verifier::BuilderVerifierExt as _;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::format::check;
use crate::{Embedder, Error, Result};

/// The most inputs of one request that every known service takes.
const BATCH_LIMIT: usize = 256;
/// The most characters of the name of a service's error.
const LONGEST_CODE: usize = 40;

/// How an embedding service is asked.
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenAiConfig {
    /// The address before `/embeddings`, such as `https://api.openai.com/v1`.
    pub base_url: String,
    /// The model.
    pub model: String,
    /// The number of components that the model's vectors have.
    pub dimensions: usize,
    /// The key sent as a bearer token, if any.
    pub api_key: Option<String>,
    /// The time that one request may take, 30 seconds by default.
    pub timeout: Duration,
    /// The most texts that go into one request, 256 by default.
    pub batch_limit: usize,
    /// Whether the service is told the number of dimensions, which shortens the vectors of models that can; off by
    /// default, since others refuse it.
    pub send_dimensions: bool,
}

impl OpenAiConfig {
    /// Describes a service by its address before `/embeddings`, the model and the dimensions of its vectors.
    #[must_use]
    pub fn new(base_url: impl Into<String>, model: impl Into<String>, dimensions: usize) -> Self {
        Self {
            base_url: base_url.into(),
            model: model.into(),
            dimensions,
            api_key: None,
            timeout: Duration::from_secs(30),
            batch_limit: BATCH_LIMIT,
            send_dimensions: false,
        }
    }

    /// Sets the key; it is never printed.
    #[must_use]
    pub fn with_api_key(mut self, api_key: impl Into<String>) -> Self {
        self.api_key = Some(api_key.into());
        self
    }

    /// Sets the time that one request may take.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the most texts that go into one request.
    #[must_use]
    pub fn with_batch_limit(mut self, batch_limit: usize) -> Self {
        self.batch_limit = batch_limit;
        self
    }

    /// Sets whether the service is told the number of dimensions.
    #[must_use]
    pub fn with_send_dimensions(mut self, send_dimensions: bool) -> Self {
        self.send_dimensions = send_dimensions;
        self
    }
}

impl fmt::Debug for OpenAiConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenAiConfig")
            .field("model", &self.model)
            .field("dimensions", &self.dimensions)
            .field("api_key", &self.api_key.as_ref().map(|_| "set"))
            .field("timeout", &self.timeout)
            .field("batch_limit", &self.batch_limit)
            .field("send_dimensions", &self.send_dimensions)
            .finish_non_exhaustive()
    }
}

/// Asks a service that speaks the OpenAI embeddings protocol.
///
/// Large batches are split, and their requests are sent one after the other.
/// Nothing is repeated: [`Error::is_transient`] tells what a caller may repeat.
#[derive(Clone)]
pub struct OpenAiEmbedder {
    client: Client,
    endpoint: Url,
    config: OpenAiConfig,
}

impl fmt::Debug for OpenAiEmbedder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.debug_struct("OpenAiEmbedder").field("config", &self.config).finish_non_exhaustive()
    }
}

impl OpenAiEmbedder {
    /// Makes an embedder; nothing is sent.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the address is no HTTP address, the model is empty, or a number or the timeout is zero.
    pub fn new(config: OpenAiConfig) -> Result<Self> {
        let endpoint = format!("{}/embeddings", config.base_url.trim_end_matches('/'));
        let endpoint = Url::parse(&endpoint)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| wrong("the base URL is no http:// or https:// address"))?;
        if config.model.is_empty() {
            return Err(wrong("the model has no name"));
        }
        if config.dimensions == 0 || config.batch_limit == 0 || config.timeout.is_zero() {
            return Err(wrong("dimensions, batch limit and timeout must not be zero"));
        }
        // The provider is named here, so that no process-wide one is needed or set.
        let tls = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_platform_verifier())
        .map_err(Error::embedder)?
        .with_no_client_auth();
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .timeout(config.timeout)
            .build()
            .map_err(Error::embedder)?;
        Ok(Self { client, endpoint, config })
    }

    async fn request(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let question = Question {
            model: &self.config.model,
            input: texts,
            encoding_format: "float",
            dimensions: self.config.send_dimensions.then_some(self.config.dimensions),
        };
        let mut request = self.client.post(self.endpoint.clone()).json(&question);
        if let Some(api_key) = &self.config.api_key {
            request = request.bearer_auth(api_key);
        }
        let response = request.send().await.map_err(failure)?;
        let status = response.status();
        if !status.is_success() {
            let code = response.json().await.ok().and_then(|refusal: Refusal| {
                let Problem { code, kind } = refusal.error?;
                [code, kind].into_iter().flatten().find_map(|Word(word)| word)
            });
            // A key may look like a name, too.
            let code = code.filter(|code| !self.config.api_key.iter().any(|key| key == code));
            return Err(Error::Status { status: status.as_u16(), code });
        }
        let answer: Answer = response.json().await.map_err(failure)?;
        let expected = texts.len();
        let got = answer.data.len();
        let mut vectors: Vec<Option<Vec<f32>>> = vec![None; expected];
        for item in answer.data {
            check_dimensions(self.config.dimensions, &item.embedding)?;
            // A second vector for the same text, or one for no text, leaves another text without.
            if let Some(place) = vectors.get_mut(item.index) {
                *place = Some(item.embedding);
            }
        }
        let vectors: Vec<Vec<f32>> = vectors.into_iter().flatten().collect();
        match got == expected && vectors.len() == expected {
            true => Ok(vectors),
            false => Err(Error::CountMismatch { expected, got: vectors.len().min(got) }),
        }
    }
}

#[async_trait]
impl Embedder for OpenAiEmbedder {
    fn model(&self) -> &str {
        &self.config.model
    }

    fn dimensions(&self) -> usize {
        self.config.dimensions
    }

    /// One `POST` per 256 texts, or as the batch limit is.
    ///
    /// # Errors
    ///
    /// [`Error::Status`] if the service refused; [`Error::Embedder`] if it could not be asked or its answer is no
    /// embedding; [`Error::CountMismatch`], [`Error::DimensionMismatch`], [`Error::NotFinite`],
    /// [`Error::ZeroVector`].
    async fn embed_many(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>> {
        let mut vectors = Vec::with_capacity(texts.len());
        for batch in texts.chunks(self.config.batch_limit) {
            vectors.extend(self.request(batch).await?);
        }
        Ok(vectors)
    }
}

#[derive(Serialize)]
struct Question<'a> {
    model: &'a str,
    input: &'a [&'a str],
    encoding_format: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<usize>,
}

#[derive(Deserialize)]
struct Answer {
    data: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    index: usize,
    embedding: Vec<f32>,
}

#[derive(Deserialize)]
struct Refusal {
    error: Option<Problem>,
}

#[derive(Deserialize)]
struct Problem {
    code: Option<Word>,
    #[serde(rename = "type")]
    kind: Option<Word>,
}

/// A value of any kind, kept only if it looks like the name of an error.
struct Word(Option<String>);

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Text(String),
            Other(IgnoredAny),
        }
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Text(text) => Some(text).filter(|text| is_code(text)),
            Value::Other(IgnoredAny) => None,
        }))
    }
}

fn is_code(text: &str) -> bool {
    text.len() <= LONGEST_CODE
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn check_dimensions(expected: usize, vector: &[f32]) -> Result<()> {
    if vector.len() != expected {
        return Err(Error::DimensionMismatch { expected, got: vector.len() });
    }
    check(vector)
}

fn wrong(message: &str) -> Error {
    Error::Config(format!("{message}: correct the OpenAiConfig"))
}

fn failure(error: reqwest::Error) -> Error {
    let transient = error.is_timeout() || error.is_connect() || error.is_request();
    if error.is_decode() && !transient {
        // The parser's message repeats what it found.
        return Error::embedder("the service's answer is not a list of embeddings");
    }
    // The address may hold a secret.
    let error = error.without_url();
    if transient { Error::transient_embedder(error) } else { Error::embedder(error) }
}
