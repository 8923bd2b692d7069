//! A batch in the making: operations become rows over what is stored, in memory. Nothing is written
//! before all of them have been.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
};

use super::{
    Damage, keys,
    keys::Key,
    locator::{Locator, NameHash},
};
use crate::{
    authz::secret::TokenId,
    store::{
        engine::{Checkpoint, IdempotencyRecord, Op},
        model::{GrantRecord, Grantee, IdentityRecord, LastUsed, TokenRecord},
        record::{Block, BlockItem, EncodeError, LastUses, Meta, Record, write_token},
    },
};

/// What a batch would do to the data and to the locator.
pub(super) struct Changes {
    pub rows: BTreeMap<Key, Option<Vec<u8>>>,
    pub moves: Vec<Move>,
}

/// A change of the locator, made when the batch is durable.
pub(super) enum Move {
    Place { id: TokenId, block: u32 },
    Forget { id: TokenId },
    Take { name: NameHash },
    Named { owner: String, more: isize },
    AddBlock { owner: String, block: u32 },
    DropBlock { owner: String, block: u32 },
}

/// Why an operation cannot be: nothing of the batch is written.
#[derive(Debug, thiserror::Error)]
pub(super) enum DraftError {
    #[error(transparent)]
    Encode(#[from] EncodeError),
    #[error("what is stored cannot be read: {0}")]
    Damage(#[from] Damage),
    #[error("`{0}` cannot be part of a key")]
    Key(String),
    #[error("there is no token {0}")]
    NoToken(TokenId),
    #[error("token {0} belongs to somebody else")]
    Owner(TokenId),
    #[error("the store has no numbers left for token blocks")]
    Exhausted,
}

pub(super) struct Draft<'a> {
    db: &'a sled::Db,
    locator: &'a Locator,
    rows: BTreeMap<Key, Option<Vec<u8>>>,
    /// Blocks that were touched.
    blocks: HashMap<u32, Block<'static>>,
    /// How many of their tokens had a name before.
    named: HashMap<u32, usize>,
    /// Last uses of blocks, where touched.
    uses: HashMap<u32, LastUses>,
    /// Tokens that are elsewhere, or nowhere, by this batch.
    placed: HashMap<TokenId, Option<u32>>,
    /// The blocks that this batch begins, by owner.
    begun: HashMap<String, Vec<u32>>,
    /// Owner and name of tokens that come later in the batch.
    early: HashMap<TokenId, (String, String)>,
    /// Every name that this batch gave to a token.
    taken: HashSet<NameHash>,
    moves: Vec<Move>,
    next: u32,
}

/// A block takes tokens up to this size: small enough that a change of one rewrites little.
const BLOCK_BYTES: usize = 4096;
const BLOCK_ITEMS: usize = 64;

impl<'a> Draft<'a> {
    /// For so many operations, about.
    pub(super) fn new(db: &'a sled::Db, locator: &'a Locator, operations: usize) -> Self {
        Self {
            db,
            locator,
            rows: BTreeMap::new(),
            blocks: HashMap::new(),
            named: HashMap::new(),
            uses: HashMap::new(),
            placed: HashMap::new(),
            begun: HashMap::new(),
            early: HashMap::new(),
            taken: HashSet::new(),
            moves: Vec::with_capacity(operations),
            next: locator.next,
        }
    }

