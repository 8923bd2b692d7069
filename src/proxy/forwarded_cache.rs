//! A cache of the forwarded fields of each client address.

use std::{cell::RefCell, net::IpAddr};

use crate::authz::forwarding::PeerFields;

/// One per worker, of fixed size: an address replaces another one in the same slot, since making the fields
/// again costs little.
#[derive(Default)]
pub struct ForwardedCache(RefCell<Vec<Option<Entry>>>);

type Entry = ((IpAddr, bool), PeerFields);

const PLACES: usize = 1024;

impl ForwardedCache {
    pub fn with<R>(&self, address: IpAddr, secure: bool, then: impl FnOnce(&PeerFields) -> R) -> R {
        let places = &mut *self.0.borrow_mut();
        if places.is_empty() {
            places.resize(PLACES, None);
        }
        let place = &mut places[place_of(address)];
        let of = (address, secure);
        let (_, fields) = match place {
            Some(known) if known.0 == of => known,
            _ => place.insert((of, PeerFields::new(Some(address), secure))),
        };
        then(fields)
    }
}

/// Mixes all bytes: addresses of one network differ in the last ones, networks in the first ones.
fn place_of(address: IpAddr) -> usize {
    let bits = match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            (bits ^ bits >> 64) as u64
        }
    };
    (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize % PLACES
}
