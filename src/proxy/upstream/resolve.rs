//! Looks the names of upstreams up, again and again, beside the workers: none of them ever waits
//! for a name server once a name has led somewhere.

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use crate::{proxy::upstream::endpoint_health::EndpointHealth, settings::UpstreamSettings};

/// Where names lead.
pub trait Resolver: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a>;
}

pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// The system's own (`getaddrinfo`), on a thread where it may block.
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// After a failure, for the first time; doubled with each in a row up to the usual interval.
const SOONEST: Duration = Duration::from_secs(1);

/// Looks one name up for as long as it is polled.
pub(super) async fn keep(
    resolver: &dyn Resolver,
    name: &str,
    port: u16,
    settings: &UpstreamSettings,
    health: &EndpointHealth,
) {
    let upstream = &settings.name;
    let mut failures = 0;
    loop {
        // Where it led before says nothing about the time this takes.
        let found = resolver.resolve(name, port).await;
        let pause = match found {
            Ok(addresses) if !addresses.is_empty() => {
                if health.found(addresses) {
                    tracing::debug!(%upstream, name, "the name leads to other addresses");
                }
                failures = 0;
                settings.resolve
            }
            other => {
                health.found(Vec::new());
                let error = other.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                if failures == 0 {
                    tracing::warn!(%upstream, name, %error, "the name cannot be looked up; what is known stays");
                }
                failures += 1;
                SOONEST.saturating_mul(1 << (failures - 1).min(16)).min(settings.resolve)
            }
        };
        tokio::time::sleep(pause).await;
    }
}
