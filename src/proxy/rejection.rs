//! Why a request is not forwarded, and the only mapping from that to a response.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use crate::{
    authz::{
        answer::{Answer, Reason},
        decide::Denial,
        forwarding,
    },
    proxy::{
        builtin::BuiltinRoute,
        grpc,
        limits::{self, Exceeded, seconds},
        request_id::RequestId,
    },
};

mod accept;
mod oci;

/// Why a request is not forwarded, and the response that the client gets.
#[derive(Debug)]
pub struct Rejection {
    pub reason: Reason,
    /// `None`: the answer depends only on the reason.
    answer: Option<Box<Answer>>,
    /// In seconds.
    retry_after: Option<u32>,
    /// Boxed because few rejections have them.
    limits: Option<Box<limits::RateLimitFields>>,
}

/// The JSON answer to a reason without further details. Cached, because rejections come in floods.
struct CachedAnswer {
    answer: Answer,
    headers: HeaderMap,
    /// The body before and after the request id.
    body: (Box<str>, Box<str>),
}

/// Indexed by [`Reason`].
static CACHED: LazyLock<Vec<CachedAnswer>> =
    LazyLock::new(|| Reason::ALL.iter().map(|reason| CachedAnswer::new(*reason)).collect());

/// The format of a rejection's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorFormat {
    Json,
    /// RFC 9457.
    Problem,
    /// Plain text for people: git and kubectl print the body unchanged.
    Text,
    /// JSON, with the description also in a field that npm prints as a notice.
    Npm,
    /// JSON, with the description also as the reason phrase, which is all that these
    /// tools show (RFC 9112, section 4; HTTP/2 has none).
    StatusLine,
    /// The error format of container registries (OCI distribution specification, "Error Codes").
    Oci,
    Grpc,
}

/// npm prints this response field.
const NPM_NOTICE: HeaderName = HeaderName::from_static("npm-notice");

/// `Retry-After` of the gateway's own 503, in seconds.
const RETRY_AFTER_UNAVAILABLE: u32 = 1;

impl Rejection {
    /// Fills the cache ahead of the first rejection.
    pub fn prepare() {
        LazyLock::force(&CACHED);
    }

    fn with_answer(reason: Reason, answer: Option<Box<Answer>>) -> Self {
        let mut rejection = Self { reason, answer, retry_after: None, limits: None };
        let unavailable = rejection.status() == StatusCode::SERVICE_UNAVAILABLE;
        rejection.retry_after = unavailable.then_some(RETRY_AFTER_UNAVAILABLE);
        rejection
    }

    pub fn too_many(wait: Duration) -> Self {
        Self { retry_after: Some(whole_seconds(wait)), ..Self::from(Reason::TooManyBadTokens) }
    }

    /// 405 on one of the gateway's own routes, with the allowed methods.
    pub fn method_not_allowed(allow: &str) -> Self {
        let reason = Reason::MethodNotAllowed;
        let answer = Answer { allow: Some(allow.to_owned()), ..reason.answer(None) };
        Self::with_answer(reason, Some(Box::new(answer)))
    }

    /// A rejection with its own error code and description, in the form of OAuth 2.0 (RFC 6749, section 5.2).
    pub fn described(reason: Reason, status: StatusCode, error: &'static str, description: String) -> Self {
        let answer = Answer { status, error, description, ..reason.answer(None) };
        Self::with_answer(reason, Some(Box::new(answer)))
    }

    /// Turns any status but 401 into 403, for a forward-auth proxy. The body keeps the error.
    pub fn for_forward_auth(mut self) -> Self {
        if self.status() != StatusCode::UNAUTHORIZED {
            let answer = Answer { status: StatusCode::FORBIDDEN, ..self.answer().clone() };
            self.answer = Some(Box::new(answer));
        }
        self
    }

    fn answer(&self) -> &Answer {
        self.answer.as_deref().unwrap_or(&CachedAnswer::of(self.reason).answer)
    }

    pub fn status(&self) -> StatusCode {
        self.answer().status
    }

    pub fn into_response(self, format: ErrorFormat, request_id: &RequestId) -> Response<Bytes> {
        let answer = self.answer();
        let mut response = if format.is_json() && self.answer.is_none() {
            let CachedAnswer { headers, body: (before, behind), .. } = CachedAnswer::of(self.reason);
            let body = [before.as_bytes(), request_id.as_bytes(), behind.as_bytes()].concat();
            let mut response = Response::new(body.into());
            *response.headers_mut() = headers.clone();
            response
        } else {
            let mut response = Response::new(format.body(answer, request_id.as_str()).into());
            *response.headers_mut() = headers(answer, format);
            response
        };
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        forwarding::set_request_id(headers, request_id.as_bytes());
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        if let Some(limits) = &self.limits {
            limits.set_headers(headers);
        }
        if format == ErrorFormat::Npm
            && let Ok(notice) = HeaderValue::try_from(&answer.description)
        {
            headers.insert(NPM_NOTICE, notice);
        }
        if format == ErrorFormat::StatusLine
            && let Ok(phrase) = ReasonPhrase::try_from(answer.description.as_bytes())
        {
            response.extensions_mut().insert(phrase);
        }
        if format == ErrorFormat::Grpc {
            grpc::refusal(self.reason, &answer.description, response)
        } else {
            response
        }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::with_answer(reason, None)
    }
}

impl From<Exceeded> for Rejection {
    fn from(exceeded: Exceeded) -> Self {
        let Exceeded { reason, wait, fields, .. } = exceeded;
        Self { retry_after: Some(whole_seconds(wait)), limits: fields, ..Self::from(reason) }
    }
}

