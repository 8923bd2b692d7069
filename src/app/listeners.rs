//! The sockets of a configuration: bound here, or passed by a supervisor.

use std::io;

use super::{Signals, StartError};
use crate::{
    config::{Admin, Config, Server},
    net::{Address, Bound, InheritError, Inherited, bind, bind_with_mode},
};

/// What was passed to this process. A gateway inside of somebody else's takes nothing.
pub(super) fn inherited(config: &Config, signals: Signals) -> Result<Inherited, InheritError> {
    let named =
        |addresses: &[Address]| addresses.iter().any(|address| matches!(address, Address::Inherited(_)));
    if signals == Signals::Heeded || named(&config.server.listen) || named(&config.admin.listen) {
        Inherited::from_environment()
    } else {
        Ok(Inherited::none())
    }
}

pub(super) fn proxy(server: &Server, inherited: &mut Inherited) -> Result<Vec<Bound>, StartError> {
    let mut all = Vec::new();
    for address in &server.listen {
        let Address::Inherited(name) = address else {
            all.push(bind_with_mode(address, server.unix_mode)?);
            continue;
        };
        let passed = inherited.take(name)?;
        for remote in remote(&passed)?.filter(|_| server.tls.pairs.is_empty()) {
            tracing::warn!("{remote} (systemd:{name}) takes tokens in plain text from other machines");
        }
        all.extend(passed);
    }
    Ok(all)
}

pub(super) fn admin(admin: &Admin, inherited: &mut Inherited) -> Result<Vec<Bound>, StartError> {
    let mut all = Vec::new();
    for address in &admin.listen {
        let Address::Inherited(name) = address else {
            all.push(bind(address)?);
            continue;
        };
        let passed = inherited.take(name)?;
        if let Some(remote) = remote(&passed)?.find(|_| !admin.allow_remote) {
            return Err(StartError::RemoteAdmin(remote));
        }
        all.extend(passed);
    }
    Ok(all)
}

/// The addresses among these that other machines may reach.
fn remote(passed: &[Bound]) -> Result<impl Iterator<Item = Address> + use<>, StartError> {
    let locals = passed.iter().map(Bound::local).collect::<io::Result<Vec<_>>>();
    let locals = locals.map_err(StartError::Listener)?;
    let remote = |address: &Address| matches!(address, Address::Tcp(address) if !address.ip().to_canonical().is_loopback());
    Ok(locals.into_iter().filter(remote))
}
