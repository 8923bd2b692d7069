//! Every outcome that is not forwarded, and the one map from it to what the client gets.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use crate::{
    authz::{
        answer::{Answer, Reason},
        decide::Denial,
    },
    message::{self, Request, Response},
    proxy::{
        grpc,
        limits::{Exceeded, Fields, seconds},
        own::Own,
        request_id::RequestId,
    },
};

/// Why a request is not forwarded, with what is told.
#[derive(Debug)]
pub struct Rejection {
    pub reason: Reason,
    answer: Answer,
    /// Seconds.
    retry_after: Option<u32>,
    /// Boxed: hardly a refusal has them, and all would be as large.
    limits: Option<Box<Fields>>,
}

/// How a refusal is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// RFC 9457.
    Problem,
    Grpc,
}

/// After a 503 of ours.
const RETRY_UNAVAILABLE: u32 = 1;

impl Rejection {
    fn told(reason: Reason, answer: Answer) -> Self {
        let retry_after = (answer.status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_UNAVAILABLE);
        Self { reason, answer, retry_after, limits: None }
    }

    pub fn too_many(wait: Duration) -> Self {
        Self { retry_after: Some(whole(wait)), ..Self::from(Reason::TooManyBadTokens) }
    }

    /// What is the gateway's own takes no other methods than these.
    pub fn method_not_allowed(allow: &str) -> Self {
        let mut rejection = Self::from(Reason::MethodNotAllowed);
        rejection.answer.allow = Some(allow.to_owned());
        rejection
    }

    /// For a proxy that takes no other refusals than 401 and 403; the body still says which it is.
    pub fn for_proxy(mut self) -> Self {
        if self.answer.status != StatusCode::UNAUTHORIZED {
            self.answer.status = StatusCode::FORBIDDEN;
        }
        self
    }

    pub fn status(&self) -> StatusCode {
        self.answer.status
    }

    pub fn into_response(self, form: Form, request_id: &RequestId) -> Response<Bytes> {
        let (answer, problem) = (self.answer, form == Form::Problem);
        let mut response = Response::new(text(&answer, request_id, problem));
        response.status = answer.status;
        let fields = &mut response.fields;
        let kind = if problem { "application/problem+json" } else { "application/json" };
        fields.add("content-type", &HeaderValue::from_static(kind));
        fields.add("cache-control", &HeaderValue::from_static("no-store"));
        fields.add_text("x-request-id", request_id.as_bytes());
        for (name, value) in [("www-authenticate", answer.challenge), ("allow", answer.allow)] {
            if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
                fields.add(name, &value);
            }
        }
        if let Some(wait) = self.retry_after {
            fields.add("retry-after", &HeaderValue::from(wait));
        }
        if let Some(limits) = self.limits {
            limits.tell(fields);
        }
        if form == Form::Grpc { grpc::refusal(self.reason, &answer.description, response) } else { response }
    }
}

impl From<Reason> for Rejection {
    fn from(reason: Reason) -> Self {
        Self::told(reason, reason.answer(None))
    }
}

impl From<Exceeded> for Rejection {
    fn from(exceeded: Exceeded) -> Self {
        let Exceeded { reason, wait, fields } = exceeded;
        Self { retry_after: Some(whole(wait)), limits: fields.map(Box::new), ..Self::from(reason) }
    }
}

impl From<Denial<'_>> for Rejection {
    fn from(denial: Denial<'_>) -> Self {
        Self::told(denial.reason, denial.answer())
    }
}

impl Form {
    pub fn asked_for<B>(request: &Request<B>) -> Self {
        if grpc::asks(request) {
            Self::Grpc
        } else if asks_for_problem(&request.fields) {
            Self::Problem
        } else {
            Self::Json
        }
    }

    /// gRPC's refusals have status 200, which a proxy that asks takes for a permit.
    pub fn of_own(self, own: Own) -> Self {
        if own == Own::Auth && self == Self::Grpc { Self::Json } else { self }
    }
}

/// Never too soon, never at once.
fn whole(wait: Duration) -> u32 {
    u32::try_from(seconds(wait)).unwrap_or(u32::MAX).max(1)
}

/// Whether `Accept` names the form of RFC 9457.
fn asks_for_problem(fields: &message::Fields) -> bool {
    let named = |value: &[u8]| {
        let kinds = value.split(|byte| *byte == b',');
        kinds
            .map(|kind| kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
            .any(|kind| kind.eq_ignore_ascii_case(b"application/problem+json"))
    };
    // Hardly a value is long enough to name it.
    fields.all("accept").filter(|value| value.len() >= "application/problem+json".len()).any(named)
}

/// One object of strings and the status, its members in the order of their names.
fn text(answer: &Answer, request_id: &RequestId, problem: bool) -> Bytes {
    let title = answer.status.canonical_reason().unwrap_or_default();
    let mut body = String::with_capacity(TEXT);
    body.push('{');
    if problem {
        put_text(&mut body, "\"detail\":", &answer.description);
        body.push(',');
    }
    put_text(&mut body, "\"error\":", answer.error);
    put_text(&mut body, ",\"error_description\":", &answer.description);
    put_text(&mut body, ",\"request_id\":", request_id.as_str());
    body.push_str(",\"status\":");
    body.push_str(answer.status.as_str());
    if problem {
        put_text(&mut body, ",\"title\":", title);
        body.push_str(",\"type\":\"about:blank\"");
    }
    body.push('}');
    body.into()
}

/// Room for most of them.
const TEXT: usize = 512;

/// A member that is a string. Refusals come in floods, and hardly one has anything to escape.
fn put_text(body: &mut String, name: &str, text: &str) {
    body.push_str(name);
    let escaped = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    // All bytes, since hardly a text has one: compilers look at sixteen in a step then.
    if text.bytes().fold(false, |found, byte| found | escaped(byte)) {
        body.push_str(&serde_json::Value::from(text).to_string());
    } else {
        body.push('"');
        body.push_str(text);
        body.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::request_id::RequestIds;

    #[test]
    fn every_refusal_is_an_object_of_its_own_words() {
        let id = RequestIds::new().make();
        for reason in Reason::ALL {
            let answer = reason.answer(Some("tracker"));
            for problem in [false, true] {
                let told: serde_json::Value =
                    serde_json::from_slice(&text(&answer, &id, problem)).expect("JSON");
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
                assert_eq!(told, expected, "{reason:?}");
            }
        }
    }

    #[test]
    fn a_refusal_to_a_proxy_that_asks_never_looks_like_a_permit() {
        let check = |own, form: Form, status: u16| {
            let response = Rejection::from(Reason::TokenRevoked)
                .for_proxy()
                .into_response(form.of_own(own), &RequestIds::new().make());
            assert_eq!(response.status, status, "{own:?} {form:?}");
        };
        for form in [Form::Json, Form::Problem, Form::Grpc] {
            check(Own::Auth, form, 401);
        }
        check(Own::Whoami, Form::Grpc, 200);
    }
}
