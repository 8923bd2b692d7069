//! Why a request is not forwarded, and the only mapping from that to a response.

use std::{sync::LazyLock, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version, header};
use hyper::ext::ReasonPhrase;
use serde_json::json;

use crate::{
    authz::{
        decide::Denial,
        forwarding,
        reason::{ErrorDetails, Reason},
        rules::BuiltinRoute,
    },
    net::RequestError,
    proxy::{
        facts::RequestId,
        grpc,
        limits::{self, Exceeded, seconds},
    },
};

mod accept;

/// Why a request is not forwarded, and the response that the client gets.
#[derive(Debug)]
pub struct Rejection {
    pub reason: Reason,
    /// `None`: the response depends only on the reason.
    details: Option<Box<ErrorDetails>>,
    /// In seconds.
    retry_after: Option<u32>,
    /// Boxed because few rejections have them.
    limits: Option<Box<limits::RateLimitFields>>,
}

/// The JSON response to a reason without further details. Cached, because rejections come in floods.
struct CachedRejection {
    details: ErrorDetails,
    headers: HeaderMap,
    /// The body before and after the request id.
    body: (Box<str>, Box<str>),
}

/// Indexed by [`Reason`].
static CACHED: LazyLock<Vec<CachedRejection>> =
    LazyLock::new(|| Reason::ALL.iter().map(|reason| CachedRejection::new(*reason)).collect());

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

    fn with_details(reason: Reason, details: Option<Box<ErrorDetails>>) -> Self {
        let mut rejection = Self { reason, details, retry_after: None, limits: None };
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
        let details = ErrorDetails { allow: Some(allow.to_owned()), ..reason.details(None) };
        Self::with_details(reason, Some(Box::new(details)))
    }

    /// A rejection with its own error code and description, in the form of OAuth 2.0 (RFC 6749, section 5.2).
    pub fn described(reason: Reason, status: StatusCode, error: &'static str, description: String) -> Self {
        let details = ErrorDetails { status, error, description, ..reason.details(None) };
        Self::with_details(reason, Some(Box::new(details)))
    }

    /// Turns any status but 401 into 403, for a forward-auth proxy. The body keeps the error.
    pub fn for_forward_auth(mut self) -> Self {
        if self.status() != StatusCode::UNAUTHORIZED {
            let details = ErrorDetails { status: StatusCode::FORBIDDEN, ..self.details().clone() };
            self.details = Some(Box::new(details));
        }
        self
    }

    fn details(&self) -> &ErrorDetails {
        self.details.as_deref().unwrap_or(&CachedRejection::of(self.reason).details)
    }

    pub fn status(&self) -> StatusCode {
        self.details().status
    }

    pub fn into_response(self, format: ErrorFormat, request_id: &RequestId) -> Response<Bytes> {
        let details = self.details();
        let mut response = if format.is_json() && self.details.is_none() {
            let CachedRejection { headers, body: (before, behind), .. } = CachedRejection::of(self.reason);
            let body = [before.as_bytes(), request_id.as_bytes(), behind.as_bytes()].concat();
            let mut response = Response::new(body.into());
            *response.headers_mut() = headers.clone();
            response
        } else {
            let mut response = Response::new(format.body(details, request_id.as_str()).into());
            *response.headers_mut() = headers(details, format);
            response
        };
        *response.status_mut() = details.status;
        let headers = response.headers_mut();
        headers.insert(forwarding::REQUEST_ID, request_id.value().clone());
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait));
        }
        if let Some(limits) = &self.limits {
            limits.set_headers(headers);
        }
        if format == ErrorFormat::Npm
            && let Ok(notice) = HeaderValue::try_from(&details.description)
        {
            headers.insert(NPM_NOTICE, notice);
        }
        if format == ErrorFormat::StatusLine
            && let Ok(phrase) = ReasonPhrase::try_from(details.description.as_bytes())
        {
            response.extensions_mut().insert(phrase);
        }
        if format == ErrorFormat::Grpc {
            grpc::refusal(self.reason, &details.description, response)
        } else {
            response
        }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::with_details(reason, None)
    }
}

impl From<RequestError> for Rejection {
    fn from(error: RequestError) -> Self {
        let has_details = matches!(error, RequestError::BadRequest(_));
        Self::with_details(error.into(), has_details.then(|| Box::new(error.details())))
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
        Self::with_details(denial.reason, denial.has_details().then(|| Box::new(denial.details())))
    }
}

