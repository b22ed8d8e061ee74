use std::path::PathBuf;
use std::process::Stdio;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use inferkit_localredis::{Flavor, Server};
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::{Effort, Line, Promise, Result, median_micros, raw_connection};

const KEY: &str = "sk-bench";
const QUESTION: &str = "What is the capital of France?";

/// A question that the gateway's cache knows, beside a bare handler that answers with one `GET`.
pub(super) async fn measure(effort: Effort) -> Result<Vec<Line>> {
    let server = tokio::task::spawn_blocking(|| Server::start(Flavor::Redis)).await??;
    let (gateway, address) = gateway(&server).await?;
    // The provider of TLS is process-wide; another may be there already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let body = json!({
        "model": "offline-answers", "messages": [{ "role": "user", "content": QUESTION }],
    });
    let url = format!("http://{address}/v1/chat/completions");
    let ask = async || -> Result<(String, String)> {
        let response = client.post(&url).bearer_auth(KEY).json(&body).send().await?;
        let cache = response.headers().get("x-inferkit-cache");
        let cache = cache.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        Ok((cache, response.text().await?))
    };
    let (_, answer) = ask().await?;

    let mut raw = raw_connection(&server).await?;
    redis::cmd("SET").arg("bare").arg(&answer).query_async::<()>(&mut raw).await?;
    let routes = Router::new().route("/", post(bare)).with_state(raw);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let bare = format!("http://{}/", listener.local_addr()?);
    let serving = tokio::spawn(async move { axum::serve(listener, routes).await });

    let calls = 2_000 / effort.divisor;
    let line = Promise::at_most("gateway", "exact_hit", 3.5, "us")
        .measure(
            effort,
            async || {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    let (cache, _) = ask().await?;
                    times.push(start.elapsed().as_secs_f64());
                    if cache != "exact" {
                        return Err(format!("the gateway says {cache:?} and not exact").into());
                    }
                }
                Ok(median_micros(times))
            },
            async || {
                let mut times = Vec::with_capacity(calls);
                for _ in 0..calls {
                    let start = Instant::now();
                    let response = client.post(&bare).json(&body).send().await?;
                    let found = response.text().await?;
                    times.push(start.elapsed().as_secs_f64());
                    if found.len() != answer.len() {
                        return Err("the bare handler says something else".into());
                    }
                }
                Ok(median_micros(times))
            },
        )
        .await;
    serving.abort();
    drop(gateway);
    Ok(vec![line?])
}

/// What a service does at the least: it reads the body and answers with a value of Redis.
async fn bare(
    State(mut raw): State<MultiplexedConnection>,
    body: axum::Json<Value>,
) -> std::result::Result<String, axum::http::StatusCode> {
    let failed = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
    if body.get("messages").is_none() {
        return Err(failed);
    }
    redis::cmd("GET").arg("bare").query_async(&mut raw).await.map_err(|_| failed)
}

/// Builds the gateway if need be, and starts it in a process of its own, on `server`.
async fn gateway(server: &Server) -> Result<(Child, String)> {
    // `cargo run` says where its own program is; the gateway is made beside it.
    let built = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--locked", "--release", "-p", "inferkit-examples"])
        .args(["--bin", "gateway"])
        .status()
        .await?;
    if !built.success() {
        return Err("the gateway cannot be built".into());
    }
    let own = std::env::current_exe()?;
    let program: PathBuf = own.with_file_name("gateway");
    let config = tempfile::NamedTempFile::new()?;
    let text = format!(
        "[redis]\nurl = {:?}\n[[keys]]\nkey = {KEY:?}\nname = \"bench\"\ntenant = \"bench\"\n\
         plan = \"enterprise\"\n",
        server.url()
    );
    // So many requests a minute are more than any plan allows: the limits are checked, and nobody is rejected.
    std::fs::write(config.path(), text + "requests_per_minute = 10000000\n")?;
    let mut child = Command::new(&program)
        .args(["--listen", "127.0.0.1:0", "--config"])
        .arg(config.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
    let mut said = String::new();
    while let Some(line) = lines.next_line().await? {
        if let Some(page) = line.strip_prefix("page ") {
            let address =
                page.trim().trim_start_matches("http://").trim_end_matches('/').to_owned();
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((child, address));
        }
        said.push_str(&line);
    }
    Err(format!("the gateway ended: {said}").into())
}