    pub(super) fn apply(&mut self, op: &Op) -> Result<(), DraftError> {
        match op {
            Op::PutToken(token) => self.put_token(token),
            Op::DropToken { id, owner } => self.drop_token(*id, owner),
            Op::TakeName { owner, name, token } => self.take_name(owner, name, *token),
            Op::FreeName { owner, name } => self.free_name(owner, name, None),
            Op::PutLastUsed { token, used } => self.put_last_used(*token, used),
            Op::PutUser(user) => self.put(named(keys::USERS, &[&user.id])?, user),
            Op::PutGroup(group) => self.put(named(keys::GROUPS, &[&group.id])?, group),
            Op::DropGroup { id } => self.drop(named(keys::GROUPS, &[id])?),
            Op::PutMember { group, user } => {
                self.rows.insert(named(keys::MEMBERS, &[group, user])?, Some(Vec::new()));
                Ok(())
            }
            Op::DropMember { group, user } => self.drop(named(keys::MEMBERS, &[group, user])?),
            Op::PutRole(role) => self.put(named(keys::ROLES, &[&role.key])?, role),
            Op::DropRole { key } => self.drop(named(keys::ROLES, &[key])?),
            Op::PutGrant(grant) => self.put(grant_key(grant)?, grant),
            Op::DropGrant(grant) => self.drop(grant_key(grant)?),
            Op::AppendAudit(event) => self.put(keys::audit(event.seq), event),
            Op::TrimAudit(checkpoint) => self.trim_audit(*checkpoint),
            Op::PutIdempotency(record) => self.put_idempotency(record),
            Op::DropIdempotency { key } => self.drop_idempotency(key),
            Op::PutSession(session) => self.put(keys::digest(keys::SESSIONS, &session.digest), session),
            Op::DropSession(digest) => self.drop(keys::digest(keys::SESSIONS, digest)),
            Op::PutInvitation(invitation) => {
                self.put(keys::digest(keys::INVITATIONS, &invitation.digest), invitation)
            }
            Op::DropInvitation(digest) => self.drop(keys::digest(keys::INVITATIONS, digest)),
            Op::PutIdentity(identity) => {
                let key = IdentityRecord::key(&identity.issuer, &identity.subject);
                self.put(keys::digest(keys::IDENTITIES, &key), identity)
            }
            Op::DropIdentity(key) => self.drop(keys::digest(keys::IDENTITIES, key)),
        }
    }

    pub(super) fn finish(mut self, store: &str, revision: u64) -> Result<Changes, DraftError> {
        if let Some(id) = self.early.keys().next() {
            return Err(DraftError::NoToken(*id));
        }
        for (number, block) in std::mem::take(&mut self.blocks) {
            let before = self.named.get(&number).copied().unwrap_or(0);
            let more = block.named().checked_signed_diff(before).expect("a block has few tokens");
            if more != 0 {
                self.moves.push(Move::Named { owner: block.owner.clone().into_owned(), more });
            }
            if block.items.is_empty() {
                let owner = block.owner.into_owned();
                self.moves.push(Move::DropBlock { owner, block: number });
                self.rows.insert(keys::block(number), None);
            } else {
                self.rows.insert(keys::block(number), Some(block.encode()?));
            }
        }
        for (number, uses) in std::mem::take(&mut self.uses) {
            let row = if uses.0.is_empty() { None } else { Some(uses.encode()?) };
            self.rows.insert(keys::uses(number), row);
        }
        let meta = Meta { store: store.to_owned(), revision };
        self.rows.insert(keys::META.to_vec(), Some(meta.encode()?));
        Ok(Changes { rows: self.rows, moves: self.moves })
    }

    fn put_token(&mut self, token: &TokenRecord) -> Result<(), DraftError> {
        let bytes = write_token(token)?;
        let Some(number) = self.find(token.id) else {
            let early = self.early.remove(&token.id).filter(|(owner, _)| *owner == token.owner);
            let taken = early.map(|(_, name)| Cow::Owned(name));
            let item = BlockItem { id: token.id, taken, token: Cow::Owned(bytes) };
            return self.place(&token.owner, item);
        };
        let block = self.block(number)?;
        if block.owner != token.owner {
            return Err(DraftError::Owner(token.id));
        }
        let at = position(block, token.id)?;
        let grows = block.items.len() > 1
            && size(block) - block.items[at].token.len() + bytes.len() > 2 * BLOCK_BYTES;
        if !grows {
            block.items[at].token = Cow::Owned(bytes);
            return Ok(());
        }
        let mut item = block.items.remove(at);
        item.token = Cow::Owned(bytes);
        let used = self.take_use(number, token.id)?;
        self.place(&token.owner, item)?;
        used.map_or(Ok(()), |used| self.put_last_used(token.id, &used))
    }

    /// Into the owner's newest block while that has room, else into a new one.
    fn place(&mut self, owner: &str, item: BlockItem<'static>) -> Result<(), DraftError> {
        let (id, length) = (item.id, item_size(&item));
        let begun = self.begun.get(owner).and_then(|blocks| blocks.last());
        if let Some(number) = begun.or(self.locator.blocks(owner).last()).copied() {
            let block = self.block(number)?;
            let has_room = block.items.len() < BLOCK_ITEMS && size(block) + length <= BLOCK_BYTES;
            if has_room && !block.items.is_empty() {
                block.items.push(item);
                self.located(id, Some(number));
                return Ok(());
            }
        }
        let number = self.next;
        self.next = number.checked_add(1).filter(|next| *next < u32::MAX).ok_or(DraftError::Exhausted)?;
        self.blocks.insert(number, Block { owner: Cow::Owned(owner.to_owned()), items: vec![item] });
        self.begun.entry(owner.to_owned()).or_default().push(number);
        self.moves.push(Move::AddBlock { owner: owner.to_owned(), block: number });
        self.located(id, Some(number));
        Ok(())
    }

