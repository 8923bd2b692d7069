//! What each client address contributes to the fields of its requests, made once.

use std::{cell::RefCell, collections::HashMap, net::IpAddr};

use crate::authz::forwarding::PeerFields;

/// A worker's own.
#[derive(Default)]
pub struct Peers(RefCell<HashMap<(IpAddr, bool), PeerFields>>);

/// Addresses beyond this many push the others out; making them anew costs little.
const MOST: usize = 4096;

impl Peers {
    pub fn with<R>(&self, address: IpAddr, secure: bool, then: impl FnOnce(&PeerFields) -> R) -> R {
        let mut peers = self.0.borrow_mut();
        if peers.len() >= MOST && !peers.contains_key(&(address, secure)) {
            peers.clear();
        }
        let fields = peers.entry((address, secure));
        then(fields.or_insert_with(|| PeerFields::new(Some(address), secure)))
    }
}
