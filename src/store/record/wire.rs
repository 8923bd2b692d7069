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
    store::model::UserKind,
};

/// How a value is stored. What was written once stays readable, so none of these ever changes.
pub(in crate::store) trait StoredForm: Sized {
    type Stored;
    fn to_stored(&self) -> Self::Stored;
    /// Returns `None` for what no value is written as.
    fn read(to_stored: Self::Stored) -> Option<Self>;
}

pub(in crate::store) fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: StoredForm<Stored: Serialize>,
    S: Serializer,
{
    value.to_stored().serialize(serializer)
}

pub(in crate::store) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: StoredForm<Stored: Deserialize<'de>>,
    D: Deserializer<'de>,
{
    T::read(T::Stored::deserialize(deserializer)?).ok_or_else(|| D::Error::custom("no such value"))
}

macro_rules! to_stored {
    ($type:ty as $to_stored:ty, $value:ident => $to:expr, $from:pat => $read:expr) => {
        impl StoredForm for $type {
            type Stored = $to_stored;
            fn to_stored(&self) -> $to_stored {
                let $value = self;
                $to
            }
            fn read($from: $to_stored) -> Option<Self> {
                $read
            }
        }
    };
}

to_stored!(Timestamp as i64, at => at.as_millis(), millis => Some(Self::from_millis(millis)));
to_stored!(Digest as [u8; 32], digest => *digest.as_bytes(), bytes => Some(Self::from_bytes(bytes)));
to_stored!(TokenId as [u8; 12], id => *id.as_bytes(), bytes => Self::from_bytes(bytes));
to_stored!(IpNet as (std::net::IpAddr, u8), net => (net.addr(), net.prefix_len()),
    (address, prefix) => Self::new(address, prefix).ok());
// Stored as their words, which are public names already.
to_stored!(Permission as String, permission => permission.word().to_owned(), word => Self::from_word(&word));
to_stored!(Grantee as (u8, String), to => match to {
    Self::User(id) => (0, id.clone()),
    Self::Group(id) => (1, id.clone()),
},
(kind, id) => match kind {
    0 => Some(Self::User(id)),
    1 => Some(Self::Group(id)),
    _ => None,
});

to_stored!(Access as u8, access => u8::from(*access == Self::Full),
    number => [Self::Read, Self::Full].get(usize::from(number)).copied());
to_stored!(UserKind as u8, kind => u8::from(*kind == Self::Service),
    number => [Self::Human, Self::Service].get(usize::from(number)).copied());

impl<T: StoredForm> StoredForm for Option<T> {
    type Stored = Option<T::Stored>;
    fn to_stored(&self) -> Self::Stored {
        self.as_ref().map(T::to_stored)
    }
    fn read(to_stored: Self::Stored) -> Option<Self> {
        to_stored.map_or(Some(None), |to_stored| T::read(to_stored).map(Some))
    }
}

impl<T: StoredForm> StoredForm for Vec<T> {
    type Stored = Vec<T::Stored>;
    fn to_stored(&self) -> Self::Stored {
        self.iter().map(T::to_stored).collect()
    }
    fn read(to_stored: Self::Stored) -> Option<Self> {
        to_stored.into_iter().map(T::read).collect()
    }
}

/// An entry of a scope.
impl<K: Clone> StoredForm for (K, Access) {
    type Stored = (K, u8);
    fn to_stored(&self) -> Self::Stored {
        (self.0.clone(), self.1.to_stored())
    }
    fn read((key, access): Self::Stored) -> Option<Self> {
        Some((key, StoredForm::read(access)?))
    }
}
