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
        match versioned(Self::KIND, bytes)? {
            (V1, rest) => {
                let by_password = [rest, &[0]].concat();
                unpack(Self::KIND, &by_password, |read| Self::deserialize(read))
            }
            (V2, rest) => unpack(Self::KIND, rest, |read| Self::deserialize(read)),
            (0, _) => Err(DecodeError::Malformed(Self::KIND)),
            (version, _) => Err(DecodeError::Newer { kind: Self::KIND, version }),
        }
    }
}
