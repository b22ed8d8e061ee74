//! The other endpoints: embeddings, recommendations, health, metrics, and what the page reads.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{StreamExt as _, stream};
use inferkit::chatsession::{SessionStore as _, UserId};
use inferkit::core::Deployment;
use inferkit::embcache::Embedder as _;
use inferkit::featurestore::{Entity, FeatureStore as _, Value};
use inferkit::mlevents::EventBus as _;
use inferkit::modelserve::{ModelRouter as _, Outcomes as _};
use inferkit::ratelimit::{Demand, Unit, headers};
use inferkit_examples::{Result, chain};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value as Json, json};
use tokio_stream::wrappers::BroadcastStream;

use crate::app::App;
use crate::chat::{self, Call, finish};
use crate::limits::Limits;
use crate::live::Served;
use crate::problem::{self, Problem};
use crate::recommend::Asked;

/// The largest body that is read.
const LONGEST_BODY: usize = 8 << 20;
/// The most texts in one call of `/v1/embeddings`, as OpenAI has it.
const MOST_TEXTS: usize = 2048;

/// Makes the routes.
pub(crate) fn routes(app: Arc<App>, metrics: PrometheusHandle) -> Router {
    let mut routes = Router::new()
        .route("/v1/chat/completions", post(chat::chat))
        .route("/v1/embeddings", post(embeddings))
        .route("/v1/recommend", post(recommend))
        .route("/v1/models", get(chat::models))
        .route("/health", get(|| async { axum::Json(json!({ "status": "ok" })) }))
        .route("/ready", get(ready))
        .route("/metrics", get(move || std::future::ready(metrics.render())));
    if app.config.dashboard {
        let text = |kind: &'static str, body: &'static str| {
            get(move || std::future::ready(([(header::CONTENT_TYPE, kind)], body)))
        };
        routes = routes
            .route("/", get(|| async { Html(include_str!("web/index.html")) }))
            .route("/app.js", text("text/javascript", include_str!("web/app.js")))
            .route("/style.css", text("text/css", include_str!("web/style.css")))
            .route("/live", get(follow))
            .route("/status", get(status));
    }
    routes
        .layer(axum::extract::DefaultBodyLimit::max(LONGEST_BODY))
        .fallback(|| async {
            let detail = "there is no such path";
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail).into_response_for("")
        })
        .with_state(app)
}

#[derive(Deserialize)]
struct Embed {
    model: String,
    input: Texts,
    #[serde(default)]
    encoding_format: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

async fn embeddings(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let (call, report) = match Call::admit(&app, &headers, "embeddings").await {
        Ok(admitted) => admitted,
        Err((request, problem)) => return finish(problem.into_response_for(&request), &request),
    };
    let mut served = Served { path: "embeddings".to_owned(), ..Served::default() };
    let result = embed(&call, &body, &mut served).await;
    let mut response = respond(&call, served, result);
    problem::insert(response.headers_mut(), headers::state(&report));
    response
}

/// Notes a request that is over, and makes its answer.
fn respond(call: &Call, mut served: Served, result: Result<Json, Problem>) -> Response {
    let response = match result {
        Ok(body) => axum::Json(body).into_response(),
        Err(problem) => {
            served.status = problem.status.as_u16();
            let limited = problem.code == "rate_limit_exceeded";
            served.outcome = if limited { "limited" } else { "failed" }.to_owned();
            problem.into_response_for(&call.request)
        }
    };
    call.note(served);
    finish(response, &call.request)
}

async fn embed(call: &Call, body: &[u8], served: &mut Served) -> Result<Json, Problem> {
    let app = &call.app;
    let asked: Embed = serde_json::from_slice(body)
        .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))?;
    served.model = asked.model.clone();
    if asked.model != app.minilm.model() {
        let detail =
            format!("there is no model {:?}; there is {}", asked.model, app.minilm.model());
        return Err(Problem::new(StatusCode::NOT_FOUND, "model_not_found", detail));
    }
    let texts = match asked.input {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
    };
    if texts.is_empty() || texts.iter().any(String::is_empty) || MOST_TEXTS < texts.len() {
        let detail = format!("input must be 1 to {MOST_TEXTS} texts, none of them empty");
        return Err(Problem::bad_request(detail));
    }
    let tokens: usize = texts.iter().filter_map(|text| app.minilm.count_tokens(text).ok()).sum();
    let tokens = tokens as u64;
    let policy = app.limits.of_work(&call.key, &asked.model, None);
    let policy = policy.map_err(|error| Problem::bad_request(error.to_string()))?;
    let demand = Demand::new().with(Unit::Requests, 1).with_tokens(tokens);
    let admitted = app.limits.admit(&policy, &demand).await?;
    let views: Vec<&str> = texts.iter().map(String::as_str).collect();
    let vectors = app.embedder.embed_many(&views).await;
    app.limits.settle(&admitted, tokens).await;
    let vectors = vectors.map_err(|error| {
        Problem::new(StatusCode::BAD_GATEWAY, "embedding_failed", chain(&error))
    })?;
    // Some texts may have come from the cache and others not.
    served.outcome = "embedded".to_owned();
    served.tokens = tokens;
    let base64 = asked.encoding_format.as_deref() == Some("base64");
    let data: Vec<_> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let embedding = match base64 {
                true => {
                    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
                    json!(STANDARD.encode(bytes))
                }
                false => json!(vector),
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    Ok(json!({
        "object": "list", "model": asked.model, "data": data,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    }))
}

