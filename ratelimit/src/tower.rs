use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use tower_layer::Layer;
use tower_service::Service;

use crate::{Decision, Demand, Error, Policy, RateLimiter, Result, headers};

/// Lets requests of an HTTP service pass only within their limits (feature `tower`).
///
/// The extractor tells whose request it is: it returns the policy and the demand, such as from an API key and the
/// estimated tokens; `None` lets a request pass unlimited.
///
/// - An admitted request finds its permit among its extensions, as an `Arc<Permit>`: a handler settles it.
///   Where an answer is a stream, keep the `Arc` in the stream: its slot is free when the last one is dropped.
/// - A rejected request is answered with 429, or with 413 if it can never pass, without a body.
/// - Where the limiter fails, the answer is 503; where the extractor fails, 400. See [`Breaker`](crate::Breaker).
///
/// Answers have the headers of [`headers`].
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use inferkit_ratelimit::{
///     Demand, Limit, MemoryRateLimiter, Policy, RateLimitLayer, Subject, Tier, Unit,
/// };
///
/// let limit = Limit::new(60, Duration::from_secs(60), Unit::Requests)?;
/// let layer = RateLimitLayer::new(
///     Arc::new(MemoryRateLimiter::new()),
///     move |parts: &http::request::Parts| {
///         let Some(key) = parts.headers.get("x-api-key-id").and_then(|key| key.to_str().ok()) else {
///             return Ok(None);
///         };
///         let tier = Tier::new("requests", Subject::api_key(key)?, limit.clone())?;
///         Ok(Some((Policy::new("api")?.with_tier(tier)?, Demand::new())))
///     },
/// );
/// # fn of<S>(_: impl tower_layer::Layer<S>) {}
/// # of::<()>(layer);
/// # Ok::<(), inferkit_ratelimit::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct RateLimitLayer<L, E> {
    limiter: L,
    extract: E,
}

impl<L, E> RateLimitLayer<L, E>
where
    E: Fn(&http::request::Parts) -> Result<Option<(Policy, Demand)>>,
{
    /// Makes a layer of a limiter and an extractor.
    pub fn new(limiter: L, extract: E) -> Self {
        Self { limiter, extract }
    }
}

impl<S, L: Clone, E: Clone> Layer<S> for RateLimitLayer<L, E> {
    type Service = RateLimitService<S, L, E>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { limiter, extract } = self.clone();
        RateLimitService { inner, limiter, extract }
    }
}

/// The service of a [`RateLimitLayer`].
#[derive(Clone, Debug)]
pub struct RateLimitService<S, L, E> {
    inner: S,
    limiter: L,
    extract: E,
}

type Answer<T, E> = Pin<Box<dyn Future<Output = Result<T, E>> + Send>>;

impl<S, L, E, B, R> Service<Request<B>> for RateLimitService<S, L, E>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    L: RateLimiter + Clone,
    E: Fn(&http::request::Parts) -> Result<Option<(Policy, Demand)>>,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Answer<Response<R>, S::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The clone may not be ready; the one that is goes into the future.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let limiter = self.limiter.clone();
        let (parts, body) = request.into_parts();
        let extracted = (self.extract)(&parts);
        let mut request = Request::from_parts(parts, body);
        Box::pin(async move {
            let decision = match extracted {
                Ok(None) => return inner.call(request).await,
                Ok(Some((policy, demand))) => limiter.acquire(&policy, &demand).await,
                Err(error) => {
                    tracing::debug!(%error, "a request has no policy");
                    return Ok(empty(StatusCode::BAD_REQUEST));
                }
            };
            match decision {
                Ok(Decision::Admitted(permit)) => {
                    let told = headers::state(permit.report());
                    request.extensions_mut().insert(Arc::new(permit));
                    let mut response = inner.call(request).await?;
                    tell(&mut response, told);
                    Ok(response)
                }
                Ok(Decision::Rejected(rejection)) => {
                    let status = match rejection.retry_after() {
                        Some(_) => StatusCode::TOO_MANY_REQUESTS,
                        None => StatusCode::PAYLOAD_TOO_LARGE,
                    };
                    let mut response = empty(status);
                    tell(&mut response, headers::rejection(&rejection));
                    Ok(response)
                }
                Err(Error::Backend(error)) => {
                    tracing::warn!(kind = ?error.kind(), "a request was refused: the limiter does not answer");
                    Ok(empty(StatusCode::SERVICE_UNAVAILABLE))
                }
                Err(error) => {
                    tracing::debug!(%error, "a request has no policy");
                    Ok(empty(StatusCode::BAD_REQUEST))
                }
            }
        })
    }
}

fn empty<R: Default>(status: StatusCode) -> Response<R> {
    let mut response = Response::new(R::default());
    *response.status_mut() = status;
    response
}

fn tell<R>(response: &mut Response<R>, headers: headers::Headers) {
    for (name, value) in headers {
        // Names of tiers have no characters that a header refuses.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
}
