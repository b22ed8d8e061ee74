//! Who answers a question that the cache does not know.

use std::{env, fmt, fs, io, path::Path, process, time::Duration};

use reqwest::{Client, Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::task;

use crate::{Result, chain, minilm::MiniLm};

const ANSWERS: &str = include_str!("answers.jsonl");
const NOTHING_FOUND: &str =
    "I have no model here and found nothing about that among my shipped answers.";

/// The similarity from which a shipped question counts as the one that was asked.
///
/// Measured on this file with the comparison of names below: of 60 rewordings of its questions
/// 58 are answered rightly and none wrongly, and of 60 questions that it does not hold, most of
/// them chosen for being close to one that it does, three are answered (wrongly).
/// It is lower than the threshold of a cache, because names and numbers are compared besides.
const SAME_QUESTION: f32 = 0.72;

/// Short names that the model hardly knows, and what the shipped questions say instead.
const SHORT_NAMES: [(&str, &str); 9] = [
    ("czechia", "Czech Republic"),
    ("holland", "Netherlands"),
    ("llm", "large language model"),
    ("rag", "retrieval-augmented generation"),
    ("uk", "United Kingdom"),
    ("usa", "United States"),
    ("ww1", "First World War"),
    ("ww2", "Second World War"),
    ("wwii", "Second World War"),
];
const ORDINALS: [&str; 5] = ["second", "third", "fourth", "fifth", "last"];

const DEFAULT_BASE_URL: &str = "https://api.openai.com/v1";
const DEFAULT_MODEL: &str = "gpt-4o-mini";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
const LONGEST_BODY: usize = 4 << 20;

/// An answer, with what is needed to price it and to decide whether to keep it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Answer {
    /// What is said.
    pub text: String,
    /// The model that says it.
    pub model: String,
    /// The tokens of the question.
    pub prompt_tokens: u64,
    /// The tokens of the answer.
    pub completion_tokens: u64,
    /// Why the model stopped, in the endpoint's words; `stop` is a complete answer.
    pub finish_reason: String,
    /// Whether the answer may be stored: it is an answer, and a complete one.
    pub cacheable: bool,
}

/// Answers questions, by a model or from the shipped file.
#[derive(Debug)]
#[non_exhaustive]
pub enum Answerer {
    /// The shipped answers.
    Offline(Offline),
    /// An OpenAI-compatible endpoint.
    OpenAi(OpenAi),
}

impl Answerer {
    /// Takes the endpoint that `OPENAI_BASE_URL` and `OPENAI_API_KEY` name;
    /// without either the shipped answers.
    ///
    /// The offline answerer embeds its questions here, which is work for the CPU,
    /// and keeps the vectors in the folder `cache` for the next time.
    ///
    /// # Errors
    ///
    /// If the endpoint's address or key cannot be used, or the questions cannot be embedded.
    pub fn from_env(model: &MiniLm, cache: Option<&Path>) -> Result<Self> {
        // An empty variable is what is left of one that somebody wanted to unset.
        let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
        let (base_url, key) = (variable("OPENAI_BASE_URL"), variable("OPENAI_API_KEY"));
        if base_url.is_none() && key.is_none() {
            return Ok(Self::Offline(Offline::new(model.clone(), cache)?));
        }
        let base_url = base_url.unwrap_or_else(|| DEFAULT_BASE_URL.to_owned());
        let model = variable("OPENAI_MODEL").unwrap_or_else(|| DEFAULT_MODEL.to_owned());
        Ok(Self::OpenAi(OpenAi::new(&base_url, key, model)?))
    }

    /// Returns the name of the model that answers.
    pub fn model(&self) -> &str {
        match self {
            Self::Offline(_) => Offline::MODEL,
            Self::OpenAi(endpoint) => &endpoint.model,
        }
    }

    /// Says in a sentence who answers.
    pub fn describe(&self) -> String {
        match self {
            Self::Offline(offline) => format!(
                "No model answers here: misses are answered offline, from {} shipped questions and \
                 answers that are searched by vector. Set OPENAI_BASE_URL or OPENAI_API_KEY to ask \
                 a model.",
                offline.entries.len()
            ),
            Self::OpenAi(endpoint) => {
                format!("Misses are answered by {} at {}.", endpoint.model, endpoint.host())
            }
        }
    }

    /// Answers `question`.
    ///
    /// # Errors
    ///
    /// If the endpoint does not answer, or its answer cannot be understood.
    pub async fn answer(&self, question: &str) -> Result<Answer> {
        match self {
            Self::Offline(offline) => offline.answer(question).await,
            Self::OpenAi(endpoint) => endpoint.answer(question).await,
        }
    }
}

