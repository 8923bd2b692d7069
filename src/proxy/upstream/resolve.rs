//! Resolves the names of upstreams periodically, outside the workers. Once a name has
//! been resolved, no worker waits for a name server again.

use std::{io, net::SocketAddr, pin::Pin, time::Duration};

use crate::{proxy::upstream::endpoint_health::EndpointHealth, settings::UpstreamSettings};

/// Resolves a name to addresses.
pub trait Resolver: Send + Sync {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a>;
}

pub type Resolving<'a> = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'a>>;

/// The system's resolver (`getaddrinfo`), on a thread that may block.
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve<'a>(&'a self, name: &'a str, port: u16) -> Resolving<'a> {
        Box::pin(async move { Ok(tokio::net::lookup_host((name, port)).await?.collect()) })
    }
}

/// Pause after the first failure. It doubles with each consecutive failure up to the configured interval.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);

/// Resolves one name periodically until dropped.
pub(super) async fn resolve_until_dropped(
    resolver: &dyn Resolver,
    name: &str,
    port: u16,
    settings: &UpstreamSettings,
    health: &EndpointHealth,
) {
    let upstream = &settings.name;
    let mut failures = 0;
    loop {
        // Needs no timeout, because the known addresses stay in use meanwhile.
        let found = resolver.resolve(name, port).await;
        let pause = match found {
            Ok(addresses) if !addresses.is_empty() => {
                if health.set_addresses(addresses) {
                    tracing::debug!(%upstream, name, "the name resolves to other addresses");
                }
                failures = 0;
                settings.resolve
            }
            other => {
                health.set_addresses(Vec::new());
                let error = other.err().unwrap_or_else(|| io::ErrorKind::NotFound.into());
                if failures == 0 {
                    tracing::warn!(%upstream, name, %error, "the name cannot be resolved; addresses found before, if any, stay in use");
                }
                failures += 1;
                MIN_RETRY_DELAY.saturating_mul(1 << (failures - 1).min(16)).min(settings.resolve)
            }
        };
        tokio::time::sleep(pause).await;
    }
}
