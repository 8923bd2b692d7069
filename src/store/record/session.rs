//! Sessions of the web page, invitations, and identities at providers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, record, unpack, versioned, wire};
use crate::{
    authz::{secret::Digest, time::Timestamp},
    store::model::{IdentityRecord, InvitationRecord, SessionRecord, SignedInBy},
};

const V2: u8 = 2;

/// Version 1 ended before `by`: all of its sessions were begun with a password.
#[derive(Serialize, Deserialize)]
#[serde(remote = "SessionRecord")]
struct SessionV2 {
    #[serde(with = "wire")]
    digest: Digest,
    user: String,
    #[serde(with = "wire")]
    created_at: Timestamp,
    #[serde(with = "wire")]
    last_seen_at: Timestamp,
    client: IpAddr,
    #[serde(with = "wire")]
    by: SignedInBy,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "IdentityRecord")]
struct IdentityV1 {
    issuer: String,
    subject: String,
    user: String,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "InvitationRecord")]
struct InvitationV1 {
    #[serde(with = "wire")]
    digest: Digest,
    user: String,
    author: Option<String>,
    #[serde(with = "wire")]
    expires_at: Timestamp,
}

record!(IdentityRecord, "identity", IdentityV1);
record!(InvitationRecord, "invitation", InvitationV1);

impl Record for SessionRecord {
    const KIND: &'static str = "session";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        pack(Self::KIND, V2, |out| SessionV2::serialize(self, out))
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match versioned(Self::KIND, bytes)? {
            (V1, rest) => {
                let by_password = [rest, &[0]].concat();
                unpack(Self::KIND, &by_password, |read| SessionV2::deserialize(read))
            }
            (V2, rest) => unpack(Self::KIND, rest, |read| SessionV2::deserialize(read)),
            (0, _) => Err(DecodeError::Malformed(Self::KIND)),
            (version, _) => Err(DecodeError::Newer { kind: Self::KIND, version }),
        }
    }
}
