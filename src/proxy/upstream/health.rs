//! Asks a url again and again whether it serves, over the same connections that requests go by, and
//! without anybody's credentials.

use std::{fmt, rc::Rc, sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, Version};

use crate::{
    authz::answer::Reason,
    message::{Fields, Request, RequestHead, Target},
    net::Clock,
    proxy::{
        body::Upload,
        upstream::{
            endpoint::Endpoint,
            negotiate::ConnectError,
            settings::{Health, UpstreamSettings},
            standing::Standing,
        },
    },
};

/// Checks one url for as long as it is polled.
pub(super) async fn keep(
    health: Health,
    settings: Arc<UpstreamSettings>,
    place: usize,
    standing: Arc<Standing>,
    clock: Clock,
) {
    let url = &settings.urls[place].url;
    let endpoint = Endpoint::new(url, &settings, standing.clone(), None);
    let host = settings.host.clone().unwrap_or_else(|| url.authority());
    let mut against = 0;
    loop {
        let outcome = match tokio::time::timeout(health.timeout, ask(&endpoint, &host, &health, &clock)).await
        {
            Ok(outcome) => outcome,
            Err(_) => Err(Unhealthy::Silent(health.timeout)),
        };
        // Only what speaks against the present state counts, and only in a row.
        against = if outcome.is_ok() == standing.is_up() { 0 } else { against + 1 };
        match outcome {
            Ok(()) if against >= health.rise => {
                standing.set_up(true);
                standing.succeeded();
                tracing::info!(upstream = %settings.name, %url, "up: its health checks pass");
                against = 0;
            }
            Err(why) if against >= health.fall => {
                standing.set_up(false);
                tracing::warn!(upstream = %settings.name, %url, %why, "down: its health checks fail");
                against = 0;
            }
            _ => {}
        }
        tokio::time::sleep(health.interval).await;
    }
}

async fn ask(
    endpoint: &Rc<Endpoint>,
    host: &HeaderValue,
    health: &Health,
    clock: &Clock,
) -> Result<(), Unhealthy> {
    let mut fields = Fields::default();
    fields.add("host", host);
    fields.add("user-agent", &HeaderValue::from_static("permgate-health"));
    let target = Target::from(&health.path);
    let head = RequestHead { method: Method::GET, target, version: Version::HTTP_11, fields };
    let request = Request::from_parts(head, Upload::none());
    let mut lease = endpoint.connect(health.timeout, clock, None, false).await.map_err(Unhealthy::Connect)?;
    let answer = lease.send(request, health.timeout, false).await;
    let status = answer.map_err(|failure| Unhealthy::Answer(failure.reason))?.status;
    let sound = match health.status {
        Some(expected) => status == expected,
        None => status.is_success() || status.is_redirection(),
    };
    // The lease is dropped, and its connection with it: nobody reads the rest.
    if sound { Ok(()) } else { Err(Unhealthy::Status(status)) }
}

enum Unhealthy {
    Connect(ConnectError),
    Answer(Reason),
    Status(StatusCode),
    Silent(Duration),
}

impl fmt::Display for Unhealthy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Answer(reason) => f.write_str(reason.code()),
            Self::Status(status) => write!(f, "answered {status}"),
            Self::Silent(time) => write!(f, "no answer within {time:?}"),
        }
    }
}
