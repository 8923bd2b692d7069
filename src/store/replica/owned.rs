//! Each owner's tokens, in memory: they follow from the rows and are listed when those are loaded.

use std::collections::HashMap;

use super::Damage;
use crate::{authz::secret::TokenId, store::record::TokenHead};

/// How many tokens an owner has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub all: usize,
    /// Those that were revoked or replaced.
    pub ended: usize,
}

/// One owner's.
#[derive(Default)]
pub(super) struct Owned {
    /// In order, once [`Owned::loaded`].
    ids: Vec<TokenId>,
    ended: usize,
}

/// Tokens that come, go or end.
#[derive(Default)]
pub(super) struct OwnedChange {
    come: Vec<TokenId>,
    go: Vec<TokenId>,
    ended: isize,
}

impl Owned {
    pub(super) fn counts(&self) -> Counts {
        Counts { all: self.ids.len(), ended: self.ended }
    }

    /// Those behind `after`.
    pub(super) fn page(&self, after: Option<TokenId>, limit: usize) -> &[TokenId] {
        let from = after.map_or(0, |after| self.ids.partition_point(|id| *id <= after));
        let behind = &self.ids[from..];
        &behind[..behind.len().min(limit)]
    }

    pub(super) fn has(&self, id: TokenId) -> bool {
        self.ids.binary_search(&id).is_ok()
    }

    /// [`Owned::loaded`] has to follow.
    pub(super) fn load(&mut self, token: &TokenHead<'_>) {
        self.ids.push(token.id);
        self.ended += usize::from(token.is_ended());
    }

    pub(super) fn loaded(&mut self) {
        self.ids.sort_unstable();
        self.ids.shrink_to_fit();
    }
}

impl OwnedChange {
    /// A token's row becomes another. Its id and owner do not change.
    pub(super) fn note(
        owners: &mut HashMap<String, Self>,
        before: Option<&[u8]>,
        after: Option<&[u8]>,
    ) -> Result<(), Damage> {
        let before = before.map(TokenHead::decode).transpose()?;
        let after = after.map(TokenHead::decode).transpose()?;
        let Some(token) = after.as_ref().or(before.as_ref()) else { return Ok(()) };
        if !owners.contains_key(token.owner) {
            owners.insert(token.owner.to_owned(), Self::default());
        }
        let Some(change) = owners.get_mut(token.owner) else { return Ok(()) };
        match (&before, &after) {
            (None, _) => change.come.push(token.id),
            (_, None) => change.go.push(token.id),
            _ => {}
        }
        let ended = |token: Option<TokenHead<'_>>| isize::from(token.is_some_and(|token| token.is_ended()));
        change.ended += ended(after) - ended(before);
        Ok(())
    }

    pub(super) fn apply(mut self, owned: &mut Owned) {
        if !self.go.is_empty() {
            self.go.sort_unstable();
            owned.ids.retain(|id| self.go.binary_search(id).is_err());
        }
        if let [id] = self.come[..] {
            let at = owned.ids.partition_point(|other| *other < id);
            owned.ids.insert(at, id);
        } else if !self.come.is_empty() {
            self.come.sort_unstable();
            owned.ids.append(&mut self.come);
            // Stable: two runs that are in order are merged.
            owned.ids.sort();
        }
        owned.ended = owned.ended.saturating_add_signed(self.ended);
    }
}
