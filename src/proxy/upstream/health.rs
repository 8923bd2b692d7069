//! Active health checks of one URL, through the same kind of connection as requests and without credentials.

use std::{rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};

use crate::{
    authz::reason::Reason,
    net::Clock,
    proxy::upstream::{
        body::{IncomingBody, OutgoingBody},
        connector::ConnectError,
        endpoint::{Endpoint, Purpose},
        endpoint_health::EndpointHealth,
    },
    settings::{Health, UpstreamSettings},
};

/// How much of a check's response body is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Checks one URL until dropped.
pub(super) async fn check_until_dropped(
    check: Health,
    settings: Arc<UpstreamSettings>,
    place: usize,
    health: Arc<EndpointHealth>,
    clock: Clock,
) {
    let url = &settings.urls[place].url;
    let endpoint = Endpoint::new(url, &settings, health.clone(), None, None);
    let host = settings.host.clone().unwrap_or_else(|| url.authority());
    let mut against = 0;
    loop {
        let outcome =
            match tokio::time::timeout(check.timeout, check_once(&endpoint, &host, &check, &clock)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(Unhealthy::Silent(check.timeout)),
            };
        // Only consecutive outcomes that contradict the current state count.
        against = if outcome.is_ok() == health.is_up() { 0 } else { against + 1 };
        match outcome {
            Ok(()) if against >= check.rise => {
                health.set_up(true);
                health.succeeded();
                tracing::info!(upstream = %settings.name, %url, "up: its health checks pass");
                against = 0;
            }
            Err(why) if against >= check.fall => {
                health.set_up(false);
                tracing::warn!(upstream = %settings.name, %url, %why, "down: its health checks fail");
                against = 0;
            }
            _ => {}
        }
        tokio::time::sleep(check.interval).await;
    }
}

async fn check_once(
    endpoint: &Rc<Endpoint>,
    host: &HeaderValue,
    check: &Health,
    clock: &Clock,
) -> Result<(), Unhealthy> {
    let mut request = Box::new(Request::new(OutgoingBody::empty()));
    *request.uri_mut() = check.path.clone().into();
    request.headers_mut().insert(header::HOST, host.clone());
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("permgate-health"));
    let mut connection =
        endpoint.connect(check.timeout, clock, None, Purpose::Requests).await.map_err(Unhealthy::Connect)?;
    let response = connection.send(request, check.timeout, false).await;
    let response = response.map_err(|failure| Unhealthy::NoResponse(failure.reason))?;
    let status = response.status();
    let body = IncomingBody::new(response.into_body(), connection, check.timeout);
    // Reads the body, so that the upstream does not log an aborted response. An endless one is aborted.
    let _ = Limited::new(body, MAX_ANSWER).collect().await;
    // The next check opens a new connection.
    while endpoint.close_one() {}
    let sound = match check.status {
        Some(expected) => status == expected,
        None => status.is_success() || status.is_redirection(),
    };
    if sound { Ok(()) } else { Err(Unhealthy::Status(status)) }
}

#[derive(Debug, thiserror::Error)]
enum Unhealthy {
    #[error("cannot connect: {0}")]
    Connect(#[source] ConnectError),
    #[error("{}", .0.code())]
    NoResponse(Reason),
    #[error("responded {0}")]
    Status(StatusCode),
    #[error("no response within {0:?}")]
    Silent(Duration),
}
