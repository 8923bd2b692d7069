//! A permitted's way to its upstream and the answer's way back: what is made anew on both.

use std::{mem, rc::Rc, time::Instant};

use http::{HeaderValue, Request, Response, StatusCode, Version, header};
use http_body::Body as _;

use crate::{
    authz::{answer::Reason, forwarding},
    net::RequestBody,
    proxy::{
        Gateway,
        body::{Body, Upload},
        permitted::{LogGuard, Permitted},
        rejection::Rejection,
        tunnel::Tunnel,
        upgrade,
        upstream::{
            Download, Lease,
            settings::{UpstreamSettings, WeightedUrl},
        },
    },
};

impl Gateway {
    pub(super) async fn forward(
        &self,
        permitted: Permitted,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Body>, (Rejection, LogGuard)> {
        let upstream = Rc::clone(permitted.upstream());
        prepare(&mut request, upstream.settings());
        let context = Rc::clone(permitted.context());
        let silence = upstream.settings().first_byte_timeout;
        let limit = permitted.body_limit;
        let request = request.map(|body| Upload::new(body, Rc::clone(&context), limit, silence));
        match upstream.forward(&permitted, request.into()).await {
            Ok((answer, lease)) => {
                let mut answer = Response::from(answer);
                context.outcome.upstream_answered.set(Some(Instant::now()));
                context.connection.hurry_no_more();
                let status = answer.status();
                let headers = answer.headers_mut();
                let named = matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
                let protocols =
                    (context.facts.upgrade && named).then(|| headers.get(header::UPGRADE).cloned()).flatten();
                forwarding::edit_response(headers, context.request_id.as_bytes());
                if let Some(protocols) = protocols {
                    upgrade::set(headers, protocols);
                }
                if let Some(limits) = permitted.guard().limits() {
                    limits.set_headers(headers);
                }
                context.outcome.status.set(status.as_u16());
                if status == StatusCode::SWITCHING_PROTOCOLS {
                    let switched = switch(answer, lease, permitted);
                    return switched.map_err(|guard| (Reason::UpstreamInvalid.into(), guard));
                }
                Ok(answer.map(|download| Body::stream(download, lease, permitted)))
            }
            Err(reason) => Err((reason.into(), permitted.into_guard())),
        }
    }
}

/// The upstream speaks HTTP no longer; the client learns of it by the same answer.
fn switch(
    answer: Response<Download>,
    mut lease: Lease,
    permitted: Permitted,
) -> Result<Response<Body>, LogGuard> {
    let (mut parts, download) = answer.into_parts();
    let Some(switched) = lease.switch(download) else { return Err(permitted.into_guard()) };
    // It means nothing before a tunnel.
    parts.headers.remove(header::CONTENT_LENGTH);
    let tunnel = Tunnel::new(switched, lease, permitted.upstream().settings());
    Ok(Response::from_parts(parts, Body::tunnel(tunnel, permitted.into_guard())))
}

/// The request line and what frames the body, made for the upstream's connection.
fn prepare(request: &mut Request<RequestBody>, settings: &UpstreamSettings) {
    let old = mem::replace(request.version_mut(), Version::HTTP_11) == Version::HTTP_10;
    if let Some(host) = &settings.host {
        request.headers_mut().insert(header::HOST, host.clone());
    } else if old
        && !request.headers().contains_key(header::HOST)
        && let Some(WeightedUrl { url, .. }) = settings.urls.first()
    {
        // It may lack what HTTP/1.1 must have.
        request.headers_mut().insert(header::HOST, url.authority());
    }
    let body = request.body();
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Said outright: without a length, a GET passes for one without a body.
        request.headers_mut().insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}
