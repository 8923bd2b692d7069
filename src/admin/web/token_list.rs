//! Lists of tokens with tabs, search, order and pages. All of that is part of the URL, so that a link or a
//! reload shows the same list.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
};

use serde::{Deserialize, Serialize};
use strum::VariantNames as _;

use super::{address, token::TokenRow};
use crate::{
    admin::{
        ApiResult, Context, Problem,
        offload::READS,
        tokens::{TokenView, last_used},
        wire::{HumanDuration, Time},
    },
    authz::{accounts::Accounts, secret::TokenId, time::Timestamp},
    fence::LiveRow,
    store::{ReadError, TokenFilter, TokenState, model::TokenRecord},
};

/// The query parameters of a list.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// `active` (the default), `expiring`, `inactive` or `all`.
    pub tab: Option<String>,
    /// Words to find in the name, the id, the owner's login or the scope.
    pub q: Option<String>,
    /// A column, with `-` in front for descending order.
    pub sort: Option<String>,
    /// From 1.
    pub page: Option<usize>,
    pub user: Option<String>,
    pub service: Option<String>,
    pub unused_for: Option<String>,
    pub expiring_in: Option<String>,
    pub state: Option<String>,
}

/// One page of a list.
pub struct Listing {
    pub rows: Vec<TokenRow>,
    /// Tokens in the tab, on all pages.
    pub total: usize,
    /// Tokens in all tabs.
    pub all: usize,
    pub first: usize,
    pub last: usize,
    pub tabs: Vec<Tab>,
    pub columns: BTreeMap<&'static str, Column>,
    pub previous: Option<String>,
    pub next: Option<String>,
    /// The store has more tokens than the list read.
    pub incomplete: bool,
    pub asked: Filter,
    pub base: &'static str,
}

pub struct Tab {
    pub label: &'static str,
    pub link: String,
    pub count: usize,
    pub current: bool,
    pub warn: bool,
}

/// A column that the list can be sorted by.
pub struct Column {
    pub link: String,
    pub sort: Option<&'static str>,
}

/// The records of a list, or as many as were read.
pub struct LoadedTokens {
    pub all: Vec<TokenRecord>,
    pub incomplete: bool,
}

/// Rows per page.
const ROWS: usize = 50;
/// A list reads at most this many records in each of `STEPS` steps; with more it is incomplete.
const STEP_SIZE: usize = 5_000;
const STEPS: usize = 4;
/// Tokens that expire within this many days are listed under "Expiring".
pub const EXPIRING: u32 = 14;
const SORTS: [&str; 5] = ["name", "owner", "created", "used", "expires"];

impl Filter {
    fn filter(&self, owner: Option<String>, now: Timestamp) -> ApiResult<TokenFilter> {
        Ok(TokenFilter {
            owner,
            service: self.service.clone(),
            unused_since: parse_duration(self.unused_for.as_deref())?.map(|span| span.before(now)),
            expiring_before: parse_duration(self.expiring_in.as_deref())?.map(|span| span.after(now)),
            state: None,
        })
    }

    /// Whether anything but the tab narrows the list.
    pub fn is_filtered(&self) -> bool {
        let all = [&self.q, &self.user, &self.service, &self.unused_for, &self.expiring_in, &self.state];
        all.into_iter().any(Option::is_some)
    }
}