impl From<Denial<'_>> for Rejection {
    fn from(denial: Denial<'_>) -> Self {
        Self::with_answer(denial.reason, denial.has_details().then(|| Box::new(denial.answer())))
    }
}

impl CachedAnswer {
    fn new(reason: Reason) -> Self {
        const ID: &str = "\0";
        let answer = reason.answer(None);
        let body = ErrorFormat::Json.body(&answer, ID);
        // The id is a NUL, which JSON escapes and no other text contains.
        let (before, behind) = body.split_once("\\u0000").expect("the body contains the request id");
        Self { headers: headers(&answer, ErrorFormat::Json), body: (before.into(), behind.into()), answer }
    }

    fn of(reason: Reason) -> &'static Self {
        &CACHED[reason as usize]
    }
}

impl ErrorFormat {
    pub fn requested<B>(request: &Request<B>) -> Self {
        if grpc::is_grpc_request(request) {
            return Self::Grpc;
        }
        let headers = request.headers();
        match headers
            .get(header::USER_AGENT)
            .map_or(Self::Json, |agent| Self::for_user_agent(agent.as_bytes()))
        {
            Self::Json => accept::preferred(headers),
            shown => shown,
        }
    }

    /// The format for a tool that does not show JSON bodies.
    fn for_user_agent(agent: &[u8]) -> Self {
        let is = |names: &[&[u8]]| names.iter().any(|name| agent.starts_with(name));
        if is(&[b"git/", b"kubectl/"]) {
            Self::Text
        } else if is(&[b"npm/"]) {
            Self::Npm
        } else if is(&[b"Debian APT-", b"pip/", b"twine/"]) {
            Self::StatusLine
        } else {
            Self::Json
        }
    }

    const fn is_json(self) -> bool {
        matches!(self, Self::Json | Self::Npm | Self::StatusLine | Self::Grpc)
    }

    /// The format below `/v2/` on a host with a container registry.
    pub fn for_registry(self) -> Self {
        if self == Self::Grpc { self } else { Self::Oci }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Problem => "application/problem+json",
            Self::Text => "text/plain; charset=utf-8",
            Self::Json | Self::Npm | Self::StatusLine | Self::Oci | Self::Grpc => "application/json",
        }
    }

    fn body(self, answer: &Answer, request_id: &str) -> String {
        match self {
            Self::Text => format!("{}\nRequest id: {request_id}\n", answer.description),
            Self::Oci => oci::body(answer, request_id),
            Self::Problem => text(answer, request_id, true),
            Self::Json | Self::Npm | Self::StatusLine | Self::Grpc => text(answer, request_id, false),
        }
    }

    /// Replaces gRPC by JSON on the forward-auth route: a gRPC error has status 200,
    /// which the proxy would take for a permit.
    pub fn for_route(self, route: BuiltinRoute) -> Self {
        if route == BuiltinRoute::Auth && self == Self::Grpc { Self::Json } else { self }
    }
}

/// In whole seconds for `Retry-After`, rounded up, at least 1.
fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(seconds(wait)).unwrap_or(u32::MAX).max(1)
}

fn headers(answer: &Answer, format: ErrorFormat) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [(header::WWW_AUTHENTICATE, &answer.challenge), (header::ALLOW, &answer.allow)] {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A JSON object with members sorted by name. It ends with a newline for terminals.
fn text(answer: &Answer, request_id: &str, problem: bool) -> String {
    let mut body = json!({
        "error": answer.error,
        "error_description": answer.description,
        "request_id": request_id,
        "status": answer.status.as_u16(),
    });
    if problem {
        body["detail"] = answer.description.as_str().into();
        body["title"] = answer.status.canonical_reason().unwrap_or_default().into();
        body["type"] = "about:blank".into();
    }
    format!("{body}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request_id::RequestIds;

    #[test]
    fn every_refusal_body_is_a_distinct_json_object() {
        let id = RequestIds::new().make();
        for &reason in Reason::ALL {
            let answer = reason.answer(Some("tracker"));
            for problem in [false, true] {
                let parsed: serde_json::Value =
                    serde_json::from_str(&text(&answer, id.as_str(), problem)).expect("JSON");
                let mut expected = serde_json::json!({
                    "error": answer.error,
                    "error_description": answer.description,
                    "request_id": id.as_str(),
                    "status": answer.status.as_u16(),
                });
                if problem {
                    expected["detail"] = answer.description.as_str().into();
                    expected["title"] = answer.status.canonical_reason().into();
                    expected["type"] = "about:blank".into();
                }
                assert_eq!(parsed, expected, "{reason:?}");
            }
            let usual = Rejection::from(reason).into_response(ErrorFormat::Json, &id).into_parts().1;
            assert_eq!(usual, text(&reason.answer(None), id.as_str(), false), "{reason:?}");
        }
    }

    #[test]
    fn forward_auth_refusal_never_has_a_success_status() {
        let check = |route, format: ErrorFormat, status: u16| {
            let response = Rejection::from(Reason::TokenRevoked)
                .for_forward_auth()
                .into_response(format.for_route(route), &RequestIds::new().make());
            assert_eq!(response.status(), status, "{route:?} {format:?}");
        };
        for format in [
            ErrorFormat::Json,
            ErrorFormat::Problem,
            ErrorFormat::Text,
            ErrorFormat::Npm,
            ErrorFormat::StatusLine,
            ErrorFormat::Oci,
            ErrorFormat::Grpc,
        ] {
            check(BuiltinRoute::Auth, format, 401);
        }
        check(BuiltinRoute::Whoami, ErrorFormat::Grpc, 200);
    }
}