async fn recommend(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let (call, report) = match Call::admit(&app, &headers, "recommend").await {
        Ok(admitted) => admitted,
        Err((request, problem)) => return finish(problem.into_response_for(&request), &request),
    };
    let mut served = Served { path: "recommend".to_owned(), ..Served::default() };
    let result = async {
        let asked: Asked = serde_json::from_slice(&body)
            .map_err(|error| Problem::bad_request(format!("the body cannot be read: {error}")))?;
        let made = app.recommender.recommend(&asked).await?;
        made.tier.clone_into(&mut served.outcome);
        served.model.clone_from(&made.model);
        served.prompt = app.config.dashboard.then(|| format!("for {}", asked.user));
        Ok(json!(made))
    };
    let result = result.await;
    let mut response = respond(&call, served, result);
    problem::insert(response.headers_mut(), headers::state(&report));
    response
}

/// Whether requests are answered: yes while there is a gateway, with what it lacks.
///
/// Without Redis answers are generated and limited locally, so a gateway without it is degraded and not gone.
async fn ready(State(app): State<Arc<App>>) -> Response {
    let health = app.health().await;
    let whole = health.iter().all(|(_, reachable)| *reachable);
    let places: serde_json::Map<String, Json> =
        health.iter().map(|(one, reachable)| (one.name().to_owned(), json!(reachable))).collect();
    let status = if whole { "ready" } else { "degraded" };
    axum::Json(json!({ "status": status, "redis": places })).into_response()
}

/// The requests as they end, as server-sent events.
async fn follow(State(app): State<Arc<App>>) -> Response {
    let (last, next) = app.live.follow();
    let next = BroadcastStream::new(next).filter_map(|served| std::future::ready(served.ok()));
    let events = stream::iter(last)
        .chain(next)
        .map(|served: Served| Ok::<_, Infallible>(format!("data: {}\n\n", json!(served))));
    let mut response = Response::new(Body::from_stream(events));
    let sse = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, sse);
    response
}

