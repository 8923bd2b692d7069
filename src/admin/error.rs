//! Errors of the admin listener as responses: stable codes in one JSON body.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::session::AttemptRefused;
use crate::{
    authz::reason::{ErrorDetails, Reason},
    fence::FenceIncomplete,
    store::{AdminError, ChangeError, ReadError},
};

/// What a handler of the API returns.
pub type ApiResult<T = Response> = Result<T, Problem>;

/// Why a request does not reach the router, and its response.
pub(super) type Rejected = (Reason, Problem);

/// Rejects a request whose response follows from the reason alone.
pub(super) fn rejected(reason: Reason) -> Rejected {
    (reason, reason.details(None).into())
}

/// An error response. [`Problem::render`] writes its body once the request's id and `Accept` are known.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    error: &'static str,
    description: String,
    challenge: Option<Box<str>>,
    allow: Option<Box<str>>,
    retry_after: Option<u32>,
    /// Fields in addition to those that every problem has.
    more: Map<String, Value>,
}

impl Problem {
    pub fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Self {
        let description = description.into();
        Self { status, error, description, challenge: None, allow: None, retry_after: None, more: Map::new() }
    }

    pub fn invalid(description: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", description)
    }

    /// For input that serde cannot read: says what was expected in words of JSON instead of Rust.
    pub fn unreadable(what: &str, message: &str) -> Self {
        let mut text = String::new();
        let mut words = message.split(' ').peekable();
        while let Some(word) = words.next() {
            if word == "struct" && words.next().is_some() {
                text.push_str("an object ");
                // "struct Create with 7 elements": what it is read as, if a list was sent.
                if words.peek() == Some(&"with") {
                    words.nth(2);
                }
            } else {
                text.push_str(word);
                text.push(' ');
            }
        }
        let plain = [
            ("unknown variant", "unknown value"),
            ("a sequence", "a list"),
            ("sequence", "list"),
            ("invalid type: map", "invalid type: object"),
            ("invalid digit found in string", "expected a number"),
        ];
        let text = plain.iter().fold(text, |text, (rust, json)| text.replace(rust, json));
        Self::invalid(format!("{what}: {}", text.trim_end()))
    }

    pub fn value(description: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_value", description)
    }

    pub fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", format!("There is no such {what}"))
    }

    pub fn denied(description: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission_denied", description)
    }

    /// A 401 for a request without a bearer.
    pub fn unauthorized(error: &'static str, description: impl Into<String>) -> Self {
        let challenge = Reason::MissingCredentials.details(None).challenge.map(Into::into);
        Self { challenge, ..Self::new(StatusCode::UNAUTHORIZED, error, description) }
    }

    /// An internal error, which the log explains.
    pub fn internal(description: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", description)
    }

    pub fn busy() -> Self {
        let text = "Too many requests of this kind are in progress. Try again later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", text).retry_after(1)
    }

    pub fn stale() -> Self {
        let text = "The record has changed since it was read";
        Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", text)
    }

    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    #[must_use]
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.more.insert(field.to_owned(), value.into());
        self
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The description without the full stop at its end.
    pub fn description(&self) -> &str {
        self.description.trim_end_matches('.')
    }

    /// Status, headers and body, as on the proxy: `application/json`, or `application/problem+json`
    /// (RFC 9457) if `Accept` names it.
    pub fn render(self, accept: &HeaderMap, request_id: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
        let mut body = json!({
            "error": self.error,
            "error_description": self.description,
            "status": self.status.as_u16(),
            "request_id": request_id,
        });
        let rfc9457 = asks_for_problem(accept);
        if let Value::Object(fields) = &mut body {
            fields.extend(self.more);
            if rfc9457 {
                fields.insert("type".into(), "about:blank".into());
                fields.insert("title".into(), self.status.canonical_reason().unwrap_or_default().into());
                fields.insert("detail".into(), self.description.into());
            }
        }
        let mut headers = HeaderMap::new();
        let form = if rfc9457 { "application/problem+json" } else { "application/json" };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form));
        for (name, value) in [(header::WWW_AUTHENTICATE, self.challenge), (header::ALLOW, self.allow)] {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(&value).ok()) {
                headers.insert(name, value);
            }
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        (self.status, headers, format!("{body}\n").into_bytes())
    }
}

/// Whether `Accept` names the media type of RFC 9457.
pub(super) fn asks_for_problem(headers: &HeaderMap) -> bool {
    accepted(headers).any(|form| form.eq_ignore_ascii_case("application/problem+json"))
}

