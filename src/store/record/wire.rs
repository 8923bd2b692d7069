//! The stored form of values of other modules, which do not use serde: `#[serde(with = "wire")]`.

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::{
    authz::{
        accounts::Grantee,
        secret::{Digest, TokenId},
        subject::{Access, Permission},
        time::Timestamp,
    },
    store::{
        log::{EntryHash, Head, StoreId},
        model::{RevokeReason, Rotation, SignedInBy, UserKind},
    },
};

/// How a value is stored. What was written once stays readable, so none of these ever changes.
pub(in crate::store) trait StoredForm: Sized {
    type Written;
    fn written(&self) -> Self::Written;
    /// Returns `None` for what no value is written as.
    fn read(written: Self::Written) -> Option<Self>;
}

pub(in crate::store) fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: StoredForm<Written: Serialize>,
    S: Serializer,
{
    value.written().serialize(serializer)
}

pub(in crate::store) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: StoredForm<Written: Deserialize<'de>>,
    D: Deserializer<'de>,
{
    T::read(T::Written::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no such value"))
}

macro_rules! written {
    ($type:ty as $written:ty, $value:ident => $to:expr, $from:pat => $read:expr) => {
        impl StoredForm for $type {
            type Written = $written;
            fn written(&self) -> $written {
                let $value = self;
                $to
            }
            fn read($from: $written) -> Option<Self> {
                $read
            }
        }
    };
}

written!(Timestamp as i64, at => at.as_millis(), millis => Some(Self::from_millis(millis)));
written!(Digest as [u8; 32], digest => *digest.as_bytes(), bytes => Some(Self::from_bytes(bytes)));
written!(TokenId as [u8; 12], id => *id.as_bytes(), bytes => Self::from_bytes(bytes));
written!(StoreId as [u8; 16], id => id.0, bytes => Some(Self(bytes)));
written!(Head as (u64, [u8; 32]), head => (head.position, head.hash.0),
    (position, hash) => Some(Self { position, hash: EntryHash(hash) }));
written!(IpNet as (std::net::IpAddr, u8), net => (net.addr(), net.prefix_len()),
    (address, prefix) => Self::new(address, prefix).ok());
written!(Rotation as ([u8; 12], i64), rotation => (rotation.to.written(), rotation.grace_until.written()),
    (to, until) => Some(Self { to: StoredForm::read(to)?, grace_until: StoredForm::read(until)? }));
// Stored as their words, which are public names already.
written!(Permission as String, permission => permission.word().to_owned(), word => Self::from_word(&word));
written!(Grantee as (u8, String), to => match to {
    Self::User(id) => (0, id.clone()),
    Self::Group(id) => (1, id.clone()),
},
(kind, id) => match kind {
    0 => Some(Self::User(id)),
    1 => Some(Self::Group(id)),
    _ => None,
});

/// Stored as the variant's number, in this order.
macro_rules! numbered {
    ($type:ident: $($variant:ident),+) => {
        written!($type as u8, value => {
                const ALL: &[$type] = &[$($type::$variant),+];
                // The list has every variant.
                ALL.iter().position(|one| one == value).map_or(u8::MAX, |at| at as u8)
            },
            number => [$($type::$variant),+].get(usize::from(number)).copied());
    };
}

numbered!(Access: Read, Full);
numbered!(UserKind: Human, Service);
numbered!(SignedInBy: Password, Provider);
numbered!(RevokeReason: User, Admin, Rotated, OwnerDeleted, Leaked);

impl<T: StoredForm> StoredForm for Option<T> {
    type Written = Option<T::Written>;
    fn written(&self) -> Self::Written {
        self.as_ref().map(T::written)
    }
    fn read(written: Self::Written) -> Option<Self> {
        written.map_or(Some(None), |written| T::read(written).map(Some))
    }
}

impl<T: StoredForm> StoredForm for Vec<T> {
    type Written = Vec<T::Written>;
    fn written(&self) -> Self::Written {
        self.iter().map(T::written).collect()
    }
    fn read(written: Self::Written) -> Option<Self> {
        written.into_iter().map(T::read).collect()
    }
}

/// An entry of a scope.
impl<K: Clone> StoredForm for (K, Access) {
    type Written = (K, u8);
    fn written(&self) -> Self::Written {
        (self.0.clone(), self.1.written())
    }
    fn read((key, access): Self::Written) -> Option<Self> {
        Some((key, StoredForm::read(access)?))
    }
}
