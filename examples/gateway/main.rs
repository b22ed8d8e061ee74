//! An OpenAI-compatible gateway made of the whole family: limits, semantic cache, sessions, features, routing, events.
//!
//! `cargo run --release -p inferkit-examples --bin gateway -- [--config FILE] [--listen ADDRESS] [--load N]`
//!
//! Without a file it starts a Redis of its own, has three callers, and answers from shipped answers; with
//! `OPENAI_API_KEY` or `OPENAI_BASE_URL` it asks that model. `INFERKIT_REDIS_URL` names a running server.
//! `--load N` sends N requests to itself, so that the page shows life.
//! See `gateway/README.md`.

#![expect(clippy::print_stdout, reason = "a terminal program talks to its user")]

mod api;
mod app;
mod chat;
mod config;
mod limits;
mod live;
mod load;
mod openai;
mod problem;
mod recommend;
mod turn;
mod upstream;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use inferkit_examples::{Result, chain};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use app::App;
use config::Config;

const USAGE: &str = "usage: gateway [--config FILE] [--listen ADDRESS] [--load N]";

#[derive(Debug, Default)]
struct Arguments {
    config: Option<PathBuf>,
    listen: Option<SocketAddr>,
    load: usize,
}

impl Arguments {
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Option<Self>> {
        let mut parsed = Self::default();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            if argument == "--help" || argument == "-h" {
                return Ok(None);
            }
            let value =
                arguments.next().ok_or_else(|| format!("{argument} takes a value; {USAGE}"))?;
            match argument.as_str() {
                "--config" => parsed.config = Some(PathBuf::from(value)),
                "--listen" => {
                    parsed.listen =
                        Some(value.parse().map_err(|error| format!("--listen {value}: {error}"))?);
                }
                "--load" => {
                    parsed.load =
                        value.parse().map_err(|error| format!("--load {value}: {error}"))?;
                }
                other => return Err(format!("there is no {other}; {USAGE}").into()),
            }
        }
        Ok(Some(parsed))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    tracing_subscriber::fmt().with_env_filter(filter).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("gateway: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<()> {
    let Some(arguments) = Arguments::parse(std::env::args().skip(1))? else {
        println!("{USAGE}");
        return Ok(());
    };
    let start = Instant::now();
    // The provider of TLS is process-wide, and this is the process.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::load(arguments.config.as_deref())?;
    config.listen = arguments.listen.unwrap_or(config.listen);
    // Before anything is started, so that a port that is taken is told at once.
    let listener = TcpListener::bind(config.listen).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another with --listen", config.listen)
    })?;
    let address = listener.local_addr()?;
    println!("starting  Redis, the sentence model and the gateway ...");
    let metrics = PrometheusBuilder::new().install_recorder()?;
    let app = App::start(config).await?;
    announce(&app, address, start);
    let routes = api::routes(Arc::clone(&app), metrics);
    if 0 < arguments.load {
        let app = Arc::clone(&app);
        tokio::spawn(async move {
            match load::load(&app.config, address, arguments.load).await {
                Ok(answered) => println!("load      {answered} of {} answered", arguments.load),
                Err(error) => println!("load      failed: {error}"),
            }
        });
    }
    // Streams that are on their way end by themselves; those of the page never do, and are cut.
    let serve = axum::serve(listener, routes).with_graceful_shutdown(stopped());
    let cut = async {
        stopped().await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    };
    tokio::select! {
        served = async { serve.await } => served?,
        () = cut => {}
    }
    println!("stopped");
    Ok(())
}

/// Ctrl-C, or the signal by which services are stopped.
async fn stopped() {
    let terminated = async {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn announce(app: &App, address: SocketAddr, start: Instant) {
    println!("ready     after {:.1} s", start.elapsed().as_secs_f64());
    for (name, model) in &app.models {
        match &model.upstreams[..] {
            [(_, upstream::Upstream::Offline(_))] => println!(
                "model     {name}: no model answers here, but shipped answers that are searched by vector;\n          \
                 set OPENAI_API_KEY or OPENAI_BASE_URL to ask a model"
            ),
            upstreams => {
                let names: Vec<_> = upstreams.iter().map(|(name, _)| name.as_str()).collect();
                println!("model     {name}: {}", names.join(", "));
            }
        }
    }
    if app.config.dashboard {
        println!("page      http://{address}/");
    }
    let Some(key) = app.config.keys.first() else { return };
    let model = app.models.keys().next().map(String::as_str).unwrap_or_default();
    // The keys of the demonstration are no secret; those of a file are not printed.
    let shown = if key.key.0.starts_with("sk-demo") { key.key.0.as_str() } else { "$KEY" };
    println!(
        "try       curl -i http://{address}/v1/chat/completions -H 'authorization: Bearer {shown}' \\\n          \
         -H 'content-type: application/json' \\\n          \
         -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"What is the capital of France?\"}}]}}'"
    );
}
