//! Sessions of the web page, invitations, and whom providers mean.

use std::{borrow::Cow, net::IpAddr};

use serde::{Deserialize, Serialize};

use super::{DecodeError, EncodeError, Record, V1, pack, unpack, unpack_v1, versioned};
use crate::{
    authz::{secret::Digest, time::Timestamp},
    store::model::{IdentityRecord, InvitationRecord, SessionRecord, SignedInBy},
};

const V2: u8 = 2;

/// By a password, all of them.
#[derive(Deserialize)]
struct SessionV1<'a> {
    digest: [u8; 32],
    user: Cow<'a, str>,
    created_at: i64,
    last_seen_at: i64,
    client: IpAddr,
}

#[derive(Serialize, Deserialize)]
struct SessionV2<'a> {
    digest: [u8; 32],
    user: Cow<'a, str>,
    created_at: i64,
    last_seen_at: i64,
    client: IpAddr,
    by: SignedInByV2,
}

#[derive(Serialize, Deserialize)]
enum SignedInByV2 {
    Password,
    Provider,
}

#[derive(Serialize, Deserialize)]
struct IdentityV1<'a> {
    issuer: Cow<'a, str>,
    subject: Cow<'a, str>,
    user: Cow<'a, str>,
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
        let row = SessionV2 {
            digest: *self.digest.as_bytes(),
            user: Cow::Borrowed(&self.user),
            created_at: self.created_at.as_millis(),
            last_seen_at: self.last_seen_at.as_millis(),
            client: self.client,
            by: match self.by {
                SignedInBy::Password => SignedInByV2::Password,
                SignedInBy::Provider => SignedInByV2::Provider,
            },
        };
        pack(Self::KIND, V2, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row = match versioned(Self::KIND, bytes)? {
            (V1, rest) => {
                let SessionV1 { digest, user, created_at, last_seen_at, client } = unpack(Self::KIND, rest)?;
                SessionV2 { digest, user, created_at, last_seen_at, client, by: SignedInByV2::Password }
            }
            (V2, rest) => unpack(Self::KIND, rest)?,
            (0, _) => return Err(DecodeError::Malformed(Self::KIND)),
            (version, _) => return Err(DecodeError::Newer { kind: Self::KIND, version }),
        };
        Ok(Self {
            digest: Digest::from_bytes(row.digest),
            user: row.user.into_owned(),
            created_at: Timestamp::from_millis(row.created_at),
            last_seen_at: Timestamp::from_millis(row.last_seen_at),
            client: row.client,
            by: match row.by {
                SignedInByV2::Password => SignedInBy::Password,
                SignedInByV2::Provider => SignedInBy::Provider,
            },
        })
    }
}

impl Record for IdentityRecord {
    const KIND: &'static str = "identity";

    fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let row = IdentityV1 {
            issuer: Cow::Borrowed(&self.issuer),
            subject: Cow::Borrowed(&self.subject),
            user: Cow::Borrowed(&self.user),
        };
        pack(Self::KIND, V1, &row)
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: IdentityV1<'_> = unpack_v1(Self::KIND, bytes)?;
        Ok(Self {
            issuer: row.issuer.into_owned(),
            subject: row.subject.into_owned(),
            user: row.user.into_owned(),
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