    fn drop_token(&mut self, id: TokenId, owner: &str) -> Result<(), DraftError> {
        let Some(number) = self.find(id) else { return Ok(()) };
        let block = self.block(number)?;
        if block.owner != owner {
            return Err(DraftError::Owner(id));
        }
        let at = position(block, id)?;
        block.items.remove(at);
        self.take_use(number, id)?;
        self.located(id, None);
        Ok(())
    }

    fn take_name(&mut self, owner: &str, name: &str, token: TokenId) -> Result<(), DraftError> {
        self.free_name(owner, name, Some(token))?;
        let hash = self.locator.name(owner, name);
        self.taken.insert(hash);
        self.moves.push(Move::Take { name: hash });
        let Some(number) = self.find(token) else {
            self.early.insert(token, (owner.to_owned(), name.to_owned()));
            return Ok(());
        };
        let block = self.block(number)?;
        if block.owner != owner {
            return Err(DraftError::Owner(token));
        }
        let at = position(block, token)?;
        block.items[at].taken = Some(Cow::Owned(name.to_owned()));
        Ok(())
    }

    /// From whoever has it, but for `keeper`.
    fn free_name(&mut self, owner: &str, name: &str, keeper: Option<TokenId>) -> Result<(), DraftError> {
        let hash = self.locator.name(owner, name);
        if !self.taken.contains(&hash) && !self.locator.may_be_taken(hash) {
            return Ok(());
        }
        self.early.retain(|id, (o, n)| o != owner || n != name || Some(*id) == keeper);
        let begun = self.begun.get(owner).map_or(&[][..], Vec::as_slice);
        let numbers = [self.locator.blocks(owner), begun].concat();
        for number in numbers {
            let holds = |item: &BlockItem<'_>| item.taken.as_deref() == Some(name) && Some(item.id) != keeper;
            if let Some(touched) = self.blocks.get_mut(&number) {
                touched.items.iter_mut().filter(|item| holds(item)).for_each(|item| item.taken = None);
                continue;
            }
            let Some(row) = self.db.get(keys::block(number)).map_err(Damage::from)? else { continue };
            let stored = Block::decode(&row).map_err(Damage::from)?;
            if stored.items.iter().any(holds) {
                let block = self.keep(number, stored.into_owned());
                block.items.iter_mut().filter(|item| holds(item)).for_each(|item| item.taken = None);
            }
        }
        Ok(())
    }

    fn put_last_used(&mut self, token: TokenId, used: &LastUsed) -> Result<(), DraftError> {
        let Some(number) = self.find(token) else { return Ok(()) };
        let uses = self.uses(number)?;
        match uses.0.iter_mut().find(|(id, _)| *id == token) {
            Some((_, stored)) if stored.at >= used.at => {}
            Some((_, stored)) => *stored = used.clone(),
            None => uses.0.push((token, used.clone())),
        }
        Ok(())
    }

    fn take_use(&mut self, block: u32, token: TokenId) -> Result<Option<LastUsed>, DraftError> {
        let uses = self.uses(block)?;
        let at = uses.0.iter().position(|(id, _)| *id == token);
        Ok(at.map(|at| uses.0.swap_remove(at).1))
    }

    fn trim_audit(&mut self, checkpoint: Checkpoint) -> Result<(), DraftError> {
        let end = keys::audit(checkpoint.seq);
        for key in self.db.range(keys::audit(0)..end.clone()).keys() {
            self.rows.insert(key.map_err(Damage::from)?.to_vec(), None);
        }
        let pending: Vec<Key> = self.rows.range(keys::audit(0)..end).map(|(key, _)| key.clone()).collect();
        self.rows.extend(pending.into_iter().map(|key| (key, None)));
        self.put(keys::CHECKPOINT.to_vec(), &checkpoint)
    }

