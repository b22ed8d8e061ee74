//! The layer around a service: headers, statuses and permits.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response, StatusCode};
use inferkit_localredis::Flavor;
use inferkit_ratelimit::{
    Demand, Permit, Policy, RateLimitLayer, RateLimiterExt as _, Result, Unit,
};
use support::{HOUR, gpu, policy, requests, tokens};
use tower_layer::Layer as _;
use tower_service::Service;

/// Answers 200 and keeps the permits.
#[derive(Clone, Debug, Default)]
struct Handler(Arc<Mutex<Vec<Arc<Permit>>>>);

impl Service<Request<()>> for Handler {
    type Response = Response<String>;
    type Error = Infallible;
    type Future = Ready<Result<Response<String>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.0.lock().unwrap().extend(request.extensions().get::<Arc<Permit>>().cloned());
        ready(Ok(Response::new("hello".to_owned())))
    }
}

fn extract(parts: &Parts) -> Result<Option<(Policy, Demand)>> {
    let header = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
    let Some(tokens_) = header("x-tokens") else { return Ok(None) };
    let amount: f64 = tokens_.parse().unwrap();
    let demand = Demand::new().try_with(Unit::Tokens, amount)?;
    Ok(Some((policy([requests(2), tokens(100), gpu(2, HOUR)]), demand)))
}

async fn ask<S>(service: &mut S, tokens: Option<&str>) -> Response<String>
where
    S: Service<Request<()>, Response = Response<String>, Error = Infallible>,
{
    let mut request = Request::new(());
    if let Some(tokens) = tokens {
        request.headers_mut().insert("x-tokens", tokens.parse().unwrap());
    }
    std::future::poll_fn(|context| service.poll_ready(context)).await.unwrap();
    service.call(request).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_pass_within_their_limits_and_are_told_so() {
    let limiter = Arc::new(support::on_pool(Flavor::Redis).await);
    let handler = Handler::default();
    let mut service = RateLimitLayer::new(Arc::clone(&limiter), extract).layer(handler.clone());
    let header = |response: &Response<String>, name: &str| {
        response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
    };

    let response = ask(&mut service, Some("60")).await;
    assert_eq!((response.status(), response.body().as_str()), (StatusCode::OK, "hello"));
    assert_eq!(header(&response, "x-ratelimit-remaining-tokens").as_deref(), Some("40"));
    assert_eq!(header(&response, "x-ratelimit-limit-requests").as_deref(), Some("2"));
    assert!(header(&response, "ratelimit").unwrap().contains("\"gpu\";r=1"));
    assert_eq!(header(&response, "retry-after"), None);

    let response = ask(&mut service, Some("60")).await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(header(&response, "retry-after").is_some());
    assert_eq!(response.body(), "");

    let response = ask(&mut service, Some("101")).await;
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(header(&response, "retry-after"), None);
    assert_eq!(ask(&mut service, Some("-1")).await.status(), StatusCode::BAD_REQUEST);
    assert_eq!(ask(&mut service, Some("NaN")).await.status(), StatusCode::BAD_REQUEST);

    let unlimited = ask(&mut service, None).await;
    assert!(unlimited.status() == StatusCode::OK && unlimited.headers().is_empty());
    let permit = {
        let permits = handler.0.lock().unwrap();
        assert_eq!(permits.len(), 1);
        Arc::clone(&permits[0])
    };
    limiter.refund(&permit).await.unwrap();
    assert_eq!(ask(&mut service, Some("100")).await.status(), StatusCode::OK);
}
