//! A cache in front of an OpenAI-compatible endpoint, as a layer of tower.

mod chat;

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use eventsource_stream::Eventsource as _;
use futures_util::{Stream, StreamExt as _, stream};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame as BodyFrame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, BodyStream, Full, LengthLimitError, Limited, StreamBody};
use tower_layer::Layer;
use tower_service::Service;

use self::chat::Chat;
use crate::openai::{self, ChatReader, ChatWriter};
use crate::{AnswerStream, CacheControl, Chunk, Coalescer, GenerateError, Source, Tenant};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of the layer's answers, and of the requests to the service below.
pub type CachedBody = UnsyncBoxBody<Bytes, BodyError>;

/// Why a body broke off: the error of the one who sends it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(BoxError);

/// The largest chat that is read, unless set.
const MOST: usize = 4 << 20;

/// Answers chat completions out of a cache, and asks the service below for what is missing (feature `tower`).
///
/// It reads `POST` requests whose path ends with `/chat/completions`, in OpenAI's form, streamed or not; everything else
/// passes through, and so does what asks for more than a text (tools, images, several choices, log probabilities).
/// What the request says besides its last message makes the context: model, messages before it and sampling must be equal.
///
/// - The extractor tells whose request it is, such as from an API key: answers are shared within a tenant, and `None` lets a
///   request pass by the cache. Check the key before this layer: a hit asks nobody else.
/// - `Cache-Control: no-cache`, `no-store` and `max-age=SECONDS` of a request are honoured (RFC 9111).
/// - Answers tell `x-inferkit-cache` (`exact`, `semantic`, `shared`, `miss` or `bypass`), `x-inferkit-similarity` of a semantic
///   hit and `age` of a hit.
/// - A missing answer is generated once for all who ask at the same time, and stored when it is complete: a caller who
///   goes away in mid-stream leaves nothing behind.
/// - What the service refuses is passed on as it is, to all who waited, and is not stored; neither is an answer that is more
///   than a text.
/// - A chat of more than 4 MiB is answered with 413.
///
/// Round trips are those of [`Coalescer`].
///
/// # Examples
///
/// ```
/// use inferkit_semcache::{ChatCacheLayer, Coalescer, Tenant};
///
/// fn layer<S>(coalescer: Coalescer) -> impl tower_layer::Layer<S> {
///     ChatCacheLayer::new(coalescer, |parts: &http::request::Parts| {
///         // The name that an earlier layer found out, not the secret key.
///         let name = parts.extensions.get::<String>()?;
///         Tenant::new(name).ok()
///     })
/// }
/// ```
#[derive(Clone)]
pub struct ChatCacheLayer<E> {
    coalescer: Coalescer,
    tenant: E,
    most: usize,
}

impl<E: Fn(&Parts) -> Option<Tenant>> ChatCacheLayer<E> {
    /// Makes a layer of a coalescer and what tells the tenant.
    pub fn new(coalescer: Coalescer, tenant: E) -> Self {
        Self { coalescer, tenant, most: MOST }
    }
}

impl<E> ChatCacheLayer<E> {
    /// Sets the largest chat that is read, in bytes.
    #[must_use]
    pub fn with_max_body(mut self, bytes: usize) -> Self {
        self.most = bytes;
        self
    }
}

impl<E> fmt::Debug for ChatCacheLayer<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatCacheLayer")
            .field("coalescer", &self.coalescer)
            .field("most", &self.most)
            .finish_non_exhaustive()
    }
}

impl<S, E: Clone> Layer<S> for ChatCacheLayer<E> {
    type Service = ChatCacheService<S, E>;

    fn layer(&self, inner: S) -> Self::Service {
        ChatCacheService { inner, layer: self.clone() }
    }
}

/// The service of a [`ChatCacheLayer`].
#[derive(Clone, Debug)]
pub struct ChatCacheService<S, E> {
    inner: S,
    layer: ChatCacheLayer<E>,
}

