//! The gateway as its callers meet it: OpenAI's Python package, two gateways on one Redis, a Redis that dies.
//!
//! These tests run the gateway's program; `cargo test --release` makes it as quick as callers have it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use inferkit_localredis::{Deployments, Flavor, Server};
use serde_json::{Value, json};

/// A running gateway; it is stopped when this is dropped.
struct Gateway {
    child: Child,
    url: String,
}

impl Gateway {
    /// Starts one and waits until it is ready.
    fn start(config: &str, arguments: &[&str]) -> Self {
        // For the clients of the tests; it may be set already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_gateway"))
            .args(["--listen", "127.0.0.1:0", "--config"])
            .arg(file.path())
            .args(arguments)
            .env_remove("OPENAI_API_KEY")
            .env_remove("OPENAI_BASE_URL")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        let url = loop {
            let line = lines.next().unwrap_or_else(|| unreachable!("it ended: {seen:?}")).unwrap();
            if let Some(page) = line.strip_prefix("page ") {
                break page.trim().trim_end_matches('/').to_owned();
            }
            seen.push(line);
        };
        // What it says later is of no interest, and must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    fn stop(&mut self) -> Option<i32> {
        let id = self.child.id().to_string();
        let _ = Command::new("kill").arg(id).status();
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "it does not stop");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
        let client = reqwest::Client::new();
        let mut request = client.post(format!("{}{path}", self.url)).json(body);
        if !headers.iter().any(|(name, _)| *name == "authorization") {
            request = request.bearer_auth("sk-demo-enterprise");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let header = |name: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
        };
        let (cache, upstream) = (header("x-inferkit-cache"), header("x-inferkit-upstream"));
        Answer { status, cache, upstream, body: response.text().await.unwrap_or_default() }
    }

    async fn chat(&self, headers: &[(&str, &str)], question: &str) -> Answer {
        let messages = json!([{ "role": "user", "content": question }]);
        self.post("/v1/chat/completions", headers, &json!({ "model": "m", "messages": messages }))
            .await
    }

    async fn get(&self, path: &str) -> Value {
        reqwest::get(format!("{}{path}", self.url)).await.unwrap().json().await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Answer {
    status: StatusCode,
    cache: String,
    upstream: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    fn text(&self) -> String {
        self.json()["choices"][0]["message"]["content"].as_str().unwrap_or_default().to_owned()
    }
}

/// A model that counts what it is asked, and says what it was told.
#[derive(Clone, Default)]
struct Model {
    asked: Arc<AtomicUsize>,
    fails: Arc<AtomicBool>,
    slow: bool,
}

impl Model {
    async fn serve(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes =
            Router::new().route("/v1/chat/completions", post(complete)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}/v1")
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn complete(State(model): State<Model>, body: axum::Json<Value>) -> Response {
    model.asked.fetch_add(1, Ordering::SeqCst);
    if model.fails.load(Ordering::SeqCst) {
        return (StatusCode::INTERNAL_SERVER_ERROR, "out of order").into_response();
    }
    let messages = body["messages"].as_array().unwrap();
    if body.get("tools").is_some() {
        let call = json!({ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{}" } });
        let message = json!({ "role": "assistant", "content": null, "tool_calls": [call] });
        let choice = json!({ "index": 0, "message": message, "finish_reason": "tool_calls" });
        return axum::Json(json!({ "choices": [choice] })).into_response();
    }
    let said = messages.iter().map(|message| message["content"].as_str().unwrap().len());
    let text = format!("{} messages of {} bytes.", messages.len(), said.sum::<usize>());
    let words: Vec<_> = text.split_inclusive(' ').map(str::to_owned).collect();
    let pause = Duration::from_millis(if model.slow { 120 } else { 0 });
    let events = futures_util::stream::unfold(0_usize, move |place| {
        let words = words.clone();
        async move {
            tokio::time::sleep(pause).await;
            let chunk = |delta: Value, finish: Value| {
                let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
                format!("data: {}\n\n", json!({ "choices": [choice] }))
            };
            let event = match place.cmp(&words.len()) {
                std::cmp::Ordering::Less => chunk(json!({ "content": words[place] }), Value::Null),
                std::cmp::Ordering::Equal => {
                    let usage = json!({ "prompt_tokens": 7, "completion_tokens": 5 });
                    let usage = format!(
                        "data: {}\n\ndata: [DONE]\n\n",
                        json!({ "choices": [], "usage": usage })
                    );
                    chunk(json!({}), json!("stop")) + &usage
                }
                std::cmp::Ordering::Greater => return None,
            };
            Some((Ok::<_, std::io::Error>(event), place + 1))
        }
    });
    axum::body::Body::from_stream(events).into_response()
}

/// A configuration with one model `m`, answered by `upstreams`.
fn config(redis: &str, upstreams: &[&str]) -> String {
    let mut text = format!("[redis]\nurl = {redis:?}\n\n[[models]]\nname = \"m\"\n");
    for (place, url) in upstreams.iter().enumerate() {
        text.push_str(&format!(
            "[[models.upstreams]]\nname = \"u{place}\"\nurl = {url:?}\nmodel = \"theirs\"\n"
        ));
    }
    text
}

/// A virtual environment with OpenAI's package, made once.
fn python() -> std::path::PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openai");
    let python = folder.join("bin/python");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    if !folder.join("done").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder));
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet", "openai>=2,<4"]));
        std::fs::write(folder.join("done"), "").unwrap();
    }
    python
}

#[test]
fn the_openai_package_works_unmodified() {
    let mut gateway = Gateway::start("", &[]);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openai_client.py");
    let output = Command::new(python()).arg(script).arg(&gateway.url).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.ends_with("ok\n"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(gateway.stop(), Some(0), "it ends by itself when it is told to");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_on_one_redis_behave_as_one() {
    let server = Server::builder(Flavor::Redis).start().unwrap();
    let model = Model { slow: true, ..Model::default() };
    let config = config(server.url(), &[&model.serve().await]);
    let two = [Gateway::start(&config, &[]), Gateway::start(&config, &[])];

    // One generation for callers of both, and a hit for both afterwards.
    let at_once = (0..6).map(|place| two[place % 2].chat(&[], "What is a monad?"));
    let answers = futures_util::future::join_all(at_once).await;
    assert!(answers.iter().all(|answer| answer.text() == "1 messages of 16 bytes."));
    assert_eq!(model.asked(), 1);
    for gateway in &two {
        assert_eq!(gateway.chat(&[], "What is a monad?").await.cache, "exact");
    }

    // A conversation goes on at the other.
    let session = [("x-session-id", "s")];
    two[0].chat(&session, "My name is Ann.").await;
    let second = two[1].chat(&session, "What is my name?").await;
    assert!(second.text().starts_with("3 messages"), "{}", second.text());
    let status = two[0].get("/status").await;
    let sessions = status["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!(sessions[0]["messages"], 4);

    // 60 requests a minute are 60 over both.
    let free = [("authorization", "Bearer sk-demo-free")];
    let mut admitted = 0;
    let mut limited = None;
    for place in 0..90 {
        let answer = two[place % 2].chat(&free, "What is a monad?").await;
        match answer.status {
            StatusCode::OK => admitted += 1,
            _ => limited = Some(answer),
        }
    }
    assert!((60..=75).contains(&admitted), "{admitted}");
    let limited = limited.unwrap();
    assert_eq!(limited.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(limited.json()["error"]["code"], "rate_limit_exceeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_upstream_is_left_and_what_is_no_text_goes_past_the_cache() {
    let server = Server::shared(Flavor::Redis).unwrap();
    let (bad, good) = (Model::default(), Model::default());
    bad.fails.store(true, Ordering::SeqCst);
    let config = config(server.url(), &[&bad.serve().await, &good.serve().await]);
    let namespace = format!("namespace = {:?}\n", inferkit_localredis::unique_prefix());
    let gateway = Gateway::start(&(namespace + &config), &[]);
    let answer = gateway.chat(&[], "Why?").await;
    assert_eq!(
        (answer.status, answer.upstream.as_str()),
        (StatusCode::OK, "u1"),
        "{}",
        answer.body
    );
    assert_eq!(bad.asked(), 1);

    let tools = json!({
        "model": "m", "messages": [{ "role": "user", "content": "Why?" }],
        "tools": [{ "type": "function", "function": { "name": "f" } }],
    });
    bad.fails.store(false, Ordering::SeqCst);
    for _ in 0..2 {
        let answer = gateway.post("/v1/chat/completions", &[], &tools).await;
        assert_eq!(answer.cache, "bypass");
        assert_eq!(answer.json()["choices"][0]["finish_reason"], "tool_calls");
    }
    good.fails.store(true, Ordering::SeqCst);
    bad.fails.store(true, Ordering::SeqCst);
    let answer = gateway.chat(&[], "Why not?").await;
    assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
    assert!(answer.json()["detail"].as_str().unwrap().contains("500"), "{}", answer.body);
    let gpu = gateway.get("/status").await["gpu"].clone();
    assert_eq!(gpu["used"], 0, "no slot is left behind");
    let wrong = gateway.post("/v1/chat/completions", &[], &json!({ "model": "m" })).await;
    assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_goes_away_in_mid_stream_stores_nothing_and_frees_its_slot() {
    use futures_util::StreamExt as _;
    let server = Server::shared(Flavor::Redis).unwrap();
    let model = Model { slow: true, ..Model::default() };
    let config = config(server.url(), &[&model.serve().await]);
    let namespace = format!("namespace = {:?}\n", inferkit_localredis::unique_prefix());
    let gateway = Gateway::start(&(namespace + &config), &[]);
    let body = json!({
        "model": "m", "stream": true, "messages": [{ "role": "user", "content": "Tell me more" }],
    });
    let request = reqwest::Client::new().post(format!("{}/v1/chat/completions", gateway.url));
    let request = request.bearer_auth("sk-demo-pro").header("x-session-id", "cut").json(&body);
    let response = request.send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut pieces = response.bytes_stream();
    let first = pieces.next().await.unwrap().unwrap();
    assert!(first.starts_with(b"data: "));
    drop(pieces);
    let begun = Instant::now();
    loop {
        let status = gateway.get("/status").await;
        if status["gpu"]["used"] == 0 && status["totals"]["requests"] == 1 {
            assert_eq!(status["sessions"][0]["messages"], 0, "the turn was not finished");
            assert_eq!(status["totals"]["outcomes"], json!({ "gone": 1 }));
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let again = gateway.chat(&[], "Tell me more").await;
    assert_eq!((again.cache.as_str(), model.asked()), ("miss", 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_degrades_and_heals_and_loses_no_acknowledged_turn() {
    let server =
        Server::builder(Flavor::Redis).durable().config("appendfsync", "always").start().unwrap();
    let model = Model::default();
    let config = config(server.url(), &[&model.serve().await]);
    let gateway = Arc::new(Gateway::start(&config, &[]));
    let stop = Arc::new(AtomicBool::new(false));
    let (mut writers, kept) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
    for writer in 0..4 {
        let (gateway, stop, kept) = (Arc::clone(&gateway), Arc::clone(&stop), Arc::clone(&kept));
        writers.push(tokio::spawn(async move {
            let session = format!("s{writer}");
            let mut acknowledged = Vec::new();
            let mut turn = 0;
            while !stop.load(Ordering::SeqCst) {
                turn += 1;
                let said = format!("turn {turn} of {writer}");
                let id = format!("{writer}-{turn}");
                let headers = [("x-session-id", session.as_str()), ("idempotency-key", &id)];
                if gateway.chat(&headers, &said).await.status == StatusCode::OK {
                    acknowledged.push(said);
                    kept.fetch_add(1, Ordering::SeqCst);
                }
            }
            (session, acknowledged)
        }));
    }
    let until = |more: usize| {
        let (kept, from) = (Arc::clone(&kept), kept.load(Ordering::SeqCst));
        async move {
            let begun = Instant::now();
            while kept.load(Ordering::SeqCst) < from + more {
                assert!(begun.elapsed() < Duration::from_secs(60), "no turn is kept any more");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    until(40).await;
    server.kill().unwrap();
    // Without Redis: no cache, local limits, and no session, which says so.
    let answer = gateway.chat(&[], "Are you there?").await;
    assert_eq!((answer.status, answer.cache.as_str()), (StatusCode::OK, "miss"), "{}", answer.body);
    let refused = gateway.chat(&[("x-session-id", "s0")], "And my session?").await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.json()["error"]["code"], "session_unavailable");
    assert_eq!(gateway.get("/ready").await["status"], "degraded");
    server.restart().unwrap();
    until(40).await;
    stop.store(true, Ordering::SeqCst);
    assert_eq!(gateway.get("/ready").await["status"], "ready");
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await.unwrap());
    }

    use inferkit::chatsession::{Config, Range, RedisSessionStore, SessionId, SessionStore as _};
    use inferkit::core::{Pool, keys::Namespace};
    let driver = Pool::connect(server.url()).await.unwrap().into_driver();
    let config = Config::new().with_namespace(Namespace::new("gateway").unwrap());
    let store = RedisSessionStore::new(driver, config).unwrap();
    for (session, acknowledged) in acknowledged {
        let id = SessionId::new(format!("demo/{session}")).unwrap();
        let entries = store.read(&id, Range::All).await.unwrap().unwrap();
        let texts: Vec<_> = entries.iter().map(|entry| entry.message.content.to_text()).collect();
        assert!(!acknowledged.is_empty());
        for said in &acknowledged {
            assert_eq!(texts.iter().filter(|text| *text == said).count(), 1, "{session}: {said}");
        }
        // A turn is whole: what was said, and its answer right after it.
        assert!(texts.len().is_multiple_of(2));
        assert!(
            texts
                .chunks(2)
                .all(|turn| turn[0].starts_with("turn ") && turn[1].contains("messages"))
        );
    }
}

/// The five deployments apart: what is in each, and that the gateway needs no other.
#[tokio::test(flavor = "multi_thread")]
async fn each_deployment_holds_its_own() {
    let five = Deployments::start().unwrap();
    let url = |name: &str| five.get(name).unwrap().url().to_owned();
    let mut config = format!("[redis]\nurl = {:?}\n", url("coordination"));
    for name in ["caches", "features", "search", "events"] {
        config.push_str(&format!("{name} = {:?}\n", url(name)));
    }
    let gateway = Gateway::start(&config, &["--load", "60"]);
    let begun = Instant::now();
    while gateway.get("/status").await["totals"]["requests"].as_u64().unwrap() < 60 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (name, families) in [
        ("caches", &["cache", "emb", "rec", "lease"][..]),
        ("features", &["feature"]),
        ("search", &["item"]),
        ("coordination", &["rl", "chat", "ab"]),
        ("events", &["ml"]),
    ] {
        let keys = five.get(name).unwrap().command(&["KEYS", "*"]).unwrap();
        let mut seen: Vec<_> = keys
            .split_whitespace()
            .filter_map(|key| key.split(':').nth(1))
            .filter(|family| families.contains(family) || *family != "idx")
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert!(!seen.is_empty(), "{name}: {keys}");
        assert!(seen.iter().all(|family| families.contains(family)), "{name}: {seen:?}");
    }
}

/// Indexes are made once by somebody who may; then a user who may not suffices.
#[tokio::test(flavor = "multi_thread")]
async fn a_user_with_the_least_it_needs_suffices() {
    use inferkit::core::{DriverExt as _, Pool, keys::Namespace};
    use inferkit::users::{self, User};
    let server = Server::builder(Flavor::Redis).start().unwrap();
    let model = Model::default();
    let upstream = model.serve().await;
    let mut first = Gateway::start(&config(server.url(), &[&upstream]), &[]);
    assert_eq!(first.stop(), Some(0));
    let crates = users::runtime(&Namespace::new("gateway").unwrap());
    let user = User::joined("gateway", &crates).with_index("gateway:item:", "gateway:item:idx");
    let admin = Pool::connect(server.url()).await.unwrap();
    admin.query::<()>(user.to_cmd("secret")).await.unwrap();
    let url = server.url().replace("redis://", "redis://gateway:secret@");
    let gateway = Gateway::start(&config(&url, &[&upstream]), &[]);
    let session = [("x-session-id", "s")];
    for (headers, question, cache) in
        [(&[][..], "Why?", "miss"), (&[], "Why?", "exact"), (&session, "And now?", "miss")]
    {
        let answer = gateway.chat(headers, question).await;
        assert_eq!(
            (answer.status, answer.cache.as_str()),
            (StatusCode::OK, cache),
            "{}",
            answer.body
        );
    }
    let asked = json!({ "user": "user-7" });
    for tier in ["computed", "exact"] {
        let answer = gateway.post("/v1/recommend", &[], &asked).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert_eq!(answer.json()["tier"], tier, "{}", answer.body);
        assert_eq!(answer.json()["items"].as_array().unwrap().len(), 10);
    }
    let begun = Instant::now();
    loop {
        let status = gateway.get("/status").await;
        let events = &status["events"];
        if events["length"] == 5
            && events["groups"][0]["lag"] == 0
            && status["totals"]["lost_events"] == 0
        {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
