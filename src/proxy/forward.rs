//! A passage's way to its upstream and the answer's way back: what is made anew on both.

use std::{mem, rc::Rc, time::Instant};

use http::{HeaderValue, StatusCode, Version};
use http_body::Body as _;

use crate::{
    authz::{answer::Reason, forwarding},
    message::{Request, Response, ResponseHead},
    net::RequestBody,
    proxy::{
        Gateway,
        body::{Body, Upload},
        exchange::{Finish, Passage},
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
        passage: Passage,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Body>, (Rejection, Finish)> {
        let upstream = Rc::clone(passage.upstream());
        prepare(&mut request, upstream.settings());
        let exchange = Rc::clone(passage.exchange());
        let silence = upstream.settings().first_byte_timeout;
        let limit = exchange.upload_limit.get();
        let request = request.map(|body| Upload::new(body, Rc::clone(&exchange), limit, silence));
        match upstream.forward(&passage, request).await {
            Ok((mut answer, lease)) => {
                exchange.upstream_answered.set(Some(Instant::now()));
                exchange.connection.disarm_body_timeout();
                let ResponseHead { status, fields } = &mut *answer;
                let named = matches!(*status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED);
                let protocols = (exchange.upgrade.get() && named)
                    .then(|| fields.get("upgrade").and_then(|value| HeaderValue::from_bytes(value).ok()))
                    .flatten();
                forwarding::edit_response(fields, exchange.request_id.as_bytes());
                if let Some(protocols) = protocols {
                    upgrade::set(fields, &protocols);
                }
                if let Some(taken) = &*exchange.taken.borrow() {
                    taken.tell(fields);
                }
                exchange.status.set(status.as_u16());
                if *status == StatusCode::SWITCHING_PROTOCOLS {
                    let switched = switch(answer, lease, passage);
                    return switched.map_err(|finish| (Reason::UpstreamInvalid.into(), finish));
                }
                Ok(answer.map(|download| Body::stream(download, lease, passage)))
            }
            Err(reason) => Err((reason.into(), passage.into_finish())),
        }
    }
}

/// The upstream speaks HTTP no longer; the client learns of it by the same answer.
fn switch(answer: Response<Download>, mut lease: Lease, passage: Passage) -> Result<Response<Body>, Finish> {
    let (ResponseHead { status, mut fields }, download) = answer.into_parts();
    let Some(switched) = lease.switch(download) else { return Err(passage.into_finish()) };
    // It means nothing before a tunnel.
    fields.remove("content-length");
    let tunnel = Tunnel::new(switched, lease, passage.upstream().settings());
    tunnel.begin(passage.into_finish());
    Ok(Response::from_parts(ResponseHead { status, fields }, Body::none()))
}

/// The request line and what frames the body, made for the upstream's connection.
fn prepare(request: &mut Request<RequestBody>, settings: &UpstreamSettings) {
    let old = mem::replace(&mut request.version, Version::HTTP_11) == Version::HTTP_10;
    if let Some(host) = &settings.host {
        request.fields.set("host", host);
    } else if old
        && !request.fields.has("host")
        && let Some(WeightedUrl { url, .. }) = settings.urls.first()
    {
        // It may lack what HTTP/1.1 must have.
        request.fields.set("host", &url.authority());
    }
    let body = &request.body;
    if !body.is_end_stream() && body.size_hint().exact().is_none() {
        // Said outright: without a length, a GET passes for one without a body.
        request.fields.set("transfer-encoding", &HeaderValue::from_static("chunked"));
    }
}