impl<S, E, B, R> Service<Request<B>> for ChatCacheService<S, E>
where
    S: Service<Request<CachedBody>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    E: Fn(&Parts) -> Option<Tenant>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    type Response = Response<CachedBody>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone may not be ready; the one that is goes into the future.
        let next = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, next);
        let (parts, body) = request.into_parts();
        let is_chat =
            parts.method == Method::POST && parts.uri.path().ends_with("/chat/completions");
        let tenant = (self.layer.tenant)(&parts).filter(|_| is_chat);
        let (coalescer, most) = (self.layer.coalescer.clone(), self.layer.most);
        Box::pin(async move {
            let Some(tenant) = tenant else {
                return pass(inner, Request::from_parts(parts, boxed(body)), is_chat).await;
            };
            let body = match Limited::new(body, most).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => {
                    let message = format!("the body has more than {most} bytes");
                    return Ok(refused(StatusCode::PAYLOAD_TOO_LARGE, &message));
                }
                Err(_) => return Ok(refused(StatusCode::BAD_REQUEST, "the body broke off")),
            };
            let control = control(&parts.headers);
            let asked = control.and_then(|control| {
                let chat = Chat::parse(&body)?;
                let request = chat.to_request(tenant, control).ok()?;
                Some((chat, request))
            });
            let Some((chat, request)) = asked else {
                return pass(inner, whole(parts, body), true).await;
            };
            let id: String = request.id().to_string().chars().take(24).collect();
            let writer = ChatWriter::new(format!("chatcmpl-{id}"), request.model());
            let failed = Arc::new(Mutex::new(None));
            let noted = Arc::clone(&failed);
            let generate = move || generate(inner, parts, body, noted);
            let mut answer = coalescer.get_or_stream(request, generate);
            // Nothing is answered before the first piece: until then a failure has its own status.
            let first = match answer.next().await {
                Some(Ok(first)) => first,
                Some(Err(error)) => {
                    let own = failed.lock().unwrap_or_else(PoisonError::into_inner).take();
                    return own.map_or_else(|| Ok(of_failure(&error)), Err);
                }
                None => return Ok(refused(StatusCode::BAD_GATEWAY, "the model said nothing")),
            };
            Ok(match chat.stream {
                true => streamed(writer, answer, first, chat.wants_usage()),
                false => collected(&writer, answer, first).await,
            })
        })
    }
}

/// Asks the service for what is not for the cache.
async fn pass<S, R>(
    mut inner: S,
    request: Request<CachedBody>,
    is_chat: bool,
) -> Result<Response<CachedBody>, S::Error>
where
    S: Service<Request<CachedBody>, Response = Response<R>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let mut response = inner.call(request).await?.map(boxed);
    if is_chat {
        tell(&mut response, "x-inferkit-cache", "bypass");
    }
    Ok(response)
}

/// A request whose body was read.
fn whole(mut parts: Parts, body: Bytes) -> Request<CachedBody> {
    parts.headers.remove(header::TRANSFER_ENCODING);
    Request::from_parts(parts, boxed(Full::new(body)))
}

/// What the service answers instead of an answer that can be cached.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the service answered {}", self.status)
    }
}

impl std::error::Error for Refused {}

type Pieces = Pin<Box<dyn Stream<Item = Result<Chunk, BoxError>> + Send>>;

/// Asks the service; its own error goes to `failed`.
async fn generate<S, R>(
    mut inner: S,
    mut parts: Parts,
    body: Bytes,
    failed: Arc<Mutex<Option<S::Error>>>,
) -> Result<Pieces, BoxError>
where
    S: Service<Request<CachedBody>, Response = Response<R>>,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    // The answer is to be read here.
    parts.headers.remove(header::ACCEPT_ENCODING);
    let response = match inner.call(whole(parts, body)).await {
        Ok(response) => response,
        Err(error) => {
            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return Err("the service failed".into());
        }
    };
    let (parts, body) = response.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let streams = kind.is_some_and(|kind| kind.starts_with("text/event-stream"));
    if parts.status == StatusCode::OK && streams {
        return Ok(Box::pin(pieces(body)));
    }
    let body = body.collect().await.map_err(Into::into)?.to_bytes();
    let answer = if parts.status == StatusCode::OK { openai::whole(&body) } else { None };
    match answer {
        Some(chunks) => Ok(Box::pin(stream::iter(chunks.map(Ok)))),
        None => Err(Box::new(Refused { status: parts.status, headers: parts.headers, body })),
    }
}

/// The pieces of a streamed answer.
fn pieces<R>(body: R) -> impl Stream<Item = Result<Chunk, BoxError>> + Send
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let bytes = BodyStream::new(Box::pin(body)).filter_map(|frame| {
        let data = frame.map_err(Into::into).map(|frame| frame.into_data().ok()).transpose();
        std::future::ready(data)
    });
    let mut end = ChatReader::new();
    bytes.eventsource().map(Some).chain(stream::iter([None])).filter_map(move |event| {
        std::future::ready(match event {
            Some(Ok(event)) => end.take(&event.data).map_err(BoxError::from).transpose(),
            Some(Err(error)) => Some(Err(BoxError::from(error.to_string()))),
            None => end.finish().map(Ok),
        })
    })
}

