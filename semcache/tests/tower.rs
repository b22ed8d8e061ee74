//! The layer over real HTTP: hits, misses, streams, callers who go away, and what is not for a cache.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::{StreamExt as _, stream};
use inferkit_semcache::conformance::Compass;
use inferkit_semcache::{ChatCacheLayer, Coalescer, MemorySemanticCache, Policy, Tenant};
use serde_json::{Value, json};

/// Counts what it is asked.
#[derive(Clone, Debug, Default)]
struct Model {
    asked: Arc<AtomicUsize>,
    /// How many of its streams were dropped or read to the end.
    ended: Arc<AtomicUsize>,
}

impl Model {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

/// Notes that a stream is over.
struct Ended(Arc<AtomicUsize>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

async fn complete(State(model): State<Model>, headers: HeaderMap, body: Bytes) -> Response {
    model.asked.fetch_add(1, Ordering::AcqRel);
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(!headers.contains_key(header::ACCEPT_ENCODING) || body.get("tools").is_some());
    let prompt = body["messages"].as_array().unwrap().last().unwrap()["content"].clone();
    let prompt = prompt.as_str().unwrap_or("parts").to_owned();
    if prompt.contains("busy") {
        let body = json!({ "error": { "message": "slow down" } });
        return (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "7")], axum::Json(body))
            .into_response();
    }
    let usage = json!({ "prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8 });
    if body["stream"] != true {
        // Others come while it is at work.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let message = json!({ "role": "assistant", "content": format!("re: {prompt}") });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "stop" });
        return axum::Json(json!({ "choices": [choice], "usage": usage })).into_response();
    }
    let event = |data: Value| Bytes::from(format!("data: {data}\n\n"));
    let text = move |text: &str| {
        event(json!({ "choices": [{ "index": 0, "delta": { "content": text } }] }))
    };
    let slow = prompt.contains("slow");
    let last = json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] });
    let mut pieces = vec![text("re: "), text(&prompt), event(last)];
    pieces.push(event(json!({ "choices": [], "usage": usage })));
    pieces.push(Bytes::from("data: [DONE]\n\n"));
    let ended = Ended(Arc::clone(&model.ended));
    let pieces = stream::iter(pieces).then(move |piece| {
        let _ = &ended;
        async move {
            tokio::time::sleep(Duration::from_millis(if slow { 300 } else { 1 })).await;
            Ok::<_, std::io::Error>(piece)
        }
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8")];
    (kind, Body::from_stream(pieces)).into_response()
}

struct Service {
    model: Model,
    url: String,
    client: reqwest::Client,
}

impl Service {
    async fn start() -> Self {
        // The client is built without a provider of its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let model = Model::default();
        let policy = Policy::default().with_threshold(0.9).unwrap().without_verification();
        let cache = MemorySemanticCache::new(Arc::new(Compass::default()), policy);
        let coalescer = Coalescer::new(Arc::new(cache));
        let layer = ChatCacheLayer::new(coalescer, |parts: &http::request::Parts| {
            Tenant::new(parts.headers.get("x-tenant")?.to_str().ok()?).ok()
        });
        let routes = axum::Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(|| async { "models" }))
            .route("/v1/files", post(|body: Bytes| async move { format!("{} bytes", body.len()) }))
            .with_state(model.clone())
            .layer(layer.with_max_body(10_000));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
        Self { model, url, client: reqwest::Client::new() }
    }

    fn request(&self, body: &Value) -> reqwest::RequestBuilder {
        let url = format!("{}/chat/completions", self.url);
        self.client.post(url).header("x-tenant", "acme").json(body)
    }

    async fn send(&self, body: &Value) -> (String, reqwest::Response) {
        source(self.request(body).send().await.unwrap())
    }

    async fn ask(&self, prompt: &str) -> (String, Value) {
        let (source, response) = self.send(&chat(prompt)).await;
        (source, response.json().await.unwrap())
    }
}

fn source(response: reqwest::Response) -> (String, reqwest::Response) {
    let source = response.headers().get("x-inferkit-cache");
    (source.map_or("", |value| value.to_str().unwrap()).to_owned(), response)
}

fn chat(prompt: &str) -> Value {
    json!({ "model": "m", "messages": [{ "role": "user", "content": prompt }] })
}

fn streamed(prompt: &str) -> Value {
    let mut chat = chat(prompt);
    chat["stream"] = json!(true);
    chat["stream_options"] = json!({ "include_usage": true });
    chat
}

