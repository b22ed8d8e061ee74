//! Errors as HTTP answers: problem details (RFC 9457), with the member `error` that clients of OpenAI read.

use std::fmt;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use inferkit::ratelimit::{Rejection, headers};
use inferkit::semcache::GenerateError;
use inferkit_examples::chain;
use serde_json::json;

/// Why a request is not answered.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) status: StatusCode,
    /// A word that programs can compare.
    pub(crate) code: &'static str,
    pub(crate) detail: String,
    headers: Vec<(&'static str, String)>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, detail: detail.into(), headers: Vec::new() }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(crate) fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        let problem = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail);
        Self { headers: vec![("retry-after", "1".to_owned())], ..problem }
    }

    /// A tier of the limits is used up.
    pub(crate) fn limited(rejection: &Rejection) -> Self {
        let (status, detail) = match rejection.retry_after() {
            Some(time) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "the limit \"{}\" is used up: come again in {:.1} s",
                    rejection.tier(),
                    time.as_secs_f64()
                ),
            ),
            None => (
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("this is more than the limit \"{}\" allows at all", rejection.tier()),
            ),
        };
        let problem = Self::new(status, "rate_limit_exceeded", detail);
        Self { headers: headers::rejection(rejection), ..problem }
    }

    /// The body, also for the events of a stream that has begun.
    pub(crate) fn body(&self, request: &str) -> serde_json::Value {
        let kind = match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "api_error",
        };
        json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": request,
            "error": { "message": self.detail, "type": kind, "code": self.code, "param": null },
        })
    }

    pub(crate) fn into_response_for(self, request: &str) -> Response {
        let mut response = (self.status, self.body(request).to_string()).into_response();
        let content = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, content);
        insert(response.headers_mut(), self.headers);
        response
    }
}

/// Adds headers; what cannot be one is left out.
pub(crate) fn insert(
    map: &mut HeaderMap,
    headers: impl IntoIterator<Item = (&'static str, String)>,
) {
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            map.insert(HeaderName::from_static(name), value);
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for Problem {}

impl From<GenerateError> for Problem {
    fn from(error: GenerateError) -> Self {
        match &error {
            GenerateError::Generate(cause) => match cause.downcast_ref::<Self>() {
                Some(problem) => problem.clone(),
                None => Self::new(StatusCode::BAD_GATEWAY, "upstream_failed", chain(&error)),
            },
            _ => Self::new(StatusCode::BAD_GATEWAY, "upstream_failed", chain(&error)),
        }
    }
}
