//! The fields of a message: lines within the bytes that were read, and those that were set since.
//! A hash map costs a request more than its whole decision.

use std::{fmt, mem};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    buffer,
    line::{Line, Mark, put_field},
};

/// In the order in which they came, names in lower case.
#[derive(Clone, Default)]
pub struct Fields {
    read: Bytes,
    /// Whole lines, as they are sent.
    set: Vec<u8>,
    lines: Vec<Line>,
    /// The marks of all names that ever were among them.
    marks: u64,
}

/// Names that are looked for together.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    names: &'static [&'static str],
    marks: u64,
}

impl Names {
    pub const fn of(names: &'static [&'static str]) -> Self {
        let (mut marks, mut at) = (0, 0);
        while at < names.len() {
            marks |= Mark::of(names[at].as_bytes()).bit();
            at += 1;
        }
        Self { names, marks }
    }

    /// Whether the name of a line is like one of these, as in [`Fields::like`].
    #[inline]
    pub fn are_like(self, line: Line) -> bool {
        self.marks & line.mark().bit() != 0
    }

    fn hold(self, name: &[u8]) -> bool {
        self.names.iter().any(|one| one.as_bytes() == name)
    }
}

/// For the lines that are set and their text, so that either grows once.
const SET: usize = 512;
const ADDED: usize = 8;

impl Fields {
    /// The lines of a head, which is as long as they say.
    pub fn read(head: BytesMut, lines: Vec<Line>) -> Self {
        let marks = lines.iter().fold(0, |marks, line| marks | line.mark().bit());
        Self { read: head.freeze(), set: Vec::new(), lines, marks }
    }