/// One line of the shipped file.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    #[serde(rename = "q")]
    /// What is asked.
    pub question: String,
    #[serde(rename = "a")]
    /// What is answered.
    pub answer: String,
}

/// Answers from the shipped file: the answer to the most similar question, if it is similar enough.
pub struct Offline {
    model: MiniLm,
    entries: Vec<Entry>,
    vectors: Vec<Vec<f32>>,
}

impl Offline {
    const MODEL: &str = "offline-answers";

    /// Reads the shipped file and embeds its questions, or takes their vectors from `cache`.
    ///
    /// # Errors
    ///
    /// If the questions cannot be embedded.
    pub fn new(model: MiniLm, cache: Option<&Path>) -> Result<Self> {
        let entries = parse_entries(ANSWERS)?;
        let questions: Vec<&str> = entries.iter().map(|entry| entry.question.as_str()).collect();
        let file = cache.map(|folder| {
            let digest = Sha256::new().chain_update(model.model()).chain_update(ANSWERS).finalize();
            folder.join(format!("ask-questions-{digest:x}.f32"))
        });
        let vectors = match file.as_deref().and_then(|file| read_vectors(file, &model, &questions))
        {
            Some(vectors) => vectors,
            None => {
                let vectors = model.embed_batch(&questions)?;
                // Without the file the next start is slower, and nothing else.
                let _ = file.map(|file| write_vectors(&file, &vectors));
                vectors
            }
        };
        Ok(Self { model, entries, vectors })
    }

    /// Returns the shipped question most similar to `vector`, which has unit length.
    pub fn nearest(&self, vector: &[f32]) -> Option<(&Entry, f32)> {
        self.entries
            .iter()
            .zip(self.vectors.iter())
            .map(|(entry, candidate)| (entry, dot(candidate, vector)))
            .max_by(|(_, left), (_, right)| left.total_cmp(right))
    }

    /// Answers `question`.
    ///
    /// # Errors
    ///
    /// If it cannot be embedded.
    pub async fn answer(&self, question: &str) -> Result<Answer> {
        let (model, asked) = (self.model.clone(), spell_out(question));
        let text = asked.clone();
        let vector = task::spawn_blocking(move || model.embed_batch(&[&text])).await??;
        let found = vector
            .first()
            .and_then(|vector| self.nearest(vector))
            .filter(|(_, similarity)| SAME_QUESTION <= *similarity)
            .filter(|(entry, _)| is_same_subject(&asked, &entry.question));
        let Some((entry, _)) = found else {
            return Ok(Answer {
                text: NOTHING_FOUND.to_owned(),
                model: Self::MODEL.to_owned(),
                prompt_tokens: 0,
                completion_tokens: 0,
                finish_reason: "nothing found".to_owned(),
                cacheable: false,
            });
        };
        Ok(Answer {
            text: entry.answer.clone(),
            model: Self::MODEL.to_owned(),
            prompt_tokens: self.model.count_tokens(question)?.try_into()?,
            completion_tokens: self.model.count_tokens(&entry.answer)?.try_into()?,
            finish_reason: "stop".to_owned(),
            cacheable: true,
        })
    }
}

impl fmt::Debug for Offline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Offline")
            .field("model", &self.model)
            .field("entries", &self.entries.len())
            .finish_non_exhaustive()
    }
}

/// Asks an endpoint that speaks OpenAI's chat completions.
pub struct OpenAi {
    client: Client,
    url: Url,
    key: Option<String>,
    model: String,
}

impl OpenAi {
    /// Prepares a client for the endpoint at `base_url`, such as `http://localhost:8000/v1`.
    ///
    /// # Errors
    ///
    /// If the address is not one of HTTP, or carries a password.
    pub fn new(base_url: &str, key: Option<String>, model: String) -> Result<Self> {
        // The address itself stays out of the messages: it could hold a secret.
        let mut url = Url::parse(base_url)
            .map_err(|error| format!("OPENAI_BASE_URL is no address: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err("OPENAI_BASE_URL must begin with http:// or https://".into());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("OPENAI_BASE_URL must not hold a user: use OPENAI_API_KEY".into());
        }
        url.path_segments_mut()
            .map_err(|()| "OPENAI_BASE_URL must have a path")?
            .pop_if_empty()
            .extend(["chat", "completions"]);

        // An error says that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder =
            Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ANSWER_TIMEOUT);
        if url.scheme() == "http" {
            // A machine without root certificates can still ask a server without TLS.
            builder = builder.tls_certs_only([]);
        }
        let client = builder
            .build()
            .map_err(|error| format!("cannot prepare the HTTP client: {}", chain(&error)))?;
        Ok(Self { client, url, key, model })
    }

