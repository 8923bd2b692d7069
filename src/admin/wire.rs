//! The wire format: JSON bodies and responses, times, revisions and pages.

use axum::{
    extract::{FromRequest, Request},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, de::DeserializeOwned, ser};
use serde_json::{Value, json};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type},
};
use zeroize::{Zeroize as _, Zeroizing};

use super::{ApiResult, Problem, guard::has_media_type};
use crate::{
    authz::{secret, time::Timestamp},
    store::Updated,
};

pub use duration::HumanDuration;

mod duration;

/// Room for a token's record with the longest scope, networks and note, in bytes.
const MAX_SECRET_RESPONSE: usize = 16 << 10;
/// Characters left as they are in path segments and query values: unreserved (RFC 3986 section 2.3) and `@`.
pub const UNRESERVED: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@');

const JSON: &str = "application/json";

/// A JSON request body. Its types refuse unknown fields.
pub struct Json<T>(pub T);

/// As [`Json`], but an empty body stands for an object without fields.
pub struct Optional<T>(pub T);

/// A JSON request body, with the hash of path and bytes that an idempotency key is bound to.
pub struct BodyDigest<T> {
    pub value: T,
    pub hash: [u8; 32],
}

/// No body, or one without fields: fields of a JSON object are refused as in any other body. The first
/// release ignored every body, so others still are; a form may repeat the CSRF token.
pub struct NoBody;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoFields {}

/// RFC 3339, UTC, milliseconds: `2026-01-31T12:00:00.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub Timestamp);

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// The `cursor=` of the next page; `None` on the last page.
    pub next: Option<String>,
}

impl<T> Page<T> {
    pub fn map<U>(self, view: impl FnMut(T) -> U) -> Page<U> {
        Page { items: self.items.into_iter().map(view).collect(), next: self.next }
    }
}

/// Adds how many requests were cut and, in a cluster, which nodes confirmed the change or lost their permit.
pub(super) fn with_effect<T>(mut body: Value, changed: &Updated<T>) -> Value {
    body["cut"] = changed.cut.0.into();
    if let Some(nodes) = &changed.nodes {
        body["nodes"] = json!({"confirmed": nodes.confirmed, "lapsed": nodes.lapsed});
    }
    body
}

/// A JSON response. It ends with a newline, because people read it in terminals.
pub fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(mut bytes) => {
            bytes.push(b'\n');
            (status, [(header::CONTENT_TYPE, JSON)], bytes).into_response()
        }
        Err(error) => unwritable(&error),
    }
}

/// As [`json_response`], for a body with a secret: our copy is overwritten once it has been sent.
pub fn secret_json_response(status: StatusCode, body: &impl Serialize) -> Response {
    // A growing buffer would leave smaller copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_SECRET_RESPONSE));
    match serde_json::to_writer(&mut *bytes, body) {
        Ok(()) => {
            bytes.push(b'\n');
            (status, [(header::CONTENT_TYPE, JSON)], Bytes::from_owner(bytes)).into_response()
        }
        Err(error) => unwritable(&error),
    }
}

/// Overwrites a secret that had to be put into a JSON value.
pub fn zeroize_json(value: serde_json::Value) {
    if let serde_json::Value::String(mut text) = value {
        text.zeroize();
    }
}

fn unwritable(error: &serde_json::Error) -> Response {
    tracing::error!(%error, "failed to encode a response");
    Problem::internal("The answer could not be written").into_response()
}

pub fn ok(body: &impl Serialize) -> Response {
    json_response(StatusCode::OK, body)
}

/// A response with the record's revision as its `ETag`.
pub fn revised(revision: u64, body: &impl Serialize) -> Response {
    tagged(ok(body), revision)
}

/// Adds the record's revision as `ETag`.
pub fn tagged(mut response: Response, revision: u64) -> Response {
    let tag = HeaderValue::try_from(format!("\"{revision}\"")).expect("a quoted number is a field value");
    response.headers_mut().insert(header::ETAG, tag);
    response
}

/// The changed record, with what the change has cut.
pub(super) fn updated<T>(view: &impl Serialize, revision: u64, changed: &Updated<T>) -> Response {
    revised(revision, &with_effect(json!(view), changed))
}

/// The response to the deletion of a record.
pub(super) fn deleted<T>(changed: &Updated<T>) -> Response {
    ok(&with_effect(json!({"deleted": true}), changed))
}

/// Turns the response into a 201 with the record's `Location`.
pub(super) fn created(mut response: Response, section: &str, name: &str) -> Response {
    *response.status_mut() = StatusCode::CREATED;
    located(response, section, name)
}

/// `/users/ann`, with the name percent-encoded.
pub fn link(section: &str, name: &str) -> String {
    format!("{section}/{}", utf8_percent_encode(name, UNRESERVED))
}

