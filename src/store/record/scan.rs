//! The same bytes as [`super::token`] reads, for the scan at start: a million tokens go by, of which
//! the index needs a third. Nothing is copied, and what is skipped is not looked at.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{DecodeError, V1, versioned};
use crate::{
    authz::{
        secret::{Digest, TokenId},
        subject::Access,
        time::Timestamp,
    },
    store::{engine::TokenRow, model::Rotation},
};

/// A block's tokens, one after the other.
pub(crate) struct BlockScan<'a> {
    pub owner: &'a str,
    left: u64,
    rest: Cursor<'a>,
}

/// A token and the folded name it has taken.
pub(crate) struct ScannedItem<'a> {
    pub id: TokenId,
    pub taken: Option<&'a [u8]>,
    token: &'a [u8],
}

impl<'a> BlockScan<'a> {
    pub(crate) fn new(row: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = Cursor::behind_version("token block", row)?;
        let owner = rest.text()?;
        Ok(Self { owner, left: rest.number()?, rest })
    }

    /// How many are left.
    pub(crate) fn len(&self) -> u64 {
        self.left
    }

    pub(crate) fn next(&mut self) -> Result<Option<ScannedItem<'a>>, DecodeError> {
        if self.left == 0 {
            return self.rest.end().map(|()| None);
        }
        self.left -= 1;
        let id = self.rest.id()?;
        let taken = self.rest.option(Cursor::bytes)?;
        Ok(Some(ScannedItem { id, taken, token: self.rest.bytes()? }))
    }
}

impl<'a> ScannedItem<'a> {
    pub(crate) fn row(&self, owner: &'a str) -> Result<TokenRow<'a>, DecodeError> {
        scan_token_row(owner, self.id, self.token)
    }
}

/// Only what the index needs; the fields in the order in which they were written.
pub(crate) fn scan_token_row<'a>(
    owner: &'a str,
    id: TokenId,
    token: &'a [u8],
) -> Result<TokenRow<'a>, DecodeError> {
    let mut rest = Cursor::behind_version("token", token)?;
    let digest = Digest::from_bytes(*rest.array()?);
    let imported = rest.flag()?;
    let _author = rest.option(Cursor::bytes)?;
    let (_name, _note) = (rest.bytes()?, rest.bytes()?);
    let scope = rest.list(|rest| Ok((rest.text()?, rest.access()?)))?;
    let allow_ips = rest.list(Cursor::net)?;
    let _created_at = rest.time()?;
    let not_before = rest.option(Cursor::time)?;
    let expires_at = rest.option(Cursor::time)?;
    let revoked_at = rest.option(|rest| {
        let (at, _by, _reason) = (rest.time()?, rest.option(Cursor::bytes)?, rest.number()?);
        Ok(at)
    })?;
    let rotation = rest.option(|rest| Ok(Rotation { to: rest.id()?, grace_until: rest.time()? }))?;
    let (_family, _revision) = (rest.array::<12>()?, rest.number()?);
    rest.end()?;
    Ok(TokenRow {
        id,
        digest,
        imported,
        owner,
        scope,
        allow_ips,
        not_before,
        expires_at,
        revoked_at,
        rotation,
    })
}

/// Postcard's encoding: whole numbers in groups of seven bits, the lowest first; a length before
/// what varies in it; a byte before what may be absent.
struct Cursor<'a> {
    rest: &'a [u8],
    kind: &'static str,
}

impl<'a> Cursor<'a> {
    fn behind_version(kind: &'static str, bytes: &'a [u8]) -> Result<Self, DecodeError> {
        match versioned(kind, bytes)? {
            (V1, rest) => Ok(Self { rest, kind }),
            (0, _) => Err(DecodeError::Malformed(kind)),
            (version, _) => Err(DecodeError::Newer { kind, version }),
        }
    }

    fn malformed(&self) -> DecodeError {
        DecodeError::Malformed(self.kind)
    }

    fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.malformed()) }
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (first, rest) = self.rest.split_first().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(*first)
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(self.malformed())?;
        self.rest = rest;
        Ok(array)
    }

    fn number(&mut self) -> Result<u64, DecodeError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            // Of the tenth group one bit is left.
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(self.malformed())
    }

    fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| self.malformed())?;
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(self.malformed())?;
        self.rest = rest;
        Ok(bytes)
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let bytes = self.bytes()?;
        std::str::from_utf8(bytes).map_err(|_| self.malformed())
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed()),
        }
    }

    fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Option<T>, DecodeError> {
        if self.flag()? { read(self).map(Some) } else { Ok(None) }
    }

    fn list<T>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Result<T, DecodeError>,
    ) -> Result<Vec<T>, DecodeError> {
        let length = usize::try_from(self.number()?).map_err(|_| self.malformed())?;
        // No item is shorter than a byte: a length that is damaged asks for no memory.
        if length > self.rest.len() {
            return Err(self.malformed());
        }
        let mut list = Vec::with_capacity(length);
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }

    /// A signed number lies between unsigned ones: 0, -1, 1, -2 and so on.
    fn time(&mut self) -> Result<Timestamp, DecodeError> {
        let number = self.number()?;
        let millis = (number >> 1).cast_signed() ^ -(number & 1).cast_signed();
        Ok(Timestamp::from_millis(millis))
    }

    fn id(&mut self) -> Result<TokenId, DecodeError> {
        TokenId::from_bytes(*self.array()?).ok_or(self.malformed())
    }

    fn access(&mut self) -> Result<Access, DecodeError> {
        match self.number()? {
            0 => Ok(Access::Read),
            1 => Ok(Access::Full),
            _ => Err(self.malformed()),
        }
    }

    fn net(&mut self) -> Result<IpNet, DecodeError> {
        let address = match self.number()? {
            0 => IpAddr::from(*self.array::<4>()?),
            1 => IpAddr::from(*self.array::<16>()?),
            _ => return Err(self.malformed()),
        };
        IpNet::new(address, self.byte()?).map_err(|_| self.malformed())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::{
        conformance::{id, token},
        model::{Revocation, RevokeReason, TokenRecord},
        record::{Block, BlockItem, read_token, write_token},
    };

    fn full(millis: i64, note: String) -> TokenRecord {
        let at = Timestamp::from_millis(millis);
        TokenRecord {
            author: Some("bob".to_owned()),
            note,
            imported: true,
            allow_ips: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
            not_before: Some(at),
            expires_at: Some(at.plus_seconds(1)),
            revoked: Some(Revocation { at, by: Some("bob".to_owned()), reason: RevokeReason::Leaked }),
            rotation: Some(Rotation { to: id(2), grace_until: at }),
            revision: u64::MAX,
            ..token(3, "ann")
        }
    }

    fn block(tokens: &[TokenRecord]) -> Vec<u8> {
        let item = |token: &TokenRecord| BlockItem {
            id: token.id,
            taken: token.revoked.is_none().then(|| token.name.clone().into()),
            token: write_token(token).unwrap().into(),
        };
        Block { owner: "ann".into(), items: tokens.iter().map(item).collect() }.encode().unwrap()
    }

    /// What both ways of reading say, or that both refuse.
    fn agree(bytes: &[u8]) {
        let scanned = || -> Result<Vec<String>, DecodeError> {
            let mut scan = BlockScan::new(bytes)?;
            let mut rows = Vec::new();
            while let Some(item) = scan.next()? {
                let taken = item.taken.map(|name| String::from_utf8_lossy(name).into_owned());
                rows.push(format!("{taken:?} {:?}", item.row(scan.owner)?));
            }
            Ok(rows)
        };
        let read = || -> Result<Vec<String>, DecodeError> {
            let block = Block::decode(bytes)?;
            let row = |item: &BlockItem<'_>| {
                let token = read_token(&block.owner, item)?;
                let row = TokenRow {
                    id: token.id,
                    digest: token.digest,
                    imported: token.imported,
                    owner: &token.owner,
                    scope: token.scope.iter().map(|(service, access)| (service.as_str(), *access)).collect(),
                    allow_ips: token.allow_ips,
                    not_before: token.not_before,
                    expires_at: token.expires_at,
                    revoked_at: token.revoked.map(|revocation| revocation.at),
                    rotation: token.rotation,
                };
                Ok(format!("{:?} {row:?}", item.taken))
            };
            block.items.iter().map(row).collect()
        };
        // Texts that are skipped may be none: who reads them finds out.
        if let Ok(read) = read() {
            assert_eq!(scanned(), Ok(read));
        } else {
            drop(scanned());
        }
    }

    proptest! {
        #[test]
        fn the_scan_reads_what_the_records_say(millis: i64, note in ".{0,300}") {
            agree(&block(&[token(1, "ann"), full(millis, note), token(2, "ann")]));
        }

        #[test]
        fn spoilt_blocks_read_the_same_or_not_at_all(at in 0usize..1000, to: u8, cut: bool) {
            let mut bytes = block(&[full(-7, "note".to_owned()), token(1, "ann")]);
            let at = at % bytes.len();
            bytes[at] = to;
            if cut {
                bytes.truncate(at);
            }
            agree(&bytes);
        }
    }

    #[test]
    fn a_newer_row_is_said_to_be() {
        let mut bytes = block(&[token(1, "ann")]);
        bytes[0] = 2;
        let newer = DecodeError::Newer { kind: "token block", version: 2 };
        assert_eq!(BlockScan::new(&bytes).err(), Some(newer));
    }
}
