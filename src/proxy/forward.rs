//! A passage's way to its upstream and the answer's way back: what is made anew on both.

use std::{mem, rc::Rc, time::Instant};

use http::{HeaderValue, Method, StatusCode, Version};
use http_body::Body as _;

use crate::{
    authz::{answer::Reason, forwarding},
    message::{Request, Response, ResponseHead},
    net::RequestBody,
    proxy::{
        Gateway,
        body::{Body, Upload},
        exchange::{Finish, Passage},
        grpc,
        rejection::Rejection,
        tunnel::Tunnel,
        upgrade,
        upstream::{
            Answer,
            settings::{UpstreamSettings, WeightedUrl},
        },
        via,
    },
};

/// How often a request may come back: once or twice somebody may mean it.
const MAX_ROUNDS: usize = 3;

impl Gateway {
    pub(super) async fn forward(
        &self,
        passage: Passage,
        mut request: Request<RequestBody>,
    ) -> Result<Response<Body>, (Rejection, Finish)> {
        let upstream = Rc::clone(passage.upstream());
        let multiplexed = request.version == Version::HTTP_2;
        if via::rounds(&request.fields) > MAX_ROUNDS {
            let upstream = &upstream.settings().name;
            tracing::warn!(%upstream, "a request came back again and again: the upstream is this gateway");
            return Err((Reason::UpstreamInvalid.into(), passage.into_finish()));
        }
        via::append(&mut request);
        prepare(&mut request, upstream.settings());
        let exchange = Rc::clone(passage.exchange());
        let limit = exchange.upload_limit.get();
        let request = request.map(|body| Upload::new(body, Rc::clone(&exchange), limit));
        let answer = upstream.send(&passage, request.into()).await;
        let finish = passage.into_finish();
        let (mut head, upgraded) = match answer {
            Ok(Answer::Response(response)) => {
                let response = Response::from(response);
                let kind = response.fields.get("content-type");
                let grpc = multiplexed && kind.is_some_and(grpc::is_grpc);
                let (head, response) = response.into_parts();
                (head, Ok((response, grpc)))
            }
            Ok(Answer::Upgraded(response, upgraded)) => {
                let (mut head, ()) = Response::from(response).into_parts();
                // It means nothing before a tunnel.
                head.fields.remove("content-length");
                (head, Err(upgraded))
            }
            Err(reason) => return Err((reason.into(), finish)),
        };
        exchange.upstream_answered.set(Some(Instant::now()));
        exchange.connection.hurry_no_more();
        let ResponseHead { status, fields } = &mut head;
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
        let body = match upgraded {
            Ok((response, grpc)) => Body::stream(response, grpc, finish),
            // The upstream speaks HTTP no longer; the client learns of it by the same answer.
            Err(upgraded) => Body::tunnel(Tunnel::new(upgraded, upstream.settings()), finish),
        };
        Ok(Response::from_parts(head, body))
    }
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
    // RFC 9110, 8.6: there are servers that ask for a length otherwise.
    let means_content = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
    if means_content && request.body.is_end_stream() && !request.fields.has("content-length") {
        request.fields.set("content-length", &HeaderValue::from_static("0"));
    }
}
