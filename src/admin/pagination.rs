//! Query strings, in which unknown parameters are refused, and the cursors and limits of lists.

use axum::extract::{FromRequestParts, Query};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Uri, request::Parts};
use serde::{Deserialize, de::DeserializeOwned};

use super::{ApiResult, Problem, wire::Page};

/// The parameters of a query string.
pub struct Params<T>(pub T);

/// Where a page begins and how long it is: the parameters of a list without filters.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageRequest {
    pub cursor: Option<String>,
    pub limit: Option<usize>,
}

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

pub fn bad_cursor() -> Problem {
    Problem::invalid("The cursor is invalid: use the `next` of a page")
}

impl PageRequest {
    /// The most rows of the page.
    pub fn limit(&self) -> ApiResult<usize> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let fits = (1..=MAX_LIMIT).contains(&limit);
        fits.then_some(limit).ok_or_else(|| Problem::invalid(format!("limit is 1 to {MAX_LIMIT}")))
    }

    /// A page of rows in memory, in the order of `key`. The cursor is the key of the last row, encoded so that a
    /// script may put it into a URL as it is.
    pub fn page<T>(self, mut rows: Vec<T>, key: impl Fn(&T) -> String) -> ApiResult<Page<T>> {
        let limit = self.limit()?;
        let last = self.cursor.map(|cursor| URL_SAFE_NO_PAD.decode(cursor)).transpose();
        let last = last.map_err(|_| bad_cursor())?;
        rows.sort_by_cached_key(&key);
        let after = last.map_or(0, |last| rows.partition_point(|row| key(row).as_bytes() <= last.as_slice()));
        let mut items = rows.split_off(after);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|row| URL_SAFE_NO_PAD.encode(key(row)));
        Ok(Page { items, next })
    }
}

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> ApiResult<Self> {
        parse(&parts.uri).map(Self)
    }
}

/// Parses the query string of a URI.
pub(super) fn parse<T: DeserializeOwned>(uri: &Uri) -> ApiResult<T> {
    Query::try_from_uri(uri).map(|query| query.0).map_err(|error| {
        let text = error.body_text();
        let text = text.trim_start_matches("Failed to deserialize query string: ");
        Problem::unreadable("The query string", text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        fn check(name: &str, rows: &[&str], limit: usize, expected: &[&[&str]]) {
            let mut pages = Vec::new();
            let mut cursor = None;
            loop {
                let paging = PageRequest { cursor, limit: Some(limit) };
                let page = paging.page(rows.to_vec(), |row| (*row).to_owned()).unwrap();
                pages.push(page.items);
                let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
                assert!(page.next.iter().all(|next| next.bytes().all(is_plain)), "{name}: {:?}", page.next);
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
            assert_eq!(pages, expected, "{name}");
        }
        check("nothing", &[], 2, &[&[]]);
        check("one short page", &["b", "a"], 3, &[&["a", "b"]]);
        check("one full page has no next", &["b", "a"], 2, &[&["a", "b"]]);
        check("several", &["c", "a", "e", "b", "d"], 2, &[&["a", "b"], &["c", "d"], &["e"]]);
        check("signs", &["a+b", "a&b", "a b", "é#%"], 1, &[&["a b"], &["a&b"], &["a+b"], &["é#%"]]);
        let garbled = PageRequest { cursor: Some("a b".to_owned()), limit: None };
        assert!(garbled.page(vec!["a"], |row| (*row).to_owned()).is_err());
    }

    #[test]
    fn limits_are_bounded() {
        fn check(limit: usize, accepted: bool) {
            assert_eq!(PageRequest { cursor: None, limit: Some(limit) }.limit().is_ok(), accepted, "{limit}");
        }
        check(0, false);
        check(1, true);
        check(MAX_LIMIT, true);
        check(MAX_LIMIT + 1, false);
    }
}
