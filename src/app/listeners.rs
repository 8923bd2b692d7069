//! The listening sockets of a configuration: bound here, or passed by a supervisor.

use std::{fmt, io};

use super::{Signals, StartError};
use crate::{
    admin::MetricsAccess,
    config::{Admin, Config, Listen, Server},
    net::{Address, Bound, InheritError, Inherited, Listener, bind, bind_with_mode, tls::Certificates},
};

/// An address at which the gateway listens, with its actual port.
#[derive(Clone, Debug)]
pub struct LocalAddr {
    pub address: Address,
    /// Whether TLS ends here.
    pub secure: bool,
}

/// An address that this process has bound, and whether TLS ends there.
pub(super) struct BoundListener {
    bound: Bound,
    secure: bool,
}

const OWNER_ONLY: u32 = 0o600;

/// Returns the sockets that were passed to this process. An embedded gateway takes none, unless its
/// configuration names one.
pub(super) fn inherited_sockets(config: &Config, signals: Signals) -> Result<Inherited, InheritError> {
    let named =
        |listen: &[Listen]| listen.iter().any(|listen| matches!(listen.address, Address::Inherited(_)));
    if signals == Signals::Handled || named(&config.server.listen) || named(&config.admin.listen) {
        Inherited::from_environment()
    } else {
        Ok(Inherited::none())
    }
}

pub(super) fn proxy(server: &Server, inherited: &mut Inherited) -> Result<Vec<BoundListener>, StartError> {
    let warn = |remote: Address, name: &str, secure: bool| {
        if !secure {
            tracing::warn!("{remote} (systemd:{name}) accepts tokens in plain text from other machines");
        }
        Ok(())
    };
    open(&server.listen, !server.tls.pairs.is_empty(), server.unix_mode, inherited, warn)
}

pub(super) fn admin(admin: &Admin, inherited: &mut Inherited) -> Result<Vec<BoundListener>, StartError> {
    let refuse = |remote: Address, _: &str, _: bool| match admin.allow_remote {
        true => Ok(()),
        false => Err(StartError::RemoteAdmin(remote)),
    };
    open(&admin.listen, !admin.tls.pairs.is_empty(), OWNER_ONLY, inherited, refuse)
}

/// Binds or takes over every address. `judge` decides on each inherited one that other machines may reach.
fn open(
    listen: &[Listen],
    certificates: bool,
    unix_mode: u32,
    inherited: &mut Inherited,
    judge: impl Fn(Address, &str, bool) -> Result<(), StartError>,
) -> Result<Vec<BoundListener>, StartError> {
    let mut all = Vec::new();
    for listen in listen {
        let secure = listen.uses_tls(certificates);
        let bound = match &listen.address {
            Address::Inherited(name) => {
                let passed = inherited.take(name)?;
                non_loopback(&passed)?.try_for_each(|remote| judge(remote, name, secure))?;
                passed
            }
            own => vec![bind_with_mode(own, unix_mode)?],
        };
        all.extend(bound.into_iter().map(|bound| BoundListener { bound, secure }));
    }
    Ok(all)
}

/// Binds the listener that serves only metrics, if there is one.
pub(super) fn metrics(admin: &Admin) -> Result<Option<BoundListener>, StartError> {
    let MetricsAccess::SeparateListener(address) = &admin.metrics else { return Ok(None) };
    Ok(Some(BoundListener { bound: bind(address)?, secure: false }))
}

pub(super) fn local_addresses(listeners: &[BoundListener]) -> Result<Vec<LocalAddr>, StartError> {
    let place = |door: &BoundListener| {
        let address = door.bound.local()?;
        // The socket that systemd passes may be a unix socket.
        let secure = door.secure && matches!(address, Address::Tcp(_));
        Ok(LocalAddr { address, secure })
    };
    listeners.iter().map(place).collect::<io::Result<_>>().map_err(StartError::Listener)
}

/// One worker's sockets for all of these addresses.
pub(super) fn listening(
    bound: &[BoundListener],
    certificates: Option<&Certificates>,
) -> Result<Vec<Listener>, StartError> {
    let listener = |BoundListener { bound, secure }: &BoundListener| {
        Ok(bound.listener()?.with_tls(certificates.filter(|_| *secure).cloned()))
    };
    bound.iter().map(listener).collect::<io::Result<_>>().map_err(StartError::Listener)
}

impl LocalAddr {
    /// Returns the address in the form that a browser or `--admin` accepts.
    pub fn url(&self) -> String {
        match (&self.address, self.secure) {
            (Address::Tcp(address), false) => format!("http://{address}"),
            _ => self.to_string(),
        }
    }
}

impl fmt::Display for LocalAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https://" } else { "" };
        write!(f, "{scheme}{}", self.address)
    }
}

/// Returns the addresses that other machines may reach.
fn non_loopback(passed: &[Bound]) -> Result<impl Iterator<Item = Address> + use<>, StartError> {
    let locals = passed.iter().map(Bound::local).collect::<io::Result<Vec<_>>>();
    let locals = locals.map_err(StartError::Listener)?;
    let remote = |address: &Address| matches!(address, Address::Tcp(address) if !address.ip().to_canonical().is_loopback());
    Ok(locals.into_iter().filter(remote))
}