    /// Answers `question`.
    ///
    /// # Errors
    ///
    /// If the endpoint does not answer, or its answer cannot be understood.
    pub async fn answer(&self, question: &str) -> Result<Answer> {
        let body = Request {
            model: &self.model,
            messages: [Message { role: "user", content: question }],
            stream: false,
        };
        let mut request = self.client.post(self.url.clone()).json(&body);
        if let Some(key) = &self.key {
            request = request.bearer_auth(key);
        }
        let response = request.send().await.map_err(|error| self.failure(error))?;
        let status = response.status();
        let body = read_body(response).await.map_err(|error| self.failure(error))?;
        if !status.is_success() {
            return Err(self.refusal(status, &body).into());
        }
        parse_completion(&body, question).map_err(|error| {
            format!("cannot understand the answer of {}: {error}", self.host()).into()
        })
    }

    fn host(&self) -> &str {
        self.url.host_str().unwrap_or("the endpoint")
    }

    fn failure(&self, error: reqwest::Error) -> String {
        let reason = match error.is_timeout() {
            true => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
            false => chain(&error.without_url()),
        };
        format!("cannot ask {}: {reason}", self.host())
    }

    fn refusal(&self, status: StatusCode, body: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(body).into_owned();
        if let Some(key) = &self.key {
            // Some endpoints repeat what they were sent.
            text = text.replace(key, "[key]");
        }
        let text: String = text.trim().chars().take(200).collect();
        format!("{} answered {status}: {text}", self.host())
    }
}

impl fmt::Debug for OpenAi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OpenAi")
            .field("host", &self.host())
            .field("key", &self.key.as_ref().map(|_| "[set]"))
            .field("model", &self.model)
            .finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: [Message<'a>; 1],
    stream: bool,
}

#[derive(Serialize)]
struct Message<'a> {
    role: &'a str,
    content: &'a str,
}

