//! Whole-segment prefixes as a tree in one hash table: looking a path up costs as many probes as
//! its matched prefix has segments, plus one, however many prefixes there are.

/// A tree of segments with a value at every node.
#[derive(Clone, Debug)]
pub struct Table<V> {
    /// Open addressing; a power of two, at most half full.
    slots: Vec<Option<Edge>>,
    edges: usize,
    nodes: Vec<V>,
}

#[derive(Clone, Debug)]
struct Edge {
    hash: u32,
    parent: u32,
    child: u32,
    segment: Box<str>,
}

/// How segments are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Letters {
    Exact,
    /// ASCII letters without regard to case; the table's own segments are in lower case then.
    Folded,
}

impl<V: Default> Default for Table<V> {
    fn default() -> Self {
        Self { slots: vec![None; 8], edges: 0, nodes: vec![V::default()] }
    }
}

impl<V: Default> Table<V> {
    /// The value at the end of these segments, made as needed.
    pub fn entry<'s>(&mut self, segments: impl Iterator<Item = &'s str>) -> &mut V {
        let mut node = 0;
        for segment in segments {
            node = match self.child(node, segment, Letters::Exact) {
                Some(child) => child,
                None => self.add_child(node, segment),
            };
        }
        &mut self.nodes[node as usize]
    }

    fn add_child(&mut self, parent: u32, segment: &str) -> u32 {
        if (self.edges + 1) * 2 > self.slots.len() {
            let grown = vec![None; self.slots.len() * 2];
            for edge in std::mem::replace(&mut self.slots, grown).into_iter().flatten() {
                self.place(edge);
            }
        }
        let child = u32::try_from(self.nodes.len()).expect("fewer than 2^32 configured segments");
        self.nodes.push(V::default());
        self.edges += 1;
        self.place(Edge { hash: hash(parent, segment), parent, child, segment: segment.into() });
        child
    }

    fn place(&mut self, edge: Edge) {
        let mask = self.slots.len() - 1;
        let mut at = edge.hash as usize & mask;
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some(edge);
    }
}

impl<V> Table<V> {
    /// Visits the values along a path that starts with `/`, the shortest prefix first; the flag
    /// says that the whole path is matched.
    pub fn walk<'t>(&'t self, path: &str, letters: Letters, mut visit: impl FnMut(&'t V, bool)) {
        visit(&self.nodes[0], false);
        let Some(mut rest) = path.as_bytes().strip_prefix(b"/") else { return };
        let mut node = 0;
        loop {
            // One pass finds the segment's end and its hash.
            let (mut end, mut hash) = (0, start(node));
            while end < rest.len() && rest[end] != b'/' {
                hash = step(hash, rest[end]);
                end += 1;
            }
            let Some(child) = self.find(node, &rest[..end], finish(hash), letters) else { return };
            visit(&self.nodes[child as usize], end == rest.len());
            if end == rest.len() {
                return;
            }
            (node, rest) = (child, &rest[end + 1..]);
        }
    }

    fn child(&self, parent: u32, segment: &str, letters: Letters) -> Option<u32> {
        self.find(parent, segment.as_bytes(), hash(parent, segment), letters)
    }

    fn find(&self, parent: u32, segment: &[u8], hash: u32, letters: Letters) -> Option<u32> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        while let Some(edge) = &self.slots[at] {
            if edge.hash == hash && edge.parent == parent && letters.same(edge.segment.as_bytes(), segment) {
                return Some(edge.child);
            }
            at = (at + 1) & mask;
        }
        None
    }
}

impl Letters {
    fn same(self, stored: &[u8], sent: &[u8]) -> bool {
        match self {
            Letters::Exact => stored == sent,
            Letters::Folded => stored.eq_ignore_ascii_case(sent),
        }
    }
}

/// FNV-1a without regard to the case of letters, so that one function serves both comparisons. Who
/// sends paths cannot choose what is stored, hence no need for a keyed hash.
fn hash(parent: u32, segment: &str) -> u32 {
    finish(segment.bytes().fold(start(parent), step))
}

fn start(parent: u32) -> u32 {
    0x811c_9dc5 ^ parent.wrapping_mul(0x9e37_79b1)
}

fn step(hash: u32, byte: u8) -> u32 {
    (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193)
}

fn finish(hash: u32) -> u32 {
    hash ^ hash >> 15
}

