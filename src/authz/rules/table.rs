//! Hash tables of prefixes of whole segments, as written and in lower case. A look-up probes once for each
//! segment of the path, up to the longest prefix, however many prefixes there are.

use std::{borrow::Cow, collections::HashMap};

/// A value for each prefix or whole path.
#[derive(Clone, Debug)]
pub struct Table<V> {
    exact: HashMap<Box<str>, V>,
    /// The same, by lower-case key.
    folded: HashMap<Box<str>, V>,
    /// The length of the longest key in bytes.
    longest: usize,
}

/// How segments are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaseMatching {
    Exact,
    /// ASCII letters ignoring case.
    Folded,
}

impl<V> Default for Table<V> {
    fn default() -> Self {
        Self { exact: HashMap::new(), folded: HashMap::new(), longest: 0 }
    }
}

impl<V: Default> Table<V> {
    /// Changes the value of a prefix, which is created if it is missing.
    pub fn change_prefix(&mut self, prefix: &str, change: impl Fn(&mut V)) {
        // The prefix without a segment covers every path.
        self.change_path(if prefix == "/" { "" } else { prefix }, change);
    }

    /// Changes the value of one whole path, which is created if it is missing.
    pub fn change_path(&mut self, key: &str, change: impl Fn(&mut V)) {
        change(self.exact.entry(key.into()).or_default());
        change(self.folded.entry(key.to_ascii_lowercase().into()).or_default());
        self.longest = self.longest.max(key.len());
    }
}

impl<V> Table<V> {
    /// All keys, in lower case.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.folded.keys().map(|key| &**key)
    }

    /// Visits the values of all prefixes of a path, which starts with `/`, the shortest first. The flag is
    /// set if the whole path matched.
    pub fn walk<'t>(&'t self, path: &str, case: CaseMatching, mut visit: impl FnMut(&'t V, bool)) {
        if self.exact.is_empty() {
            return;
        }
        let (values, path) = match case {
            CaseMatching::Exact => (&self.exact, Cow::Borrowed(path)),
            CaseMatching::Folded => (&self.folded, Cow::Owned(path.to_ascii_lowercase())),
        };
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        // The first end is that of the empty prefix.
        for end in ends.take_while(|end| *end <= self.longest) {
            if let Some(value) = values.get(&path[..end]) {
                visit(value, end == path.len());
            }
        }
    }
}

impl CaseMatching {
    fn same(self, stored: &[u8], sent: &[u8]) -> bool {
        match self {
            CaseMatching::Exact => stored == sent,
            CaseMatching::Folded => stored.eq_ignore_ascii_case(sent),
        }
    }
}