/// The text of a streamed answer, its usage, and whether it is complete.
fn read(events: &str) -> (String, Value, bool) {
    let (mut text, mut usage) = (String::new(), Value::Null);
    for data in events.split("\n\n").filter_map(|event| event.strip_prefix("data: ")) {
        if data == "[DONE]" {
            return (text, usage, true);
        }
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!(event["object"], "chat.completion.chunk");
        text += event["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
        usage = event.get("usage").cloned().unwrap_or(usage);
    }
    (text, usage, false)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_generated_once_and_served_whole_or_in_pieces() {
    let service = Service::start().await;
    let (source, answer) = service.ask("1@0").await;
    assert_eq!((source.as_str(), &answer["object"]), ("miss", &json!("chat.completion")));
    assert_eq!(answer["choices"][0]["message"]["content"], "re: 1@0");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
    assert_eq!(answer["usage"]["total_tokens"], 8);
    let (source, response) = service.send(&chat("1@0")).await;
    assert_eq!((source.as_str(), &response.headers()["age"]), ("exact", &"0".parse().unwrap()));
    assert_eq!(response.json::<Value>().await.unwrap()["usage"]["completion_tokens"], 5);
    let (source, response) = service.send(&streamed("1@10")).await;
    assert_eq!(
        (source.as_str(), &response.headers()["content-type"]),
        ("semantic", &"text/event-stream".parse().unwrap())
    );
    let similarity: f64 =
        response.headers()["x-inferkit-similarity"].to_str().unwrap().parse().unwrap();
    assert!((0.98..0.99).contains(&similarity), "{similarity}");
    let (text, usage, complete) = read(&response.text().await.unwrap());
    assert_eq!((text.as_str(), complete), ("re: 1@0", true));
    assert_eq!(usage["prompt_tokens"], 3);
    assert_eq!(service.model.asked(), 1);
    // And the other way round.
    let (source, response) = service.send(&streamed("2@0")).await;
    assert_eq!(source, "miss");
    assert_eq!(read(&response.text().await.unwrap()).0, "re: 2@0");
    assert_eq!(service.ask("2@0").await.0, "exact");
    assert_eq!(service.model.asked(), 2);
    // What comes before the last message belongs to the question.
    let mut other = chat("2@0");
    other["messages"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({ "role": "system", "content": "x" }));
    assert_eq!(service.send(&other).await.0, "miss");
    let mut other = chat("2@0");
    other["temperature"] = json!(0.9);
    assert_eq!(service.send(&other).await.0, "miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_ask_at_once_share_one_generation() {
    let service = Arc::new(Service::start().await);
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let service = Arc::clone(&service);
            tokio::spawn(async move { service.ask("1@0").await })
        })
        .collect();
    let mut sources = Vec::new();
    for asked in asking {
        let (source, answer) = asked.await.unwrap();
        assert_eq!(answer["choices"][0]["message"]["content"], "re: 1@0");
        sources.push(source);
    }
    assert_eq!(service.model.asked(), 1, "{sources:?}");
    assert_eq!(sources.iter().filter(|source| *source == "miss").count(), 1, "{sources:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_for_a_cache_passes_by() {
    let service = Service::start().await;
    let mut tools = chat("1@0");
    tools["tools"] = json!([{ "type": "function", "function": { "name": "f" } }]);
    let mut several = chat("1@0");
    several["n"] = json!(2);
    let mut image = chat("1@0");
    image["messages"][0]["content"] = json!([{ "type": "image_url", "image_url": { "url": "x" } }]);
    for body in [&tools, &several, &image] {
        for _ in 0..2 {
            let (source, response) = service.send(body).await;
            assert_eq!((source.as_str(), response.status()), ("bypass", StatusCode::OK), "{body}");
        }
    }
    assert_eq!(service.model.asked(), 6);
    // Without a tenant too, and tenants do not see each other's.
    let url = format!("{}/chat/completions", service.url);
    let (source, _) = source(service.client.post(&url).json(&chat("1@0")).send().await.unwrap());
    assert_eq!(source, "bypass");
    assert_eq!(service.ask("1@0").await.0, "miss");
    let other = service.client.post(&url).header("x-tenant", "other").json(&chat("1@0"));
    assert_eq!(self::source(other.send().await.unwrap()).0, "miss");
    let models = service.client.get(format!("{}/models", service.url)).send().await.unwrap();
    assert!(!models.headers().contains_key("x-inferkit-cache"));
    assert_eq!(models.text().await.unwrap(), "models");
    let upload = service.client.post(format!("{}/files", service.url)).body("x".repeat(20_000));
    assert_eq!(upload.send().await.unwrap().text().await.unwrap(), "20000 bytes");
    let (_, large) = service.send(&chat(&"x".repeat(20_000))).await;
    assert_eq!(large.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn cache_control_is_honoured() {
    let service = Service::start().await;
    let ask = async |control: &str| {
        let request = service.request(&chat("1@0")).header("cache-control", control);
        source(request.send().await.unwrap()).0
    };
    assert_eq!(ask("no-store").await, "miss");
    assert_eq!(ask("max-age=60").await, "miss", "nothing was stored");
    assert_eq!(ask("public, max-age=60").await, "exact");
    assert_eq!(ask("No-Cache").await, "miss");
    assert_eq!(ask("").await, "exact");
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    assert_eq!(ask("max-age=1").await, "miss", "it is older");
    assert_eq!(ask("max-age=soon").await, "bypass");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_service_refuses_is_passed_on_and_not_stored() {
    let service = Service::start().await;
    for body in [chat("busy"), streamed("busy")] {
        let (source, response) = service.send(&body).await;
        assert_eq!((source.as_str(), response.status()), ("miss", StatusCode::TOO_MANY_REQUESTS));
        assert_eq!(response.headers()["retry-after"], "7");
        assert_eq!(response.json::<Value>().await.unwrap()["error"]["message"], "slow down");
    }
    assert_eq!(service.model.asked(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_in_mid_stream_stores_nothing() {
    let service = Service::start().await;
    let (_, response) = service.send(&streamed("1@0 slow")).await;
    let mut pieces = response.bytes_stream();
    let mut seen = String::new();
    while !seen.contains("re: ") {
        seen += str::from_utf8(&pieces.next().await.unwrap().unwrap()).unwrap();
    }
    drop(pieces);
    let begun = Instant::now();
    while service.model.ended.load(Ordering::Acquire) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "the model goes on for nobody");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (source, response) = service.send(&streamed("1@0 slow")).await;
    assert_eq!(source, "miss");
    assert!(read(&response.text().await.unwrap()).2);
    assert_eq!(service.send(&streamed("1@0 slow")).await.0, "exact");
    assert_eq!(service.model.asked(), 2);
}