impl LoadedTokens {
    pub fn read(context: &Context, filter: &TokenFilter) -> Result<Self, ReadError> {
        let (mut all, mut cursor) = (Vec::new(), None);
        for _ in 0..STEPS {
            let page = context.store.tokens(filter, cursor.as_deref(), STEP_SIZE)?;
            all.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(Self { all, incomplete: cursor.is_some() })
    }

    pub fn of_owner(context: &Context, login: &str) -> Result<Self, ReadError> {
        Self::read(context, &TokenFilter { owner: Some(login.to_owned()), ..TokenFilter::default() })
    }
}

/// Reads a list off the control thread, because it may be long.
pub async fn read(
    context: &Context,
    owner: Option<String>,
    asked: Filter,
    base: &'static str,
) -> ApiResult<Listing> {
    let live = context.fence.list().await;
    let context = context.clone();
    READS.run(move || listing(&context, owner, asked, base, &live)).await?
}

fn listing(
    context: &Context,
    owner: Option<String>,
    mut asked: Filter,
    base: &'static str,
    live: &[LiveRow],
) -> ApiResult<Listing> {
    // Whatever is changed leads to the first page.
    let page = asked.page.take();
    let now = Time::now();
    let accounts = context.store.accounts();
    if let Some(state) = asked.state.as_deref() {
        require_known(state, TokenState::VARIANTS)?;
    }
    let tab = asked.tab.as_deref().unwrap_or("active");
    require_known(tab, &["active", "expiring", "inactive", "all"])?;
    let sort = asked.sort.as_deref().unwrap_or("-created");
    require_known(sort.trim_start_matches('-'), &SORTS)?;

    let unused_since = asked.filter(None, now)?.unused_since;
    let LoadedTokens { all: records, incomplete } = LoadedTokens::read(context, &asked.filter(owner, now)?)?;
    let from: HashMap<TokenId, TokenId> =
        records.iter().filter_map(|record| Some((record.rotation?.to, record.id))).collect();
    let mut entries: Vec<ListedToken> = records
        .into_iter()
        .map(|record| ListedToken::new(context, &accounts, record, now))
        .filter(|entry| unused_since.is_none_or(|at| entry.used < Some(at)))
        .filter(|entry| asked.state.as_deref().is_none_or(|state| entry.state.into_str() == state))
        .filter(|entry| asked.q.as_deref().is_none_or(|words| entry.matches(words)))
        .collect();
    let all = entries.len();
    let count = |tab: &str| entries.iter().filter(|entry| entry.is_in_tab(tab, now)).count();
    // A state selected by name is searched in all tabs.
    let tab = if asked.state.is_some() { "all" } else { tab };
    let tabs = [("active", "Active", false), ("expiring", "Expiring", true), ("inactive", "Inactive", false)];
    let tabs = tabs.map(|(key, label, warn)| {
        let count = count(key);
        let shown = (key != "active").then(|| key.to_owned());
        let link = address(base, &Filter { tab: shown, ..asked.clone() });
        Tab { label, link, count, current: key == tab, warn: warn && count > 0 }
    });
    entries.retain(|entry| entry.is_in_tab(tab, now));
    let total = entries.len();
    sort_by(&mut entries, sort);
    let pages = total.div_ceil(ROWS).max(1);
    let page = page.unwrap_or(1).clamp(1, pages);
    let at = |page: usize| address(base, &Filter { page: (page > 1).then_some(page), ..asked.clone() });
    let rows = entries.into_iter().skip((page - 1) * ROWS).take(ROWS).map(|entry| {
        let live = live.iter().filter(|row| row.token == Some(entry.record.id)).count();
        let rotated_from = from.get(&entry.record.id).map(ToString::to_string);
        let view = TokenView::at(context, &accounts, entry.record, now);
        TokenRow { view, live, rotated_from }
    });
    let rows: Vec<TokenRow> = rows.collect();
    let column = |key: &'static str| {
        let (up, down) = (sort == key, sort.strip_prefix('-') == Some(key));
        // The first click sorts names and expiry ascending, the other times latest first.
        let ascends = if matches!(key, "name" | "owner" | "expires") { !up } else { down };
        let value = if ascends { key.to_owned() } else { format!("-{key}") };
        let direction = if up { Some("ascending") } else { down.then_some("descending") };
        let link = address(base, &Filter { sort: Some(value), ..asked.clone() });
        (key, Column { link, sort: direction })
    };
    Ok(Listing {
        total,
        all,
        first: if rows.is_empty() { 0 } else { (page - 1) * ROWS + 1 },
        last: (page - 1) * ROWS + rows.len(),
        tabs: tabs.into(),
        columns: SORTS.into_iter().map(column).collect(),
        previous: (page > 1).then(|| at(page - 1)),
        next: (page < pages).then(|| at(page + 1)),
        incomplete,
        rows,
        asked,
        base,
    })
}