    /// None yet; room for so many lines and their text, and for what is set beside them.
    pub fn with_room(lines: usize, text: usize) -> Self {
        let (mut own, mut set) = (buffer::lines(), buffer::text());
        own.reserve(lines + ADDED);
        set.reserve(text + SET);
        Self { read: Bytes::new(), set, lines: own, marks: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    pub fn len(&self) -> usize {
        self.lines.len()
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], &[u8])> {
        self.lines.iter().map(|line| {
            let text = self.text(*line);
            (line.name(text), line.value(text))
        })
    }

    /// The names that are like one of these: all that are among them or differ by `_` or `.` in place
    /// of `-`, all that begin with `x` where one of these does, and some others.
    #[inline]
    pub fn like(&self, names: Names) -> impl Iterator<Item = &[u8]> {
        let lines = if self.marks & names.marks == 0 { &[] } else { &self.lines[..] };
        lines.iter().filter(move |line| names.are_like(**line)).map(|line| line.name(self.text(*line)))
    }

    /// The values of a field, whose name is in lower case.
    #[inline(always)]
    pub fn all<'f>(&'f self, name: &str) -> impl DoubleEndedIterator<Item = &'f [u8]> {
        let mark = Mark::of(name.as_bytes());
        // Most of what is looked for is not there.
        let lines = if self.marks & mark.bit() == 0 { &[] } else { &self.lines[..] };
        let named = move |line: &&Line| self.names(**line, mark, name);
        lines.iter().filter(named).map(|line| line.value(self.text(*line)))
    }

    /// The first value.
    #[inline(always)]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        // The mark of a name that is written out is known to the compiler.
        let mark = Mark::of(name.as_bytes());
        if self.marks & mark.bit() == 0 { None } else { self.first(mark, name) }
    }

    /// The only value, if there is one and no other.
    pub fn only(&self, name: &str) -> Option<&[u8]> {
        let mut all = self.all(name);
        all.next().filter(|_| all.next().is_none())
    }

    #[inline(always)]
    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// In the place of all others of this name.
    pub fn set(&mut self, name: &'static str, value: &HeaderValue) {
        self.remove(name);
        self.add(name, value);
    }

    /// Beside others of this name.
    pub fn add(&mut self, name: &'static str, value: &HeaderValue) {
        debug_assert!(!name.is_empty() && !name.bytes().any(|byte| byte.is_ascii_uppercase()), "{name}");
        self.append(name.as_bytes(), value.as_bytes());
    }

    /// As [`Fields::add`], whatever the name is; it is in lower case.
    pub fn append(&mut self, name: &[u8], value: &[u8]) {
        self.reserve();
        let line = Line::set(&mut self.set, name, value);
        self.lines.push(line);
        self.marks |= line.mark().bit();
    }

    /// As [`Fields::add`], a value that is printable ASCII by its own rule.
    pub fn add_text(&mut self, name: &'static str, value: &[u8]) {
        debug_assert!(value.iter().all(|byte| matches!(byte, b' '..=b'~')), "{name}");
        self.append(name.as_bytes(), value);
    }

    /// Those that were set elsewhere, beside others of their names.
    pub fn add_all(&mut self, others: &Self) {
        debug_assert!(others.read.is_empty(), "nobody has sent them");
        self.reserve();
        let by = u32::try_from(self.set.len()).expect("fields are smaller than 4 GiB");
        self.set.extend_from_slice(&others.set);
        self.lines.extend(others.lines.iter().map(|line| line.shifted(by)));
        self.marks |= others.marks;
    }

    pub fn remove(&mut self, name: &str) {
        let mut from = 0;
        while let Some(at) = self.position(from, name) {
            self.lines.remove(at);
            from = at;
        }
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&[u8], &[u8]) -> bool) {
        let Self { read, set, lines, .. } = self;
        lines.retain(|line| {
            let text: &[u8] = if line.is_set() { set } else { read };
            keep(line.name(text), line.value(text))
        });
    }

    /// Writes them as they are sent.
    pub fn put(&self, into: &mut Vec<u8>) {
        self.put_but(Names::of(&[]), into);
    }

    /// Writes them as they are sent, without these.
    pub fn put_but(&self, names: Names, into: &mut Vec<u8>) {
        // Lines that stand one behind the other are copied as one.
        let mut run: Option<(Line, Line)> = None;
        for line in &self.lines {
            if names.are_like(*line) && names.hold(line.name(self.text(*line))) {
                continue;
            }
            match &mut run {
                Some((_, last)) if line.follows(*last) => *last = *line,
                _ => {
                    if let Some((first, last)) = run.replace((*line, *line)) {
                        self.put_run(first, last, into);
                    }
                }
            }
        }
        if let Some((first, last)) = run {
            self.put_run(first, last, into);
        }
    }

    fn put_run(&self, first: Line, last: Line, into: &mut Vec<u8>) {
        let text = self.text(first);
        match first.through(last) {
            Some(run) => into.extend_from_slice(&text[run]),
            None => put_field(into, first.name(text), first.value(text)),
        }
    }

    fn first(&self, mark: Mark, name: &str) -> Option<&[u8]> {
        self.lines.iter().find(|line| self.names(**line, mark, name)).map(|line| line.value(self.text(*line)))
    }

    /// Of the first line of this name at or behind `from`.
    fn position(&self, from: usize, name: &str) -> Option<usize> {
        let mark = Mark::of(name.as_bytes());
        if self.marks & mark.bit() == 0 {
            return None;
        }
        let found = self.lines[from..].iter().position(|line| self.names(*line, mark, name))?;
        Some(from + found)
    }

    #[inline]
    fn names(&self, line: Line, mark: Mark, name: &str) -> bool {
        line.mark() == mark && line.name(self.text(line)) == name.as_bytes()
    }

    fn reserve(&mut self) {
        if self.set.capacity() == 0 {
            self.set = buffer::text();
        }
        if self.lines.capacity() == 0 {
            self.lines = buffer::lines();
        }
    }

    fn text(&self, line: Line) -> &[u8] {
        self.side(line.is_set())
    }

    fn side(&self, set: bool) -> &[u8] {
        if set { &self.set } else { &self.read }
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        buffer::give_text(mem::take(&mut self.set));
        buffer::give_lines(mem::take(&mut self.lines));
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names alone: a bearer may stand among the values.
        f.debug_list().entries(self.iter().map(|(name, _)| String::from_utf8_lossy(name))).finish()
    }
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let mut fields = Self::default();
        map.iter().for_each(|(name, value)| fields.append(name.as_str().as_bytes(), value.as_bytes()));
        fields
    }
}

