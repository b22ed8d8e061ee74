//! `POST /v1/chat/completions`: limits, cache, model, cache, session, in this order.

use std::convert::Infallible;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use inferkit::modelserve::{Decision, ModelRouterExt as _, Subject};
use inferkit::ratelimit::{Demand, Permit, Policy, Report, Unit, headers};
use inferkit::semcache::openai::{ChatWriter, event};
use inferkit::semcache::{AnswerStream, CacheControl, Chunk, Finish, Request, Source};
use inferkit_examples::{Result, chain};
use serde_json::json;

use crate::app::{App, Model};
use crate::config::Key;
use crate::limits::Limits;
use crate::live::{self, Served};
use crate::openai::Chat;
use crate::problem::{self, Problem};
use crate::turn::{SESSION, Turn};
use crate::upstream::Pieces;

const REQUEST_ID: &str = "x-request-id";
/// What the page shows of a question.
const SHOWN: usize = 90;
/// What is noted of a caller who went away: nothing defines it, and proxies use it.
const GONE: u16 = 499;

/// A caller and one request of it.
pub(crate) struct Call {
    pub(crate) app: Arc<App>,
    pub(crate) key: Key,
    pub(crate) request: String,
    start: Instant,
}

impl Call {
    /// Finds the caller, and takes the request's tier of the limits.
    pub(crate) async fn admit(
        app: &Arc<App>,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<(Self, Report), (String, Problem)> {
        let request = headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .filter(|id| !id.is_empty() && id.len() <= 64)
            .map_or_else(|| uuid::Uuid::new_v4().simple().to_string(), str::to_owned);
        let start = Instant::now();
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer "));
        let Some(key) = given.and_then(|given| app.caller(given.trim())) else {
            let detail = "send a known key as `Authorization: Bearer ...`";
            let problem = Problem::new(StatusCode::UNAUTHORIZED, "invalid_api_key", detail);
            return Err((request, problem));
        };
        let call = Self { app: Arc::clone(app), key: key.clone(), request, start };
        let admitted = async {
            let policy = Limits::of_requests(key).map_err(wrong)?;
            app.limits.admit(&policy, &Demand::new().with(Unit::Requests, 1)).await
        };
        match admitted.await {
            // Nothing is to be settled: a request is a request.
            Ok(admitted) => Ok((call, admitted.report().clone())),
            Err(problem) => {
                let outcome =
                    if problem.code == "rate_limit_exceeded" { "limited" } else { "failed" };
                let (path, status) = (path.to_owned(), problem.status.as_u16());
                call.note(Served {
                    outcome: outcome.to_owned(),
                    path,
                    status,
                    ..Served::default()
                });
                Err((call.request, problem))
            }
        }
    }

    /// Notes the request, which is over.
    pub(crate) fn note(&self, served: Served) {
        let status = if served.status == 0 { 200 } else { served.status };
        self.app.live.note(Served {
            at: live::now(),
            request: self.request.clone(),
            caller: self.key.name.clone(),
            plan: self.key.plan.clone(),
            millis: (self.start.elapsed().as_secs_f64() * 1e5).round() / 100.0,
            status,
            ..served
        });
    }
}

fn wrong(error: inferkit_examples::Error) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "limits_failed", error.to_string())
}

/// What was found out while an answer was generated.
#[derive(Debug, Default)]
struct Generated {
    upstream: OnceLock<String>,
    limits: OnceLock<Report>,
}

/// The work that is done if the cache has no answer.
struct Work {
    app: Arc<App>,
    chat: Chat,
    policy: Policy,
    caller: String,
    generated: Arc<Generated>,
}