/// A record with what a list filters and sorts by.
struct ListedToken {
    record: TokenRecord,
    state: TokenState,
    used: Option<Timestamp>,
    owner: String,
}

impl ListedToken {
    fn new(context: &Context, accounts: &Accounts, record: TokenRecord, now: Timestamp) -> Self {
        let owner = accounts.user_by_id(&record.owner);
        let banned = owner.is_some_and(|owner| owner.record.banned.is_some());
        Self {
            state: record.state(banned, now),
            used: last_used(context, &record).map(|used| used.at),
            owner: owner.map_or_else(String::new, |owner| owner.record.login.clone()),
            record,
        }
    }

    fn is_in_tab(&self, tab: &str, now: Timestamp) -> bool {
        let alive = is_alive(self.state);
        let limit = now.plus_seconds(i64::from(EXPIRING) * 86_400);
        match tab {
            "active" => alive,
            "expiring" => alive && self.record.expires_at.is_some_and(|end| end < limit),
            "inactive" => !alive,
            _ => true,
        }
    }

    fn matches(&self, words: &str) -> bool {
        let services = self.record.scope.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(" ");
        let text = format!("{} {} {} {}", self.record.name, self.record.id, self.owner, services);
        let text = text.to_lowercase();
        words.to_lowercase().split_whitespace().all(|word| text.contains(word))
            || words.trim().starts_with("pgt_") && words.contains(self.record.id.as_str())
    }
}

/// Whether requests with the token may be permitted, now or later.
pub fn is_alive(state: TokenState) -> bool {
    matches!(state, TokenState::Active | TokenState::Pending | TokenState::Rotating | TokenState::Suspended)
}

fn sort_by(entries: &mut [ListedToken], sort: &str) {
    let (key, down) = sort.strip_prefix('-').map_or((sort, false), |key| (key, true));
    let far = Timestamp::from_millis(i64::MAX);
    let order = |a: &ListedToken, b: &ListedToken| -> Ordering {
        match key {
            "name" => a.record.name.to_lowercase().cmp(&b.record.name.to_lowercase()),
            "owner" => a.owner.cmp(&b.owner),
            "used" => a.used.cmp(&b.used),
            "expires" => a.record.expires_at.unwrap_or(far).cmp(&b.record.expires_at.unwrap_or(far)),
            _ => a.record.created_at.cmp(&b.record.created_at),
        }
    };
    entries.sort_by(|a, b| {
        let first = order(a, b);
        let first = if down { first.reverse() } else { first };
        first.then_with(|| b.record.created_at.cmp(&a.record.created_at)).then(a.record.id.cmp(&b.record.id))
    });
}

fn parse_duration(text: Option<&str>) -> ApiResult<Option<HumanDuration>> {
    let bad = || Problem::invalid("A duration has a unit, such as 90d or 12h");
    text.map(|text| HumanDuration::parse(text).ok_or_else(bad)).transpose()
}

fn require_known(word: &str, words: &[&str]) -> ApiResult<()> {
    if words.contains(&word) {
        return Ok(());
    }
    Err(Problem::invalid(format!("\"{word}\" is not known here. Use one of {}", words.join(", "))))
}

impl TokenRow {
    /// The remark beside the name, for every state but `active`.
    pub fn remark(&self) -> Option<(&'static str, String)> {
        let when = |time: Option<Time>| time.map(Time::in_words).unwrap_or_default();
        Some(match self.view.state.as_str() {
            "pending" => ("info", format!("starts {}", when(self.view.not_before))),
            "rotating" => ("warn", format!("ends {}", when(self.view.grace_until))),
            "rotated" => ("", "replaced".to_owned()),
            "revoked" => ("bad", "revoked".to_owned()),
            "expired" => ("", format!("expired {}", when(self.view.expires_at))),
            "suspended" => ("bad", "owner is banned".to_owned()),
            _ => return None,
        })
    }
}