/// The media types that `Accept` names, without their parameters.
pub(super) fn accepted(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(|range| Some(range.split(';').next()?.trim()))
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<ErrorDetails> for Problem {
    fn from(details: ErrorDetails) -> Self {
        let ErrorDetails { status, error, description, challenge, allow } = details;
        let (challenge, allow) = (challenge.map(Into::into), allow.map(Into::into));
        // As on the proxy; the description names the field.
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { challenge, allow, retry_after, ..Self::new(status, error, description) }
    }
}

impl From<AttemptRefused> for Problem {
    fn from(refused: AttemptRefused) -> Self {
        let AttemptRefused::TooMany(wait) = refused else { return Self::busy() };
        let text = "Too many wrong passwords: wait before the next one";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", text)
            .retry_after(u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1))
    }
}

impl From<ReadError> for Problem {
    fn from(error: ReadError) -> Self {
        tracing::error!(%error, "failed to read the store");
        Reason::StoreUnavailable.details(None).into()
    }
}

impl From<FenceIncomplete> for Problem {
    fn from(_: FenceIncomplete) -> Self {
        let text = "The change is durable, but not yet in force everywhere";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "fence_incomplete", text)
    }
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refusal) => refusal.into(),
            ChangeError::Stale => Self::stale(),
            ChangeError::IdempotencyKeyReused => {
                let text = "This Idempotency-Key was used with a different request";
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", text)
            }
            ChangeError::RateLimited(seconds) => {
                let text = "The account makes more changes than admin.write_rate allows";
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_changes", text).retry_after(seconds)
            }
            ChangeError::Closed(cause) => {
                tracing::error!(cause, "a change was refused: the store accepts none");
                let text = "Nothing was changed: the store takes no changes. The log says why; \
                            restart permgate when that is mended";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", text)
            }
            ChangeError::Unknown(cause) => {
                tracing::error!(cause, "the store failed while it wrote a change");
                let text = "The store failed while it wrote this change: look whether the change was made before you \
                            repeat it. After an error of the disk, permgate takes changes again once it was restarted";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "store_unavailable", text)
            }
            ChangeError::NotDurable { reason, cut } => {
                tracing::error!(cause = reason, "a change is in force, but not durable");
                let text = "The change is in force, but a restart may lose it";
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_durable", text).with("cut", cut.0)
            }
            ChangeError::FenceIncomplete => FenceIncomplete(std::time::Duration::ZERO).into(),
            ChangeError::Rules(errors) => {
                let text = "The rules of the new configuration conflict";
                let errors: Vec<Value> = errors
                    .iter()
                    .map(|e| json!({"file": &*e.origin.file, "line": e.origin.line, "message": e.message}))
                    .collect();
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_configuration", text)
                    .with("errors", errors)
            }
        }
    }
}

impl From<AdminError> for Problem {
    fn from(refusal: AdminError) -> Self {
        Self::new(refusal.status(), refusal.code.word(), refusal.message)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, header};

    use super::Problem;
    use crate::authz::reason::Reason;

    #[test]
    fn a_503_says_when_to_try_again() {
        let check = |reason: Reason, expected: Option<&str>| {
            let (status, headers, body) = Problem::from(reason.details(None)).render(&HeaderMap::new(), "r");
            let after = headers.get(header::RETRY_AFTER).map(|seconds| seconds.to_str().unwrap());
            assert_eq!(after, expected, "{status} {}", String::from_utf8_lossy(&body));
        };
        check(Reason::OverBudget, Some("1"));
        check(Reason::StoreUnavailable, Some("1"));
        check(Reason::BodyTooLarge, None);
    }

    #[test]
    fn unreadable_input_is_described_without_rust() {
        let check = |message: &str, expected: &str| {
            assert_eq!(
                Problem::unreadable("The body", message).description(),
                format!("The body: {expected}")
            );
        };
        check(
            "invalid length 0, expected struct Create with 7 elements at line 1 column 2",
            "invalid length 0, expected an object at line 1 column 2",
        );
        check(
            "invalid type: string \"youtrack\", expected struct ScopeEntry at line 1 column 31",
            "invalid type: string \"youtrack\", expected an object at line 1 column 31",
        );
        check("invalid type: map, expected a sequence", "invalid type: object, expected a list");
        check(
            "unknown variant `write`, expected `read` or `full`",
            "unknown value `write`, expected `read` or `full`",
        );
        check("limit: invalid digit found in string", "limit: expected a number");
        check("missing field `name` at line 1 column 2", "missing field `name` at line 1 column 2");
    }
}
