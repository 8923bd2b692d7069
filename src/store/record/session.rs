//! Sessions of the web page, and invitations.

use std::{borrow::Cow, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, unpack_v1};
use crate::{
    authz::{secret::Digest, time::Timestamp},
    store::model::{InvitationRecord, SessionRecord},
};

#[derive(Serialize, Deserialize)]
struct SessionV1<'a> {
    digest: [u8; 32],
    user: Cow<'a, str>,
    created_at: i64,
    last_seen_at: i64,
    client: IpAddr,
}

#[derive(Serialize, Deserialize)]
struct InvitationV1<'a> {
    digest: [u8; 32],
    user: Cow<'a, str>,
    author: Option<Cow<'a, str>>,
    expires_at: i64,
}

impl Record for SessionRecord {
    const KIND: &'static str = "session";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = SessionV1 {
            digest: *self.digest.as_bytes(),
            user: Cow::Borrowed(&self.user),
            created_at: self.created_at.as_millis(),
            last_seen_at: self.last_seen_at.as_millis(),
            client: self.client,
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: SessionV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            digest: Digest::from_bytes(row.digest),
            user: row.user.into_owned(),
            created_at: Timestamp::from_millis(row.created_at),
            last_seen_at: Timestamp::from_millis(row.last_seen_at),
            client: row.client,
        })
    }
}

impl Record for InvitationRecord {
    const KIND: &'static str = "invitation";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = InvitationV1 {
            digest: *self.digest.as_bytes(),
            user: Cow::Borrowed(&self.user),
            author: self.author.as_deref().map(Cow::Borrowed),
            expires_at: self.expires_at.as_millis(),
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: InvitationV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            digest: Digest::from_bytes(row.digest),
            user: row.user.into_owned(),
            author: row.author.map(Cow::into_owned),
            expires_at: Timestamp::from_millis(row.expires_at),
        })
    }
}