/// What the page shows besides single requests; whatever Redis does not answer is null.
async fn status(State(app): State<Arc<App>>) -> axum::Json<Json> {
    let health = app.health().await;
    let up = |one: Deployment| health.iter().any(|(known, up)| *known == one && *up);
    let (coordination, events) = (up(Deployment::Coordination), up(Deployment::Events));
    let mut callers = Vec::new();
    let mut sessions = Vec::new();
    let mut gpu = Json::Null;
    let mut arms = Vec::new();
    if coordination {
        for key in &app.config.keys {
            callers.push(caller(&app, key).await);
            if let Ok(user) = UserId::new(format!("{}/{}", key.tenant, key.name))
                && let Ok(found) = app.sessions.sessions(&user, 5).await
            {
                sessions.extend(found.into_iter().map(|session| {
                    let last = session.last.map(|id| id.millis());
                    let name = session.id.as_str().split_once('/').map(|(_, name)| name.to_owned());
                    json!({ "name": name, "caller": key.name, "messages": session.messages,
                            "tokens": session.tokens, "last": last })
                }));
            }
        }
        gpu = slots(&app).await;
        arms = experiments(&app).await;
    }
    let bus = if events { log(&app).await } else { Json::Null };
    let places: serde_json::Map<String, Json> =
        health.iter().map(|(one, up)| (one.name().to_owned(), json!(up))).collect();
    axum::Json(json!({
        "uptime": app.started.elapsed().as_secs(), "totals": app.live.totals(),
        "redis": places, "callers": callers, "sessions": sessions, "gpu": gpu,
        "experiments": arms, "events": bus, "models": app.models.keys().collect::<Vec<_>>(),
    }))
}

/// What a caller has left, and what the consumer of the events counted.
async fn caller(app: &App, key: &crate::config::Key) -> Json {
    let mut tiers = Vec::new();
    let model = app.models.keys().next().cloned().unwrap_or_default();
    let policies = [Limits::of_requests(key), app.limits.of_work(key, &model, None)];
    for policy in policies.iter().flatten() {
        let Some(report) = app.limits.look(policy).await else { continue };
        for (tier, state) in report.tiers().filter(|(tier, _)| tier.name() != "gpu") {
            let most = tier.limit().burst();
            tiers.push(json!({ "tier": tier.name(), "left": state.remaining, "of": most }));
        }
    }
    let records = app.usage.store.records(&app.usage.group, &[Entity::new(&*key.name)]).await;
    let counted = records.ok().and_then(|mut records| records.pop().flatten()).map(|record| {
        let number = |value: Option<&Value>| match value {
            Some(Value::Int(value)) => *value,
            _ => 0,
        };
        let counts = record.iter().map(|(name, value)| (name.to_owned(), json!(number(value))));
        counts.collect::<serde_json::Map<_, _>>()
    });
    json!({ "name": key.name, "plan": key.plan, "tenant": key.tenant, "tiers": tiers, "counted": counted })
}

async fn slots(app: &App) -> Json {
    let Ok(policy) = app.limits.of_gpu() else { return Json::Null };
    let Some(report) = app.limits.look(&policy).await else { return Json::Null };
    let slots = report.tiers().next().map(|(tier, state)| {
        let most = tier.limit().burst();
        json!({ "used": most.saturating_sub(state.remaining), "of": most })
    });
    slots.unwrap_or_default()
}

async fn experiments(app: &App) -> Vec<Json> {
    let snapshot = app.router.snapshot();
    let mut found = Vec::new();
    for experiment in snapshot.experiments() {
        let counted = app.counted.read(experiment.name(), experiment.revision()).await;
        let arms: Vec<_> = experiment
            .arms()
            .iter()
            .map(|arm| {
                let tally = counted.as_ref().ok().and_then(|counted| counted.arms.get(&arm.name));
                json!({
                    "name": arm.name, "share": experiment.weight(&arm.name),
                    "calls": tally.map_or(0, inferkit::modelserve::Tally::calls),
                    "errors": tally.map_or(0.0, inferkit::modelserve::Tally::error_rate),
                })
            })
            .collect();
        found.push(json!({ "name": experiment.name(), "arms": arms }));
    }
    found
}

/// How many events there are, and how far the groups are behind.
async fn log(app: &App) -> Json {
    let Ok(partitions) = app.bus.status(&app.topic).await else { return Json::Null };
    let length: u64 = partitions.iter().map(|partition| partition.length).sum();
    let groups: Vec<_> = partitions
        .iter()
        .flat_map(|partition| &partition.groups)
        .map(|(name, group)| json!({ "name": name, "lag": group.lag, "pending": group.pending }))
        .collect();
    json!({ "topic": app.topic.name(), "length": length, "groups": groups })
}