impl CachedRejection {
    fn new(reason: Reason) -> Self {
        const ID: &str = "\0";
        let details = reason.details(None);
        let body = ErrorFormat::Json.body(&details, ID);
        // The id is a NUL, which JSON escapes and no other text contains.
        let (before, behind) = body.split_once("\\u0000").expect("the body contains the request id");
        Self { headers: headers(&details, ErrorFormat::Json), body: (before.into(), behind.into()), details }
    }

    fn of(reason: Reason) -> &'static Self {
        &CACHED[reason as usize]
    }
}

impl ErrorFormat {
    pub fn requested(version: Version, headers: &HeaderMap) -> Self {
        if grpc::is_grpc_request(version, headers) {
            return Self::Grpc;
        }
        let agent = headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
        match Self::for_user_agent(agent) {
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

    fn body(self, details: &ErrorDetails, request_id: &str) -> String {
        match self {
            Self::Text => format!("{}\nRequest id: {request_id}\n", details.description),
            Self::Oci => oci_body(details, request_id),
            Self::Problem => text(details, request_id, true),
            Self::Json | Self::Npm | Self::StatusLine | Self::Grpc => text(details, request_id, false),
        }
    }

    /// Replaces gRPC by JSON on the forward-auth route: a gRPC error has status 200,
    /// which the proxy would take for a permit.
    pub fn for_route(self, route: BuiltinRoute) -> Self {
        if route == BuiltinRoute::Auth && self == Self::Grpc { Self::Json } else { self }
    }
}

/// OCI distribution specification, "Error Codes". Clients show `code` and `message`.
fn oci_body(details: &ErrorDetails, request_id: &str) -> String {
    let code = match details.status.as_u16() {
        401 => "UNAUTHORIZED",
        403 => "DENIED",
        404 => "NAME_UNKNOWN",
        429 => "TOOMANYREQUESTS",
        500.. => "UNAVAILABLE",
        _ => "UNSUPPORTED",
    };
    let detail = json!({"error": details.error, "request_id": request_id, "status": details.status.as_u16()});
    let body = json!({"errors": [{"code": code, "message": details.description, "detail": detail}]});
    format!("{body}\n")
}

/// In whole seconds for `Retry-After`, rounded up, at least 1.
fn whole_seconds(wait: Duration) -> u32 {
    u32::try_from(seconds(wait)).unwrap_or(u32::MAX).max(1)
}

fn headers(details: &ErrorDetails, format: ErrorFormat) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [(header::WWW_AUTHENTICATE, &details.challenge), (header::ALLOW, &details.allow)] {
        if let Some(value) = value.as_ref().and_then(|value| HeaderValue::try_from(value).ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

/// A JSON object with members sorted by name. It ends with a newline for terminals.
fn text(details: &ErrorDetails, request_id: &str, problem: bool) -> String {
    let mut body = json!({
        "error": details.error,
        "error_description": details.description,
        "request_id": request_id,
        "status": details.status.as_u16(),
    });
    if problem {
        body["detail"] = details.description.as_str().into();
        body["title"] = details.status.canonical_reason().unwrap_or_default().into();
        body["type"] = "about:blank".into();
    }
    format!("{body}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::facts::RequestIds;

    #[test]
    fn every_refusal_body_is_a_distinct_json_object() {
        let id = RequestIds::new().make();
        for &reason in Reason::ALL {
            let details = reason.details(Some("tracker"));
            for problem in [false, true] {
                let parsed: serde_json::Value =
                    serde_json::from_str(&text(&details, id.as_str(), problem)).expect("JSON");
                let mut expected = serde_json::json!({
                    "error": details.error,
                    "error_description": details.description,
                    "request_id": id.as_str(),
                    "status": details.status.as_u16(),
                });
                if problem {
                    expected["detail"] = details.description.as_str().into();
                    expected["title"] = details.status.canonical_reason().into();
                    expected["type"] = "about:blank".into();
                }
                assert_eq!(parsed, expected, "{reason:?}");
            }
            let usual = Rejection::from(reason).into_response(ErrorFormat::Json, &id).into_parts().1;
            assert_eq!(usual, text(&reason.details(None), id.as_str(), false), "{reason:?}");
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