/// The segments of a prefix: none for `/`.
pub fn prefix_segments(prefix: &str) -> impl Iterator<Item = &str> {
    prefix.split('/').skip(1).filter(move |_| prefix != "/")
}

/// The segments of a whole path: one empty one for `/`.
pub fn path_segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').skip(1)
}

/// Whether a prefix owns a path by whole segments.
pub fn covers(prefix: &str, path: &str, letters: Letters) -> bool {
    if prefix == "/" {
        return path.starts_with('/');
    }
    let (prefix, path) = (prefix.as_bytes(), path.as_bytes());
    let Some((head, rest)) = path.split_at_checked(prefix.len()) else { return false };
    letters.same(prefix, head) && (rest.is_empty() || rest.starts_with(b"/"))
}

/// Whether a pattern of `read_methods` fits a path: a prefix of whole segments, of which `*` stands for any
/// one, or behind a leading `*/` the path's last segments. Looks at each byte of the path once.
pub fn fits(pattern: &str, path: &str, letters: Letters) -> bool {
    let same = |(wanted, sent): (&str, &str)| {
        if wanted == "*" { !sent.is_empty() } else { letters.same(wanted.as_bytes(), sent.as_bytes()) }
    };
    match pattern.strip_prefix("*/") {
        Some(last) => {
            let mut sent = path.rsplit('/');
            // The empty segment before the first slash is none.
            let all = last.rsplit('/').all(|wanted| sent.next().is_some_and(|sent| same((wanted, sent))));
            all && sent.next().is_some()
        }
        None if pattern.contains('*') => {
            let mut sent = path_segments(path);
            prefix_segments(pattern).all(|wanted| sent.next().is_some_and(|sent| same((wanted, sent))))
        }
        None => covers(pattern, path, letters),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_whole_segment_prefix_wins() {
        let mut table = Table::<Option<&str>>::default();
        for prefix in ["/", "/api", "/api/reports", "/API", "/a/b/c/d"] {
            *table.entry(prefix_segments(prefix)) = Some(prefix);
        }
        let check = |path: &str, letters: Letters, expected: &str| {
            let mut found = None;
            table.walk(path, letters, |value, _| found = value.or(found));
            assert_eq!(found, Some(expected), "{path}");
        };
        check("/", Letters::Exact, "/");
        check("/api", Letters::Exact, "/api");
        check("/api/", Letters::Exact, "/api");
        check("/apix", Letters::Exact, "/");
        check("/API/x", Letters::Exact, "/API");
        check("/Api", Letters::Exact, "/");
        check("/api/reports/1", Letters::Exact, "/api/reports");
        check("/api/reportsx", Letters::Exact, "/api");
        check("/a/b/c", Letters::Exact, "/");
        check("/a/b/c/d/e", Letters::Exact, "/a/b/c/d");
        check("/A/b/C/D/e", Letters::Folded, "/a/b/c/d");
    }

    #[test]
    fn many_prefixes_are_told_apart() {
        let mut table = Table::<u32>::default();
        for number in 1..5000 {
            *table.entry(prefix_segments(&format!("/service-{number}/api"))) = number;
        }
        for number in 1..5000 {
            let mut found = 0;
            table.walk(&format!("/service-{number}/api/x"), Letters::Exact, |value, _| {
                found = found.max(*value);
            });
            assert_eq!(found, number);
        }
    }

    #[test]
    fn a_pattern_fits_whole_segments() {
        let check = |pattern: &str, path: &str, expected: bool| {
            assert_eq!(fits(pattern, path, Letters::Exact), expected, "{pattern} {path}");
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
        assert!(fits("*/query", "/x/QUERY", Letters::Folded));
        assert!(fits("/a/*/b", "/A/x/B/c", Letters::Folded));
    }

    #[test]
    fn a_prefix_covers_whole_segments() {
        let check = |prefix: &str, path: &str, covered: bool| {
            assert_eq!(covers(prefix, path, Letters::Exact), covered, "{prefix} {path}");
        };
        check("/", "/x", true);
        check("/api", "/api", true);
        check("/api", "/api/", true);
        check("/api", "/apix", false);
        check("/api", "/ap", false);
        check("/api", "/ap\u{e9}", false);
        assert!(covers("/api", "/API/x", Letters::Folded));
    }
}