/// Whether a prefix covers a path by whole segments.
pub fn covers(prefix: &str, path: &str, case: CaseMatching) -> bool {
    if prefix == "/" {
        return path.starts_with('/');
    }
    let (prefix, path) = (prefix.as_bytes(), path.as_bytes());
    let Some((head, rest)) = path.split_at_checked(prefix.len()) else { return false };
    case.same(prefix, head) && (rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a pattern of `read_methods` matches a path: a prefix of whole segments in which `*` matches any
/// one, or after a leading `*/` the last segments. Reads each byte of the path once.
pub fn matches_pattern(pattern: &str, path: &str, case: CaseMatching) -> bool {
    let same = |(wanted, sent): (&str, &str)| {
        if wanted == "*" { !sent.is_empty() } else { case.same(wanted.as_bytes(), sent.as_bytes()) }
    };
    match pattern.strip_prefix("*/") {
        Some(last) => {
            let mut sent = path.rsplit('/');
            // The empty segment before the first slash does not count.
            let all = last.rsplit('/').all(|wanted| sent.next().is_some_and(|sent| same((wanted, sent))));
            all && sent.next().is_some()
        }
        None if pattern.contains('*') => {
            let mut sent = path.split('/');
            pattern.split('/').all(|wanted| sent.next().is_some_and(|sent| same((wanted, sent))))
        }
        None => covers(pattern, path, case),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_whole_segment_prefix_wins() {
        let mut table = Table::<Option<&str>>::default();
        for prefix in ["/", "/api", "/api/reports", "/API", "/a/b/c/d"] {
            table.change_prefix(prefix, |value| *value = Some(prefix));
        }
        let check = |path: &str, case: CaseMatching, expected: &str| {
            let mut found = None;
            table.walk(path, case, |value, _| found = value.or(found));
            assert_eq!(found, Some(expected), "{path}");
        };
        check("/", CaseMatching::Exact, "/");
        check("/api", CaseMatching::Exact, "/api");
        check("/api/", CaseMatching::Exact, "/api");
        check("/apix", CaseMatching::Exact, "/");
        check("/API/x", CaseMatching::Exact, "/API");
        check("/Api", CaseMatching::Exact, "/");
        check("/api/reports/1", CaseMatching::Exact, "/api/reports");
        check("/api/reportsx", CaseMatching::Exact, "/api");
        check("/a/b/c", CaseMatching::Exact, "/");
        check("/a/b/c/d/e", CaseMatching::Exact, "/a/b/c/d");
        check("/A/b/C/D/e", CaseMatching::Folded, "/a/b/c/d");
    }

    #[test]
    fn many_prefixes_are_told_apart() {
        let mut table = Table::<u32>::default();
        for number in 1..5000 {
            table.change_prefix(&format!("/service-{number}/api"), |value| *value = number);
        }
        for number in 1..5000 {
            let mut found = 0;
            table.walk(&format!("/service-{number}/api/x"), CaseMatching::Exact, |value, _| {
                found = found.max(*value);
            });
            assert_eq!(found, number);
        }
    }

    #[test]
    fn a_pattern_fits_whole_segments() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(matches_pattern(pattern, path, CaseMatching::Exact), expected, "{pattern} {path}");
        };
        check("/api", "/api/x", true);
        check("*/git-upload-pack", "/a/b.git/git-upload-pack", true);
        check("*/git-upload-pack", "/git-upload-pack", true);
        check("*/git-upload-pack", "/a/git-upload-pack/", false);
        check("*/git-upload-pack", "/a/git-upload-pack/x", false);
        check("*/git-upload-pack", "/a/xgit-upload-pack", false);
        check("*/git-upload-pack", "/a/git-receive-pack", false);
        check("*/info/refs", "/a/info/refs", true);
        check("*/info/refs", "/info/refs", true);
        check("*/info/refs", "/refs", false);
        check("*/api/*/query", "/x/api/v1/query", true);
        check("*/api/*/query", "/api/v1/query", true);
        check("*/api/*/query", "/api//query", false);
        check("/api/*/search", "/api/v1/search", true);
        check("/api/*/search", "/api/v1/search/x", true);
        check("/api/*/search", "/api/search", false);
        check("/api/*/search", "/api//search", false);
        check("/api/*/search", "/api/v1/v2/search", false);
        check("/*", "/x/y", true);
        check("/*", "/", false);
        check("/a*b", "/axb", false);
        check("/a*b", "/a*b/c", true);
        assert!(matches_pattern("*/query", "/x/QUERY", CaseMatching::Folded));
        assert!(matches_pattern("/a/*/b", "/A/x/B/c", CaseMatching::Folded));
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let check = |prefix: &str, path: &str, covered: bool| {
            assert_eq!(covers(prefix, path, CaseMatching::Exact), covered, "{prefix} {path}");
        };
        check("/", "/x", true);
        check("/api", "/api", true);
        check("/api", "/api/", true);
        check("/api", "/apix", false);
        check("/api", "/ap", false);
        check("/api", "/ap\u{e9}", false);
        assert!(covers("/api", "/API/x", CaseMatching::Folded));
    }
}