impl From<&Fields> for HeaderMap {
    fn from(fields: &Fields) -> Self {
        let mut map = Self::with_capacity(fields.lines.len());
        for (name, value) in fields.iter() {
            // Both were read or set as what they are.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                map.append(name, value);
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        let (mut lines, mut at, mut head) = (Vec::new(), 0, BytesMut::from(text));
        for line in text.split_inclusive('\n') {
            let end = at + line.trim_end_matches(['\r', '\n']).len();
            lines.push(Line::read(&mut head, at, end).expect("a line"));
            at += line.len();
        }
        Fields::read(head, lines)
    }

    fn text(fields: &Fields) -> String {
        let mut text = Vec::new();
        fields.put(&mut text);
        String::from_utf8(text).expect("ASCII")
    }

    const READ: &str = "Host: a\r\nX-A:1\r\nX-A: 2 \r\nAccept: */*\nVia: x\r\n";

    #[test]
    fn they_are_sent_as_they_came() {
        assert_eq!(text(&Fields::default()), "");
        assert_eq!(text(&fields(READ)), "host: a\r\nx-a: 1\r\nx-a: 2\r\naccept: */*\r\nvia: x\r\n");
        let mut skipping = Vec::new();
        fields(READ).put_but(Names::of(&["x-a"]), &mut skipping);
        assert_eq!(skipping, b"host: a\r\naccept: */*\r\nvia: x\r\n");
    }

    #[test]
    fn they_are_found_by_name() {
        let fields = fields(READ);
        assert_eq!(fields.get("host"), Some(&b"a"[..]));
        assert_eq!(fields.get("hos"), None);
        assert_eq!(fields.all("x-a").collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!((fields.only("x-a"), fields.only("via")), (None, Some(&b"x"[..])));
        assert!(fields.has("accept") && !fields.has("cookie"));
        let like = |names| fields.like(names).map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(like(Names::of(&["x-z"])), [b"x-a", b"x-a"]);
        assert_eq!(like(Names::of(&["via", "host"])), [b"host".to_vec(), b"via".to_vec()]);
        assert!(like(Names::of(&["connection"])).is_empty());
    }

    #[test]
    fn names_are_like_their_aliases() {
        fn check(alias: &str, names: Names) {
            let fields = fields(&format!("{alias}: 1\r\n"));
            assert_eq!(fields.like(names).count(), 1, "{alias}");
        }
        check("content_length", Names::of(&["content-length"]));
        check("keep.alive", Names::of(&["upgrade", "keep-alive"]));
        check("x_y", Names::of(&["x-z"]));
    }

    #[test]
    fn they_are_set_added_and_removed() {
        let mut fields = fields(READ);
        fields.set("x-a", &HeaderValue::from_static("3"));
        fields.add("via", &HeaderValue::from_static("y"));
        fields.remove("accept");
        assert_eq!(text(&fields), "host: a\r\nvia: x\r\nx-a: 3\r\nvia: y\r\n");
        let mut others = Fields::default();
        others.add("x-b", &HeaderValue::from_static("4"));
        others.add("x-c", &HeaderValue::from_static("5"));
        fields.add_all(&others);
        fields.remove("x-b");
        assert_eq!(text(&fields), "host: a\r\nvia: x\r\nx-a: 3\r\nvia: y\r\nx-c: 5\r\n");
        fields.set("x-a", &HeaderValue::from_static(""));
        assert_eq!(text(&fields), "host: a\r\nvia: x\r\nvia: y\r\nx-c: 5\r\nx-a: \r\n");
    }

    #[test]
    fn they_become_a_map_and_come_back() {
        let map = HeaderMap::from(&fields(READ));
        assert_eq!(map.get_all("x-a").iter().count(), 2);
        assert_eq!(HeaderMap::from(&Fields::from(&map)), map);
    }

    #[test]
    fn their_values_are_not_printed() {
        assert_eq!(format!("{:?}", fields("Authorization: Bearer secret\r\n")), r#"["authorization"]"#);
    }
}