#[derive(Deserialize)]
struct Completion {
    #[serde(default)]
    model: String,
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Reply,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Reply {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

fn parse_entries(lines: &str) -> Result<Vec<Entry>> {
    lines
        .lines()
        .zip(1..)
        .map(|(line, number)| {
            serde_json::from_str(line)
                .map_err(|error| format!("line {number} of answers.jsonl: {error}").into())
        })
        .collect()
}

/// Writes short names out.
fn spell_out(question: &str) -> String {
    let words = question.split_whitespace().map(|word| {
        let name = word.trim_matches(|letter: char| !letter.is_alphanumeric()).to_lowercase();
        SHORT_NAMES.iter().find(|(short, _)| *short == name).map_or(word, |(_, long)| long)
    });
    words.collect::<Vec<_>>().join(" ")
}

/// Tells whether `asked` can be about what `shipped` is about.
///
/// The vectors of two capitals are close whatever the country, so similarity alone would answer
/// for Tanzania with Nairobi.
/// Therefore what `shipped` names and numbers must be in `asked`, and `asked` must not count on:
/// the second largest is not the largest.
fn is_same_subject(asked: &str, shipped: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let shipped = words(shipped);
    let asked = words(&asked.to_lowercase());

    let counts_on = asked.iter().any(|word| {
        ORDINALS.contains(&word.as_str())
            && !shipped.iter().any(|other| other.eq_ignore_ascii_case(word))
    });
    // The first word of a question is written large whatever it is, and so is "I".
    let named = shipped.iter().skip(1).filter(|word| {
        word.chars().any(|letter| letter.is_uppercase() || letter.is_numeric())
            && word.len() != 1
            && *word != "Redis"
    });
    // The beginning of a name is enough: Japan, Japanese.
    let stems = named.map(|word| word.to_lowercase().chars().take(5).collect::<String>());
    let names_all = stems.into_iter().all(|stem| asked.iter().any(|word| word.starts_with(&stem)));
    names_all && !counts_on
}

/// Reads the vectors of `questions`, if the file holds those of this model.
fn read_vectors(file: &Path, model: &MiniLm, questions: &[&str]) -> Option<Vec<Vec<f32>>> {
    let bytes = fs::read(file).ok()?;
    let (numbers, []) = bytes.as_chunks::<4>() else { return None };
    if numbers.len() != questions.len() * model.dimensions() {
        return None;
    }
    let vectors: Vec<Vec<f32>> = numbers
        .chunks(model.dimensions())
        .map(|vector| vector.iter().map(|number| f32::from_le_bytes(*number)).collect())
        .collect();
    // Weights can change under the same name: one vector is compared.
    let fresh = model.embed_batch(questions.get(..1)?).ok()?;
    let similarity = dot(fresh.first()?, vectors.first()?);
    ((similarity - 1.0).abs() < 1e-3).then_some(vectors)
}

fn write_vectors(file: &Path, vectors: &[Vec<f32>]) -> io::Result<()> {
    let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|number| number.to_le_bytes()).collect();
    // Renamed into its place, so that nobody reads half of it.
    let unfinished = file.with_extension(format!("{}", process::id()));
    fs::write(&unfinished, bytes)?;
    fs::rename(&unfinished, file)
}

fn parse_completion(body: &[u8], question: &str) -> Result<Answer> {
    let completion: Completion = serde_json::from_slice(body)?;
    let choice = completion.choices.into_iter().next().ok_or("it holds no choice")?;
    let finish_reason = choice.finish_reason.unwrap_or_else(|| "unknown".to_owned());
    let text = choice
        .message
        .content
        .filter(|text| !text.trim().is_empty())
        .ok_or_else(|| format!("it holds no text (finish reason {finish_reason})"))?;
    // Some servers do not count; four bytes a token is the usual guess.
    let usage = completion.usage.unwrap_or(Usage {
        prompt_tokens: question.len().div_ceil(4).try_into()?,
        completion_tokens: text.len().div_ceil(4).try_into()?,
    });
    Ok(Answer {
        text,
        model: completion.model,
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        cacheable: finish_reason == "stop",
        finish_reason,
    })
}

async fn read_body(mut response: Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < LONGEST_BODY {
        match response.chunk().await? {
            Some(chunk) => body.extend_from_slice(&chunk),
            None => break,
        }
    }
    Ok(body)
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    left.iter().zip(right).map(|(left, right)| left * right).sum()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with `status` and `body`, and returns what was asked.
    async fn ask_once(status: &str, body: &str, key: Option<&str>) -> (Result<Answer>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let response = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let server = task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                assert!(stream.read_buf(&mut request).await.unwrap() != 0);
            }
            stream.write_all(response.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let endpoint = OpenAi::new(
            &format!("http://{address}/v1/"),
            key.map(str::to_owned),
            "gpt-4o-mini".to_owned(),
        )
        .unwrap();
        let answer = Answerer::OpenAi(endpoint).answer("Why?").await;
        (answer, server.await.unwrap())
    }

    #[test]
    fn the_shipped_file_is_large_and_has_no_question_twice() {
        let entries = parse_entries(ANSWERS).unwrap();
        assert!(240 <= entries.len(), "{}", entries.len());
        let mut seen = HashSet::new();
        for Entry { question, answer } in entries {
            assert!(question.trim() == question && !question.is_empty(), "{question:?}");
            assert!(answer.ends_with('.') && answer.len() < 300, "{answer:?}");
            assert!(seen.insert(question.to_lowercase()), "{question:?} is there twice");
        }
    }

    #[test]
    fn names_and_numbers_must_be_the_same() {
        for (asked, shipped) in [
            ("what's the japanese capital", "What is the capital of Japan?"),
            ("capital of the USA", "What is the capital of the United States?"),
            ("when was the moon landing", "When did people first land on the Moon?"),
            ("end of WW2?", "When did the Second World War end?"),
            ("starting a server for the examples", "How do I start a Redis for the examples?"),
            ("big planet", "What is the largest planet?"),
        ] {
            assert!(is_same_subject(&spell_out(asked), shipped), "{asked}");
        }
        for (asked, shipped) in [
            ("What is the capital of Tanzania?", "What is the capital of Kenya?"),
            ("What is the capital of North Korea?", "What is the capital of South Korea?"),
            ("the square root of 169", "What is the square root of 144?"),
            ("What is the second largest planet?", "What is the largest planet?"),
            ("", "What is Valkey?"),
        ] {
            assert!(!is_same_subject(asked, shipped), "{asked}");
        }
    }

    #[tokio::test]
    #[ignore = "needs the model's weights in INFERKIT_MODEL_DIR"]
    async fn rewordings_are_answered_and_strangers_are_not() {
        let folder = env::var("INFERKIT_MODEL_DIR").unwrap();
        let offline = Offline::new(MiniLm::load(folder.as_ref()).unwrap(), None).unwrap();
        for (asked, part) in [
            ("capital of the UK", "London"),
            ("Explain photosynthesis briefly", "Photosynthesis is"),
            ("how fast does light travel?", "299,792,458"),
            ("what is an LLM", "predict the next token"),
            ("is it safe to retry after an error in inferkit", "maybe_applied"),
        ] {
            let answer = offline.answer(asked).await.unwrap();
            assert!(answer.cacheable && answer.text.contains(part), "{asked}: {answer:?}");
        }
        for asked in ["", "asdf qwer", "What is the capital of Tanzania?", "How do I tie a tie?"] {
            let answer = offline.answer(asked).await.unwrap();
            assert!(!answer.cacheable && answer.completion_tokens == 0, "{asked}: {answer:?}");
        }
    }

    #[test]
    fn a_broken_line_is_named() {
        let error = parse_entries("{\"q\":\"a\",\"a\":\"b\"}\nnonsense").unwrap_err();
        assert!(error.to_string().starts_with("line 2 of answers.jsonl"), "{error}");
    }

    #[tokio::test]
    async fn an_endpoint_is_asked_as_openai_would_be() {
        let body = r#"{"model":"gpt-4o-mini-2024-07-18","choices":[{"index":0,"message":
            {"role":"assistant","content":"Because."},"finish_reason":"stop"}],
            "usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;
        let (answer, request) = ask_once("200 OK", body, Some("secret-1")).await;
        let expected = Answer {
            text: "Because.".to_owned(),
            model: "gpt-4o-mini-2024-07-18".to_owned(),
            prompt_tokens: 9,
            completion_tokens: 2,
            finish_reason: "stop".to_owned(),
            cacheable: true,
        };
        assert_eq!(answer.unwrap(), expected);
        let (head, sent) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
        assert!(head.to_lowercase().contains("authorization: bearer secret-1"), "{head}");
        assert_eq!(
            sent,
            r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"Why?"}],"stream":false}"#
        );
    }

    #[tokio::test]
    async fn without_a_key_no_authorization_is_sent() {
        let body =
            r#"{"choices":[{"message":{"content":"Because it is"},"finish_reason":"length"}]}"#;
        let (answer, request) = ask_once("200 OK", body, None).await;
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
        let answer = answer.unwrap();
        assert!(!answer.cacheable, "a cut answer must not be kept");
        assert_eq!((answer.prompt_tokens, answer.completion_tokens), (1, 4));
    }

    #[tokio::test]
    async fn a_refusal_shows_the_status_and_never_the_key() {
        let body = format!("{{\"error\":\"bad key secret-1 {}\"}}", "x".repeat(500));
        let (answer, _) = ask_once("401 Unauthorized", &body, Some("secret-1")).await;
        let error = answer.unwrap_err().to_string();
        assert!(error.contains("401 Unauthorized: {\"error\":\"bad key [key] xxx"), "{error}");
        assert!(!error.contains("secret-1") && error.len() < 260, "{error}");
    }

    #[tokio::test]
    async fn an_answer_without_text_is_an_error() {
        for body in [
            "",
            "{}",
            r#"{"choices":[]}"#,
            r#"{"choices":[{"message":{"content":null},"finish_reason":"tool_calls"}]}"#,
        ] {
            let (answer, _) = ask_once("200 OK", body, None).await;
            let error = answer.unwrap_err().to_string();
            assert!(error.starts_with("cannot understand the answer of 127.0.0.1"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let endpoint = OpenAi::new(&format!("http://{address}"), None, "model".to_owned()).unwrap();
        let error = endpoint.answer("Why?").await.unwrap_err().to_string();
        assert!(error.starts_with("cannot ask 127.0.0.1: "), "{error}");
        assert!(error.to_lowercase().contains("refused"), "{error}");
    }

    #[test]
    fn addresses_are_checked_and_secrets_not_shown() {
        for base_url in ["", "localhost:8000", "ftp://host/v1", "https://user:secret-2@host/v1"] {
            let error = OpenAi::new(base_url, None, String::new()).unwrap_err().to_string();
            assert!(error.contains("OPENAI_BASE_URL") && !error.contains("secret-2"), "{error}");
        }
        let key = Some("secret-1".to_owned());
        let endpoint = OpenAi::new("http://host/v1?version=1", key, "m".to_owned()).unwrap();
        assert_eq!(endpoint.url.as_str(), "http://host/v1/chat/completions?version=1");
        let debug = format!("{endpoint:?}");
        assert!(!debug.contains("secret-1"), "{debug}");
    }
}
