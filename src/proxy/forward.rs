//! Sends a permitted request to its upstream and edits the response for the client. A token that is about to
//! expire is announced in it, so that a pipeline's owner learns of it in time.

use std::{
    mem,
    sync::LazyLock,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body::Body as _;
use jiff::fmt::rfc2822::DateTimePrinter;

use crate::{
    authz::{
        carriers,
        decide::Permit,
        forwarding::{self, list_elements},
        reason::Reason,
        time::Timestamp,
    },
    proxy::{
        Gateway,
        body::ResponseBody,
        grpc,
        permitted::{LogGuard, Permitted},
        rejection::Rejection,
        tunnel::Tunnel,
        upgrade,
        upstream::{self, OutgoingBody, Upstream, UpstreamResponse},
    },
    settings::UpstreamSettings,
};

/// The most entries of this gateway in `Via` (RFC 9110, section 7.6.3). A chain may pass it twice on purpose.
const MAX_PASSES: usize = 3;

/// This process's pseudonym in `Via`. It is random, so a chain of several gateways does not look like a loop.
static VIA_PSEUDONYM: LazyLock<String> = LazyLock::new(|| {
    let mut id = [0; 4];
    // Without randomness all gateways share a pseudonym, and only long chains of them are refused.
    let _ = getrandom::fill(&mut id);
    format!("permgate-{:08x}", u32::from_be_bytes(id))
});

/// The `Via` entry for each version of a received request.
static VIA_ENTRIES: LazyLock<[HeaderValue; 3]> = LazyLock::new(|| {
    ["1.0", "1.1", "2.0"].map(|version| {
        HeaderValue::try_from(format!("{version} {}", *VIA_PSEUDONYM)).expect("a pseudonym is visible ASCII")
    })
});

impl Gateway {
    pub(super) async fn forward(
        &self,
        upstream: &Upstream,
        mut permitted: Permitted,
    ) -> Result<Response<ResponseBody>, (Rejection, LogGuard)> {
        let settings = upstream.settings();
        let request = permitted.request_mut();
        let is_http2 = request.version() == Version::HTTP_2;
        if is_http2 && upstream::is_stream(request.headers()) {
            // The client may pause between its messages; the upstream's `stream_idle` limits how long.
            permitted.guard().context().connection.disarm_body_timeout();
        }
        let request = permitted.request_mut();
        let rounds = count_passes(request.headers());
        append_via(request);
        prepare(request, settings);
        if rounds > MAX_PASSES {
            if self.loop_warnings.is_due(Instant::now()) {
                tracing::warn!(upstream = %settings.name, "a request loops through this gateway: the upstream sends it back here");
            }
            return Err((Reason::UpstreamInvalid.into(), permitted.into_parts().0));
        }
        let (guard, response) = upstream.send(permitted).await;
        // `net` presents an extended CONNECT of HTTP/2 as a request with Upgrade.
        let is_extended_connect = !is_http2 && guard.context().connection.is_stream();
        let (mut head, body) = match response {
            Ok(UpstreamResponse::Response(response)) => {
                let (head, body) = response.into_parts();
                if is_extended_connect && head.status.is_success() {
                    // To the client, a success would mean that it has a tunnel.
                    let (reason, status) = (Reason::UpstreamInvalid, StatusCode::NOT_IMPLEMENTED);
                    let text = "The service did not open the WebSocket".to_owned();
                    return Err((Rejection::described(reason, status, "not_implemented", text), guard));
                }
                (head, Ok(body))
            }
            Ok(UpstreamResponse::Upgraded(response, upgraded)) => {
                let (mut head, ()) = response.into_parts();
                // A content length has no meaning before a tunnel.
                head.headers.remove(header::CONTENT_LENGTH);
                (head, Err(upgraded))
            }
            Err(reason) => return Err((reason.into(), guard)),
        };
        // Version and extensions belong to the upstream's connection.
        (head.version, head.extensions) = (Version::default(), http::Extensions::new());
        let context = guard.context();
        context.outcome.upstream_responded.set(Some(Instant::now()));
        context.outcome.status.set(head.status.as_u16());
        context.connection.disarm_body_timeout();
        let headers = &mut head.headers;
        let protocols = match head.status {
            StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED => {
                headers.get(header::UPGRADE).cloned()
            }
            _ => None,
        };
        forwarding::edit_response(headers, context.request_id.value());
        if let Some(protocols) = protocols {
            upgrade::set(headers, protocols);
        }
        let rules = &context.rules;
        if rules.carriers().is_some()
            && let Some(service) = context.outcome.service.get().and_then(|id| rules.service(id))
        {
            let used = context.carrier().and_then(|carrier| carrier.kind());
            carriers::restrict_caching(headers, &service.spec.credentials, used);
        }
        if let Some(end) = context.outcome.sunset.get() {
            set_sunset(headers, end, context.at);
        }
        if let Some(fields) = guard.limits().and_then(|limits| limits.fields.as_ref()) {
            fields.set_headers(headers);
        }
        let body = match body {
            Ok(body) => {
                let kind = headers.get(header::CONTENT_TYPE);
                let is_grpc = is_http2 && kind.is_some_and(|kind| grpc::is_grpc_media_type(kind.as_bytes()));
                let bodiless = context.method == Method::HEAD
                    || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
                ResponseBody::stream(body, is_grpc, bodiless, guard)
            }
            // The tunnel starts once the client has received this 101.
            Err(upgraded) => {
                Tunnel::new(upgraded, settings).begin(guard);
                ResponseBody::none()
            }
        };
        Ok(Response::from_parts(head, body))
    }
}

/// Sets version, Host and body framing for the upstream's connection.
fn prepare(request: &mut Request<OutgoingBody>, settings: &UpstreamSettings) {
    let is_old = mem::replace(request.version_mut(), Version::HTTP_11) == Version::HTTP_10;
    let is_empty = request.body().is_end_stream();
    let has_length = request.body().size_hint().exact().is_some();
    let may_have_content = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    // Servers that do not read such a body take it for the next request, which nobody has judged, unless they
    // close the connection (RFC 9110, section 9.3.1).
    let has_odd_content = !is_empty
        && matches!(*request.method(), Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS);
    let closes = has_odd_content || settings.idle_timeout.is_zero();
    let headers = request.headers_mut();
    if let Some(host) = &settings.host {
        headers.insert(header::HOST, host.clone());
    } else if is_old
        && !headers.contains_key(header::HOST)
        && let Some(host) = settings.own_host()
    {
        // HTTP/1.1 requires Host, HTTP/1.0 does not.
        headers.insert(header::HOST, host);
    }
    if !is_empty && !has_length {
        // Set explicitly, because hyper drops the body of a GET without a length.
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if closes && !headers.contains_key(header::UPGRADE) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    // RFC 9110, section 8.6: some servers require a length.
    if may_have_content && is_empty && !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
}

/// How often the request has passed through this gateway.
fn count_passes(headers: &HeaderMap) -> usize {
    let received_by = |entry: &[u8]| {
        let mut words = entry.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        words.nth(1).is_some_and(|by| by == VIA_PSEUDONYM.as_bytes())
    };
    list_elements(headers, header::VIA).filter(|entry| received_by(entry)).count()
}

/// Appends this gateway's entry to `Via`.
fn append_via(request: &mut Request<OutgoingBody>) {
    let [http10, http11, http2] = &*VIA_ENTRIES;
    let entry = match request.version() {
        Version::HTTP_10 => http10,
        Version::HTTP_2 => http2,
        _ => http11,
    };
    request.headers_mut().append(header::VIA, entry.clone());
}

const DEPRECATION: HeaderName = HeaderName::from_static("deprecation");
const SUNSET: HeaderName = HeaderName::from_static("sunset");

/// Returns the end to announce: that of a replaced token's grace period, or an expiry within `window`.
pub(super) fn announced_end(permit: &Permit<'_>, window: Duration, now: Timestamp) -> Option<Timestamp> {
    let token = permit.subject()?.token;
    let latest = now.plus_seconds(i64::try_from(window.as_secs()).unwrap_or(i64::MAX));
    let expiry = token.expires_at.filter(|end| *end <= latest);
    expiry.into_iter().chain(token.restrictions.end.grace_until()).min()
}

/// Sets both fields. They replace the upstream's own, which a client could not tell
/// apart; the token's expiry matters more.
fn set_sunset(headers: &mut HeaderMap, end: Timestamp, now: Timestamp) {
    let since = format!("@{}", now.as_millis().div_euclid(1000));
    let Ok(end) = jiff::Timestamp::from_millisecond(end.as_millis()) else { return };
    let Ok(end) = DateTimePrinter::new().timestamp_to_rfc9110_string(&end) else { return };
    for (name, value) in [(DEPRECATION, since), (SUNSET, end)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announced_end_follows_the_standards() {
        let mut headers = HeaderMap::new();
        set_sunset(
            &mut headers,
            Timestamp::from_millis(1_780_315_200_000),
            Timestamp::from_millis(1_780_315_100_999),
        );
        assert_eq!(headers["deprecation"], "@1780315100");
        assert_eq!(headers["sunset"], "Mon, 01 Jun 2026 12:00:00 GMT");
    }
}