pub(crate) async fn chat(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Response {
    let (call, report) = match Call::admit(&app, &headers, "chat").await {
        Ok(admitted) => admitted,
        Err((request, problem)) => return finish(problem.into_response_for(&request), &request),
    };
    let request = call.request.clone();
    let mut response = match answer(call, &headers, &body).await {
        Ok(response) => response,
        Err(problem) => problem.into_response_for(&request),
    };
    if !response.headers().contains_key("ratelimit") {
        problem::insert(response.headers_mut(), headers::state(&report));
    }
    finish(response, &request)
}

pub(crate) fn finish(mut response: Response, request: &str) -> Response {
    problem::insert(response.headers_mut(), [(REQUEST_ID, request.to_owned())]);
    response
}

async fn answer(call: Call, headers: &HeaderMap, body: &[u8]) -> Result<Response, Problem> {
    let mut served =
        Served { path: "chat".to_owned(), outcome: "failed".to_owned(), ..Served::default() };
    let result = answer_noting(&call, headers, body, &mut served).await;
    match result {
        Ok(Answering::Done(response)) => {
            call.note(served);
            Ok(response)
        }
        Ok(Answering::Streams(streaming)) => Ok(streaming.into_response(call, served)),
        Err(problem) => {
            served.status = problem.status.as_u16();
            if problem.code == "rate_limit_exceeded" {
                served.outcome = "limited".to_owned();
            }
            call.note(served);
            Err(problem)
        }
    }
}

enum Answering {
    Done(Response),
    Streams(Box<Streaming>),
}

async fn answer_noting(
    call: &Call,
    headers: &HeaderMap,
    body: &[u8],
    served: &mut Served,
) -> Result<Answering, Problem> {
    let app = &call.app;
    let mut chat = Chat::parse(body)?;
    served.model = chat.model.clone();
    let model = app.models.get(&chat.model).ok_or_else(|| {
        let known: Vec<_> = app.models.keys().map(String::as_str).collect();
        let detail = format!("there is no model {:?}; there is {}", chat.model, known.join(", "));
        Problem::new(StatusCode::NOT_FOUND, "model_not_found", detail)
    })?;
    if app.config.dashboard {
        served.prompt = Some(chat.question().chars().take(SHOWN).collect());
    }
    let beyond = chat.beyond_cache();
    if let (Some(what), true) = (beyond, headers.contains_key(SESSION)) {
        let detail = format!("a session keeps texts only, and this request has {what}");
        return Err(Problem::bad_request(detail));
    }
    let turn = Turn::begin(app, &call.key, headers, &call.request, &mut chat).await?;
    served.session = turn.as_ref().map(|turn| turn.name.clone());
    let policy = app.limits.of_work(&call.key, &chat.model, model.requests_per_minute);
    let work = Work {
        app: Arc::clone(app),
        chat,
        policy: policy.map_err(wrong)?,
        caller: call.key.name.clone(),
        generated: Arc::default(),
    };
    if let Some(what) = beyond {
        served.outcome = "bypass".to_owned();
        return work.pass_on(what).await.map(Answering::Done);
    }

    let request = work.chat.to_request(&call.key.tenant, control(headers)?);
    let request = request.map_err(|error| Problem::bad_request(chain(&error)))?;
    let writer = ChatWriter::new(format!("chatcmpl-{}", call.request), &*work.chat.model);
    let (wants_stream, wants_usage) = (work.chat.stream, work.chat.wants_usage());
    let prompt_bytes = work.chat.text_bytes();
    let generated = Arc::clone(&work.generated);
    let mut answer = app.coalescer.get_or_stream(request.clone(), move || work.generate());
    // Nothing is answered before the first piece: until then a failure has its own status.
    let first = match answer.next().await {
        Some(first) => first?,
        None => return Err(Problem::unavailable("upstream_failed", "the model said nothing")),
    };
    let streaming = Streaming {
        writer,
        request,
        answer,
        first: Some(first),
        generated,
        turn,
        wants_usage,
        prompt_bytes,
        price: model.price,
        text: String::new(),
    };
    if wants_stream {
        return Ok(Answering::Streams(Box::new(streaming)));
    }
    streaming.collect(app, served).await.map(Answering::Done)
}

/// Reads what the caller allows the cache.
fn control(headers: &HeaderMap) -> Result<CacheControl, Problem> {
    let text = headers.get(header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
    let text = text.unwrap_or_default();
    let wrong = || format!("cache-control: {text:?}: max-age is no number of seconds");
    CacheControl::from_header(text).ok_or_else(|| Problem::bad_request(wrong()))
}

impl Work {
    /// Takes tokens, the model's share and a slot; asks an upstream; charges what was used.
    async fn generate(self) -> Result<Pieces, Problem> {
        let Self { app, chat, policy, caller, generated } = self;
        // The truth is charged afterwards.
        let prompt = tokens(chat.text_bytes());
        let expected = app.estimator.estimate(&chat.model, prompt, chat.max_tokens());
        let demand =
            Demand::new().with(Unit::Requests, 1).with_tokens(prompt.saturating_add(expected));
        let admitted = app.limits.admit(&policy, &demand).await?;
        let _ = generated.limits.set(admitted.report().clone());
        let asked = ask(&app, &chat, &caller, &generated).await;
        let (pieces, decision) = match asked {
            Ok(asked) => asked,
            Err(problem) => {
                // Nothing was used.
                app.limits.settle(&admitted, 0).await;
                return Err(problem);
            }
        };
        let settling = Settling { app, model: chat.model, admitted, decision, prompt, said: 0 };
        let start = Instant::now();
        let pieces =
            stream::unfold((pieces, Some(settling)), move |(mut pieces, settling)| async move {
                let mut settling = settling?;
                match pieces.next().await {
                    Some(Ok(Chunk::Text(text))) => {
                        settling.said += text.len();
                        Some((Ok(Chunk::Text(text)), (pieces, Some(settling))))
                    }
                    Some(Ok(chunk)) => {
                        settling.settle(&chunk, start.elapsed()).await;
                        Some((Ok(chunk), (pieces, None)))
                    }
                    Some(Err(problem)) => {
                        settling.fail(start.elapsed()).await;
                        Some((Err(problem), (pieces, None)))
                    }
                    None => {
                        settling.fail(start.elapsed()).await;
                        None
                    }
                }
            });
        Ok(Box::pin(pieces))
    }

    /// Sends what the cache cannot hold to the model, and its answer back, unread.
    async fn pass_on(self, what: &str) -> Result<Response, Problem> {
        let Self { app, chat, policy, caller, .. } = self;
        let prompt = tokens(chat.text_bytes());
        let expected = app.estimator.estimate(&chat.model, prompt, chat.max_tokens());
        let demand =
            Demand::new().with(Unit::Requests, 1).with_tokens(prompt.saturating_add(expected));
        let admitted = app.limits.admit(&policy, &demand).await?;
        let model = app.models.get(&chat.model);
        let model = model.ok_or_else(|| Problem::bad_request("the model is gone"))?;
        let (place, _) = choose(&app, model, &caller);
        let Some((_, upstream)) = model.upstreams.get(place) else {
            return Err(Problem::unavailable("upstream_failed", "the model has no upstream"));
        };
        let passed = upstream.pass_on(&chat).await;
        let response = match passed {
            Ok(response) => response,
            Err(problem) => {
                app.limits.settle(&admitted, 0).await;
                return Err(problem);
            }
        };
        let content = response.headers().get(header::CONTENT_TYPE).cloned();
        let tokens = admitted.reserved().get(&Unit::Tokens).unwrap_or(0);
        // The slot is held until the last byte went by.
        let bytes = response.bytes_stream().map(Some).chain(stream::iter([None]));
        let held = (admitted, app);
        let bytes = stream::unfold((bytes, Some(held)), move |(mut bytes, held)| async move {
            let held = held?;
            match bytes.next().await.flatten() {
                Some(piece) => Some((piece, (bytes, Some(held)))),
                None => {
                    held.1.limits.settle(&held.0, tokens).await;
                    None
                }
            }
        });
        let mut response = Response::new(Body::from_stream(Box::pin(bytes)));
        if let Some(content) = content {
            response.headers_mut().insert(header::CONTENT_TYPE, content);
        }
        let facts =
            [("x-inferkit-cache", "bypass".to_owned()), ("x-inferkit-bypass", what.to_owned())];
        problem::insert(response.headers_mut(), facts);
        Ok(response)
    }
}

/// Four bytes a token is the usual guess.
fn tokens(bytes: usize) -> u64 {
    bytes.div_ceil(4) as u64
}

/// Chooses an upstream by experiment; without a decision, the first.
fn choose(app: &App, model: &Model, caller: &str) -> (usize, Option<Decision>) {
    let subject = Subject::new(caller).with("caller", caller);
    let decision = model.experiment.as_ref().and_then(|name| app.router.route(name, &subject).ok());
    let arm = decision.as_ref().map(|decision| &*decision.arm);
    let place = model.upstreams.iter().position(|(name, _)| Some(name.as_str()) == arm);
    (place.unwrap_or(0), decision)
}

/// Asks the chosen upstream, and the others after it while that may help.
async fn ask(
    app: &App,
    chat: &Chat,
    caller: &str,
    generated: &Generated,
) -> Result<(Pieces, Option<Decision>), Problem> {
    let model = app.models.get(&chat.model);
    let model = model.ok_or_else(|| Problem::bad_request("the model is gone"))?;
    let (chosen, decision) = choose(app, model, caller);
    let start = Instant::now();
    let mut last = Problem::unavailable("upstream_failed", "the model has no upstream");
    let count = model.upstreams.len();
    for (name, upstream) in model.upstreams.iter().cycle().skip(chosen).take(count) {
        match upstream.ask(chat).await {
            Ok(pieces) => {
                let _ = generated.upstream.set(name.clone());
                // What another upstream answered says nothing about the chosen one.
                let is_chosen = model.upstreams.get(chosen).is_some_and(|(first, _)| first == name);
                return Ok((pieces, decision.filter(|_| is_chosen)));
            }
            Err(failed) => {
                tracing::warn!(upstream = %name, problem = %failed.problem, "an upstream failed");
                if let Some(decision) = &decision {
                    app.outcomes.record(decision, false, start.elapsed());
                }
                last = failed.problem;
                if !failed.elsewhere {
                    break;
                }
            }
        }
    }
    Err(last)
}

/// What is charged when a generation ends; if it is dropped, its slot is given back and the estimate stays charged.
struct Settling {
    app: Arc<App>,
    model: String,
    admitted: Permit,
    decision: Option<Decision>,
    prompt: u64,
    said: usize,
}

impl Settling {
    async fn settle(self, end: &Chunk, took: Duration) {
        let usage = match end {
            Chunk::Done { usage, .. } => *usage,
            _ => None,
        };
        let (prompt, completion) = usage.unwrap_or_else(|| (self.prompt, tokens(self.said)));
        self.app.estimator.learn(&self.model, completion);
        self.app.limits.settle(&self.admitted, prompt + completion).await;
        if let Some(decision) = &self.decision {
            self.app.outcomes.record(decision, true, took);
        }
    }

    async fn fail(self, took: Duration) {
        self.app.limits.settle(&self.admitted, self.prompt + tokens(self.said)).await;
        if let Some(decision) = &self.decision {
            self.app.outcomes.record(decision, false, took);
        }
    }
}

/// An answer on its way to the caller.
struct Streaming {
    writer: ChatWriter,
    request: Request,
    answer: AnswerStream,
    first: Option<Chunk>,
    generated: Arc<Generated>,
    turn: Option<Turn>,
    wants_usage: bool,
    prompt_bytes: usize,
    price: inferkit_examples::prices::Price,
    text: String,
}

impl Streaming {
    async fn next(&mut self) -> Result<Option<Chunk>, Problem> {
        let chunk = match self.first.take() {
            Some(first) => Some(first),
            None => self.answer.next().await.transpose()?,
        };
        if let Some(Chunk::Text(text)) = &chunk {
            self.text.push_str(&String::from_utf8_lossy(text));
        }
        Ok(chunk)
    }

    fn usage(&self, usage: Option<(u64, u64)>) -> (u64, u64) {
        usage.unwrap_or_else(|| (tokens(self.prompt_bytes), tokens(self.text.len())))
    }

    /// Where the answer came from.
    ///
    /// A stream that is being generated does not know yet, and is a miss.
    fn source(&self) -> (&'static str, Option<f64>) {
        match self.answer.source() {
            Some(Source::Exact) => ("exact", None),
            Some(Source::Semantic(similarity)) => ("semantic", Some(similarity.as_f64())),
            Some(Source::Shared) => ("shared", None),
            _ => ("miss", None),
        }
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let (source, similarity) = self.source();
        let mut facts = vec![
            ("x-inferkit-cache", source.to_owned()),
            ("x-inferkit-entry", self.request.id().to_string()),
        ];
        facts.extend(similarity.map(|value| ("x-inferkit-similarity", format!("{value:.4}"))));
        facts.extend(self.turn.as_ref().map(|turn| (SESSION, turn.name.clone())));
        facts.extend(
            self.generated.upstream.get().map(|name| ("x-inferkit-upstream", name.clone())),
        );
        if let Some(report) = self.generated.limits.get() {
            facts.extend(headers::state(report));
        }
        facts
    }

    /// Notes how the answer was made and what it cost or saved.
    fn note(&self, served: &mut Served, (prompt, completion): (u64, u64)) {
        let (source, similarity) = self.source();
        let micros = self.price.cost_micros(prompt, completion);
        (served.outcome, served.status) = (source.to_owned(), 200);
        served.similarity = similarity;
        served.upstream = self.generated.upstream.get().cloned();
        served.tokens = prompt + completion;
        match source {
            "miss" => served.cost_micros = micros,
            _ => served.saved_micros = micros,
        }
    }

    /// Waits for the whole answer.
    async fn collect(mut self, app: &App, served: &mut Served) -> Result<Response, Problem> {
        loop {
            match self.next().await? {
                Some(Chunk::Done { finish, usage, .. }) => {
                    let usage = self.usage(usage);
                    if let Some(turn) = &self.turn {
                        turn.keep(app, &self.text, finish, usage).await?;
                    }
                    self.note(served, usage);
                    let body = self.writer.whole(&self.text, told(finish), Some(usage));
                    let mut response = axum::Json(body).into_response();
                    problem::insert(response.headers_mut(), self.facts());
                    return Ok(response);
                }
                Some(_) => {}
                None => {
                    return Err(Problem::unavailable("upstream_failed", "the answer broke off"));
                }
            }
        }
    }

    /// Passes the answer on as it comes, as server-sent events; `[DONE]` comes when the session has the turn.
    fn into_response(self, call: Call, mut served: Served) -> Response {
        // Until the end is reached: whoever drops the stream before is a caller who went away.
        (served.outcome, served.status) = ("gone".to_owned(), GONE);
        let facts = self.facts();
        let role = self.writer.role();
        let state = Box::new((self, Noted { call, served }));
        let events = stream::unfold(Some(state), |state| async move {
            let mut state = state?;
            let (streaming, noted) = &mut *state;
            match streaming.next().await {
                Ok(Some(Chunk::Text(text))) => {
                    let text = streaming.writer.text(&String::from_utf8_lossy(&text));
                    Some((text, Some(state)))
                }
                Ok(Some(Chunk::Done { finish, usage, .. })) => {
                    let usage = streaming.usage(usage);
                    if let Some(turn) = &streaming.turn
                        && let Err(problem) =
                            turn.keep(&noted.call.app, &streaming.text, finish, usage).await
                    {
                        return Some((noted.fail(&problem), None));
                    }
                    streaming.note(&mut noted.served, usage);
                    let usage = Some(usage).filter(|_| streaming.wants_usage);
                    Some((streaming.writer.end(told(finish), usage), None))
                }
                Ok(Some(_)) => Some((String::new(), Some(state))),
                Ok(None) => {
                    let problem = Problem::unavailable("upstream_failed", "the answer broke off");
                    Some((noted.fail(&problem), None))
                }
                Err(problem) => Some((noted.fail(&problem), None)),
            }
        });
        let events = stream::iter([role]).chain(events).map(Ok::<_, Infallible>);
        let mut response = Response::new(Body::from_stream(events));
        let sse = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(header::CONTENT_TYPE, sse);
        let no_cache = HeaderValue::from_static("no-cache");
        response.headers_mut().insert(header::CACHE_CONTROL, no_cache);
        problem::insert(response.headers_mut(), facts);
        response
    }
}

/// A request that is noted when it is over, also if its caller goes away.
struct Noted {
    call: Call,
    served: Served,
}

impl Noted {
    fn fail(&mut self, problem: &Problem) -> String {
        (self.served.outcome, self.served.status) = ("failed".to_owned(), problem.status.as_u16());
        event(&problem.body(&self.call.request))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.call.note(std::mem::take(&mut self.served));
    }
}

/// An answer that is not to be stored is an answer all the same.
fn told(finish: Finish) -> Finish {
    match finish {
        Finish::Truncated => Finish::Truncated,
        _ => Finish::Complete,
    }
}

/// `GET /v1/models`.
pub(crate) async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    match Call::admit(&app, &headers, "models").await {
        Err((request, problem)) => finish(problem.into_response_for(&request), &request),
        Ok((call, _)) => {
            let made = live::now() / 1000 - app.started.elapsed().as_secs();
            let model = |name: &String| json!({ "id": name, "object": "model", "created": made, "owned_by": "gateway" });
            let models: Vec<_> = app.models.keys().map(model).collect();
            let body = json!({ "object": "list", "data": models });
            finish(axum::Json(body).into_response(), &call.request)
        }
    }
}