/// Answers piece by piece; a caller who goes away drops it, and nothing is stored.
fn streamed(
    writer: ChatWriter,
    answer: AnswerStream,
    first: Chunk,
    wants_usage: bool,
) -> Response<CachedBody> {
    let facts = facts(&answer);
    let role = writer.role();
    let state = Some((answer, Some(first), writer));
    let events = stream::unfold(state, move |state| async move {
        let (mut answer, first, writer) = state?;
        let next = match first {
            Some(first) => Some(Ok(first)),
            None => answer.next().await,
        };
        match next {
            Some(Ok(Chunk::Text(text))) => {
                let text = writer.text(&String::from_utf8_lossy(&text));
                Some((text, Some((answer, None, writer))))
            }
            Some(Ok(Chunk::Done { finish, usage })) => {
                Some((writer.end(finish, usage.filter(|_| wants_usage)), None))
            }
            Some(Err(error)) => Some((openai::event(&problem(&error.to_string())), None)),
            None => None,
        }
    });
    let events = stream::iter([role]).chain(events);
    let frames = events.map(|text| Ok::<_, Infallible>(BodyFrame::data(Bytes::from(text))));
    let mut response = Response::new(boxed(StreamBody::new(frames)));
    let kind = HeaderValue::from_static("text/event-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    told(&mut response, facts);
    response
}

async fn collected(
    writer: &ChatWriter,
    mut answer: AnswerStream,
    first: Chunk,
) -> Response<CachedBody> {
    let mut text = Vec::new();
    let mut next = Some(Ok(first));
    loop {
        match next {
            Some(Ok(Chunk::Text(piece))) => text.extend_from_slice(&piece),
            Some(Ok(Chunk::Done { finish, usage })) => {
                let body = writer.whole(&String::from_utf8_lossy(&text), finish, usage);
                let mut response = json(StatusCode::OK, &body);
                told(&mut response, facts(&answer));
                return response;
            }
            Some(Err(error)) => return of_failure(&error),
            None => return refused(StatusCode::BAD_GATEWAY, "the answer broke off"),
        }
        next = answer.next().await;
    }
}

/// Where an answer came from; one that is being generated does not know yet, and is a miss.
fn facts(answer: &AnswerStream) -> Vec<(&'static str, String)> {
    let source = match answer.source() {
        Some(Source::Generated) | None => "miss".to_owned(),
        Some(Source::Semantic(_)) => "semantic".to_owned(),
        Some(source) => source.to_string(),
    };
    let mut facts = vec![("x-inferkit-cache", source)];
    if let Some(Source::Semantic(similarity)) = answer.source() {
        facts.push(("x-inferkit-similarity", format!("{:.4}", similarity.as_f64())));
    }
    if let Some(stored_at) = answer.stored_at() {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        facts.push(("age", now.saturating_sub(stored_at).as_secs().to_string()));
    }
    facts
}

/// What a request allows the cache; nothing if it cannot be read.
fn control(headers: &HeaderMap) -> Option<CacheControl> {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let words = values.map(|value| value.to_str().ok()).collect::<Option<Vec<_>>>()?;
    CacheControl::from_header(&words.join(","))
}

/// What the service said, or that it failed.
fn of_failure(error: &GenerateError) -> Response<CachedBody> {
    let inner = match error {
        GenerateError::Generate(inner) => inner.downcast_ref::<Refused>(),
        _ => None,
    };
    let Some(Refused { status, headers, body }) = inner else {
        return refused(StatusCode::BAD_GATEWAY, &error.to_string());
    };
    let mut response = Response::new(boxed(Full::new(body.clone())));
    *response.status_mut() = *status;
    *response.headers_mut() = headers.clone();
    response.headers_mut().remove(header::TRANSFER_ENCODING);
    tell(&mut response, "x-inferkit-cache", "miss");
    response
}

/// An error, as the body of an answer or of an event.
fn problem(message: &str) -> serde_json::Value {
    serde_json::json!({
        "error": { "message": message, "type": "upstream_error", "code": null, "param": null },
    })
}

fn refused(status: StatusCode, message: &str) -> Response<CachedBody> {
    json(status, &problem(message))
}

fn json(status: StatusCode, body: &serde_json::Value) -> Response<CachedBody> {
    let mut response = Response::new(boxed(Full::new(Bytes::from(body.to_string()))));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn boxed<R>(body: R) -> CachedBody
where
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    body.map_err(|error| BodyError(error.into())).boxed_unsync()
}

fn told(response: &mut Response<CachedBody>, facts: Vec<(&'static str, String)>) {
    for (name, value) in facts {
        tell(response, name, &value);
    }
}

fn tell(response: &mut Response<CachedBody>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::try_from(value) {
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
}
