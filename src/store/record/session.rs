//! Sessions of the web page.

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, unpack, versioned};
use crate::store::model::SessionRecord;

const V2: u8 = 2;

/// Version 1 ended before `by`: all of its sessions were begun with a password.
impl Record for SessionRecord {
    const KIND: &'static str = "session";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        pack(Self::KIND, V2, |out| self.serialize(out))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (version, rest) = versioned(Self::KIND, V2, bytes)?;
        let by_password: &[u8] = if version == V1 { &[0] } else { &[] };
        unpack(Self::KIND, &[rest, by_password].concat(), |read| Self::deserialize(read))
    }
}
