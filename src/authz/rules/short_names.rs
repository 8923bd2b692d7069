//! The short names (8.3) by which Windows also finds files and directories with long names: `/ADMINI~1` is
//! `/administration`. Prefixes are kept as a tree of directories, so that the work for a path does not grow
//! with their number, but with that of the directories that it may mean.

use std::collections::HashMap;

/// The directories of a host's prefixes, and their short names.
#[derive(Clone, Debug)]
pub struct Directories {
    /// The root comes first.
    all: Vec<Directory>,
}

#[derive(Clone, Debug, Default)]
pub struct Directory {
    /// In lower case; empty for the root.
    pub path: Box<str>,
    pub is_prefix: bool,
    /// Positions by name.
    children: HashMap<Box<str>, usize>,
    /// Sorted; without the children that are their own short names.
    long_names: Vec<LongName>,
}

/// What the short forms of a name depend on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LongName {
    /// The beginning of the extension.
    extension: Box<[u8]>,
    /// The name without the characters that a short name leaves out.
    base: Box<[u8]>,
    child: usize,
}

/// The work that the search for one owner may still cause, in steps of some 50 ns. A request has one for its
/// path, and for each other target or host that it names.
#[derive(Clone, Copy, Debug)]
pub struct Work(u32);

/// A path may mean too many directories.
#[derive(Clone, Copy, Debug)]
pub struct TooMuchWork;

/// Many times what paths in real use need, and well below a millisecond.
const MAX_WORK: u32 = 4096;
/// Finding the owner of a path takes as long as this many steps.
pub const LOOKUP: u32 = 16;

impl Default for Work {
    fn default() -> Self {
        Self(MAX_WORK)
    }
}

impl Work {
    pub fn spend(&mut self, steps: u32) -> Result<(), TooMuchWork> {
        self.0 = self.0.checked_sub(steps).ok_or(TooMuchWork)?;
        Ok(())
    }
}

impl Directories {
    /// `prefixes` are in lower case.
    pub fn of<'p>(prefixes: impl Iterator<Item = &'p str>) -> Self {
        let mut all = vec![Directory::default()];
        for prefix in prefixes {
            let (mut at, mut end) = (0, 0);
            for name in prefix.split('/').skip(1) {
                end += 1 + name.len();
                at = match all[at].children.get(name) {
                    Some(child) => *child,
                    None => {
                        let child = all.len();
                        all.push(Directory { path: prefix[..end].into(), ..Directory::default() });
                        all[at].children.insert(name.into(), child);
                        all[at].long_names.extend(LongName::of(name, child));
                        child
                    }
                };
            }
            all[at].is_prefix = true;
        }
        all.iter_mut().for_each(|directory| directory.long_names.sort_unstable());
        Self { all }
    }

    /// Reads the beginning of a path as the short form of each directory that it may mean. Returns these with
    /// the rest of the path.
    pub fn expand<'t, 'p>(
        &'t self,
        path: &'p str,
        work: &mut Work,
    ) -> Result<Vec<(&'t Directory, &'p str)>, TooMuchWork> {
        let (lower, mut found) = (path.to_ascii_lowercase(), Vec::new());
        // Each directory, and whether a short name led to it.
        let (mut here, mut next) = (vec![(0, false)], Vec::new());
        let mut end = 0;
        for name in lower.split('/').skip(1) {
            end += 1 + name.len();
            let short = ShortName::parse(name);
            for (at, shortened) in here.drain(..) {
                work.spend(1)?;
                let directory: &Directory = &self.all[at];
                let same = directory.children.get(name).copied();
                next.extend(same.map(|child| (child, shortened)));
                let longer = short.iter().flat_map(|short| short.find(&directory.long_names));
                for child in longer.filter(|child| same != Some(*child)) {
                    work.spend(1)?;
                    next.push((child, true));
                }
            }
            if next.is_empty() {
                break;
            }
            std::mem::swap(&mut here, &mut next);
            let rest = path[end..].strip_prefix('/').unwrap_or_default();
            found.extend(here.iter().filter(|(_, short)| *short).map(|(at, _)| (&self.all[*at], rest)));
        }
        Ok(found)
    }
}

impl LongName {
    /// `None` for a name that is its own short name.
    fn of(name: &str, child: usize) -> Option<Self> {
        if is_own_short_name(name) {
            return None;
        }
        // A short name leaves out spaces and all dots but the last one.
        let name = name.trim_start_matches(['.', ' ']);
        let (base, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        let base = base.bytes().filter(|byte| !matches!(byte, b'.' | b' ')).map(kept).collect();
        Some(Self { extension: extension.as_bytes()[..extension.len().min(3)].into(), base, child })
    }
}

/// A name in lower case that NTFS may have made for a long one: up to six characters of the name, or two and
/// four digits of a hash, then `~` and a number, then up to three characters of the extension.
struct ShortName<'n> {
    begin: &'n [u8],
    extension: &'n [u8],
}

impl<'n> ShortName<'n> {
    fn parse(name: &'n str) -> Option<Self> {
        let (base, extension) = name.split_once('.').unwrap_or((name, ""));
        let (begin, number) = base.split_once('~')?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        (is_number && !begin.is_empty() && base.len() <= 8)
            .then_some(Self { begin: begin.as_bytes(), extension: extension.as_bytes() })
    }

    /// The children whose short name it may be.
    fn find<'l>(&self, names: &'l [LongName]) -> impl Iterator<Item = usize> + use<'l> {
        // Names of fewer than two characters have the hash behind them all.
        let hashed = self
            .begin
            .len()
            .checked_sub(4)
            .filter(|kept| *kept <= 2 && self.begin[*kept..].iter().all(u8::is_ascii_hexdigit));
        let begin = if hashed == Some(2) { &self.begin[..2] } else { self.begin };
        let begins = self.range(names, begin, |base| base.starts_with(begin));
        let whole = hashed.filter(|kept| *kept < 2).map(|kept| &self.begin[..kept]);
        let whole = whole.map_or(&[][..], |whole| self.range(names, whole, |base| base == whole));
        begins.iter().chain(whole).map(|name| name.child)
    }

    /// The names with this extension for which `applies`, which are those from `first` on.
    fn range<'l>(
        &self,
        names: &'l [LongName],
        first: &[u8],
        applies: impl Fn(&[u8]) -> bool,
    ) -> &'l [LongName] {
        let key = (self.extension, first);
        let start = names.partition_point(|name| (&*name.extension, &*name.base) < key);
        let names = &names[start..];
        let is_in = |name: &LongName| *name.extension == *self.extension && applies(&name.base);
        &names[..names.partition_point(is_in)]
    }
}

/// Whether a name is its own short name.
fn is_own_short_name(long: &str) -> bool {
    let (name, extension) = long.split_once('.').unwrap_or((long, ""));
    let is_plain = |part: &str| part.bytes().all(|byte| kept(byte) == byte && !matches!(byte, b'.' | b' '));
    (1..=8).contains(&name.len()) && extension.len() <= 3 && is_plain(name) && is_plain(extension)
}

/// The character that a short name has in the place of this one.
fn kept(byte: u8) -> u8 {
    if matches!(byte, b'+' | b',' | b';' | b'=' | b'[' | b']') { b'_' } else { byte }
}

#[cfg(test)]
mod tests;