/// Adds the record's `Location`.
pub(super) fn located(mut response: Response, section: &str, name: &str) -> Response {
    let location = HeaderValue::try_from(link(section, name)).expect("an encoded path is ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    response
}

/// The revision in `If-Match`; `None` for `*` or no header. Any other tag is a 412.
pub fn if_match(headers: &HeaderMap) -> ApiResult<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let value = value.to_str().map_or("", str::trim);
    if value == "*" {
        return Ok(None);
    }
    let tag = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    // A tag that permgate never issued matches no revision.
    tag.and_then(|tag| tag.parse().ok()).map(Some).ok_or_else(Problem::stale)
}

/// Parses a JSON body: 415 for another media type, 400 for invalid JSON.
pub fn read<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> ApiResult<T> {
    if !has_media_type(headers, JSON) {
        let text = "The request body must be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", text));
    }
    parse(bytes)
}

/// As [`read`], but an empty body stands for an object without fields.
fn read_optional<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> ApiResult<T> {
    if bytes.is_empty() { parse(b"{}") } else { read(headers, bytes) }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> ApiResult<T> {
    // The parser's message may quote the body.
    serde_json::from_slice(bytes)
        .map_err(|error| Problem::unreadable("The request body", &secret::redact(&error.to_string())))
}

async fn collect(request: Request) -> ApiResult<(HeaderMap, Bytes)> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Problem::invalid("The request body ended early"))?;
    Ok((parts.headers, body.to_bytes()))
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let (headers, bytes) = collect(request).await?;
        read(&headers, &bytes).map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Optional<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let (headers, bytes) = collect(request).await?;
        read_optional(&headers, &bytes).map(Self)
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for BodyDigest<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let target = request.uri().path().to_owned();
        let (headers, bytes) = collect(request).await?;
        let mut hasher = blake3::Hasher::new();
        hasher.update(target.as_bytes()).update(b"\n").update(&bytes);
        let hash = *hasher.finalize().as_bytes();
        // Rotation works without a body.
        Ok(Self { value: read_optional(&headers, &bytes)?, hash })
    }
}

impl<S: Sync> FromRequest<S> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> ApiResult<Self> {
        let (headers, bytes) = collect(request).await?;
        if has_media_type(&headers, JSON) && !bytes.trim_ascii().is_empty() {
            parse::<Option<NoFields>>(&bytes)?;
        }
        Ok(Self)
    }
}

impl Time {
    pub fn now() -> Timestamp {
        std::time::SystemTime::now().into()
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = jiff::Timestamp::from_millisecond(self.0.as_millis()).map_err(ser::Error::custom)?;
        serializer.collect_str(&format_args!("{time:.3}"))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let time: jiff::Timestamp =
            text.parse().map_err(|_| de::Error::custom("expected a time as 2026-01-31T12:00:00Z"))?;
        Ok(Self(Timestamp::from_millis(time.as_millisecond())))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        let form = SchemaFormat::KnownFormat(KnownFormat::DateTime);
        ObjectBuilder::new().schema_type(Type::String).format(Some(form)).into()
    }
}

impl ToSchema for Time {}

/// Deserializes a field that may be absent, set, or cleared with `null`.
pub fn double_option<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        fn check(sent: &str, expected: Option<&str>) {
            let time = serde_json::from_str::<Time>(&format!("\"{sent}\""));
            let back = time.ok().map(|time| serde_json::to_string(&time).unwrap());
            assert_eq!(back, expected.map(|text| format!("\"{text}\"")), "{sent}");
        }
        check("2026-06-30T00:00:00Z", Some("2026-06-30T00:00:00.000Z"));
        check("2026-06-30T00:00:00.5Z", Some("2026-06-30T00:00:00.500Z"));
        check("2026-06-30T02:00:00+02:00", Some("2026-06-30T00:00:00.000Z"));
        check("2026-06-30T00:00:00", None);
        check("2026-06-30", None);
        check("tomorrow", None);
    }

    #[test]
    fn if_match_names_a_revision() {
        fn check(sent: Option<&'static str>, expected: Result<Option<u64>, StatusCode>) {
            let mut headers = HeaderMap::new();
            if let Some(sent) = sent {
                headers.insert(header::IF_MATCH, HeaderValue::from_static(sent));
            }
            assert_eq!(if_match(&headers).map_err(|problem| problem.status()), expected, "{sent:?}");
        }
        check(None, Ok(None));
        check(Some("*"), Ok(None));
        check(Some("\"7\""), Ok(Some(7)));
        check(Some("7"), Err(StatusCode::PRECONDITION_FAILED));
        check(Some("W/\"7\""), Err(StatusCode::PRECONDITION_FAILED));
        check(Some("\"other\""), Err(StatusCode::PRECONDITION_FAILED));
    }
}