    fn put_idempotency(&mut self, record: &IdempotencyRecord) -> Result<(), DraftError> {
        self.drop_idempotency(&record.key)?;
        self.rows.insert(keys::idempotency_at(record.at, &record.key), Some(record.key.clone().into_bytes()));
        self.put(keys::idempotency(&record.key), record)
    }

    fn drop_idempotency(&mut self, key: &str) -> Result<(), DraftError> {
        let row = keys::idempotency(key);
        let stored = match self.rows.get(&row) {
            Some(pending) => pending.clone(),
            None => self.db.get(&row).map_err(Damage::from)?.map(|row| row.to_vec()),
        };
        if let Some(stored) = stored {
            let stored = IdempotencyRecord::decode(&stored).map_err(Damage::from)?;
            self.rows.insert(keys::idempotency_at(stored.at, key), None);
        }
        self.drop(row)
    }

    fn put(&mut self, key: Key, record: &impl Record) -> Result<(), DraftError> {
        self.rows.insert(key, Some(record.encode()?));
        Ok(())
    }

    fn drop(&mut self, key: Key) -> Result<(), DraftError> {
        self.rows.insert(key, None);
        Ok(())
    }

    fn find(&self, id: TokenId) -> Option<u32> {
        self.placed.get(&id).copied().unwrap_or_else(|| self.locator.find(id))
    }

    fn located(&mut self, id: TokenId, block: Option<u32>) {
        self.placed.insert(id, block);
        self.moves.push(block.map_or(Move::Forget { id }, |block| Move::Place { id, block }));
    }

    fn block(&mut self, number: u32) -> Result<&mut Block<'static>, DraftError> {
        if !self.blocks.contains_key(&number) {
            let row =
                self.db.get(keys::block(number)).map_err(Damage::from)?.ok_or(Damage::Key("token block"))?;
            let block = Block::decode(&row).map_err(Damage::from)?.into_owned();
            return Ok(self.keep(number, block));
        }
        Ok(self.blocks.get_mut(&number).expect("it is there, else it would have been read"))
    }

    /// A stored block that is about to be changed.
    fn keep(&mut self, number: u32, block: Block<'static>) -> &mut Block<'static> {
        self.named.insert(number, block.named());
        self.blocks.entry(number).insert_entry(block).into_mut()
    }

    fn uses(&mut self, block: u32) -> Result<&mut LastUses, DraftError> {
        if !self.uses.contains_key(&block) {
            let row = self.db.get(keys::uses(block)).map_err(Damage::from)?;
            let uses = row.map(|row| LastUses::decode(&row)).transpose().map_err(Damage::from)?;
            self.uses.insert(block, uses.unwrap_or_default());
        }
        Ok(self.uses.get_mut(&block).expect("uses that are not there were just put there"))
    }
}

impl Move {
    pub(super) fn apply(self, locator: &mut Locator) {
        match self {
            Move::Place { id, block } => locator.place(id, block),
            Move::Forget { id } => locator.forget(id),
            Move::Take { name } => locator.take_name(name),
            Move::Named { owner, more } => locator.named(&owner, more),
            Move::AddBlock { owner, block } => drop(locator.found_block(&owner, block)),
            Move::DropBlock { owner, block } => locator.drop_block(&owner, block),
        }
    }
}

fn position(block: &Block<'_>, id: TokenId) -> Result<usize, DraftError> {
    // The newest are asked for most.
    block.items.iter().rposition(|item| item.id == id).ok_or(DraftError::NoToken(id))
}

fn size(block: &Block<'_>) -> usize {
    block.owner.len() + block.items.iter().map(item_size).sum::<usize>()
}

/// With room for the lengths in between.
fn item_size(item: &BlockItem<'_>) -> usize {
    item.id.as_bytes().len() + item.taken.as_ref().map_or(0, |name| name.len()) + item.token.len() + 8
}

fn named(table: &[u8], parts: &[&str]) -> Result<Key, DraftError> {
    keys::named(table, parts).ok_or_else(|| DraftError::Key(parts.join("/")))
}

fn grant_key(grant: &GrantRecord) -> Result<Key, DraftError> {
    match &grant.to {
        Grantee::User(id) => named(keys::GRANTS, &[&grant.role, "user", id]),
        Grantee::Group(id) => named(keys::GRANTS, &[&grant.role, "group", id]),
    }
}
