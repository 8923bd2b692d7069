//! What messages are read and written in, used again. To allocate costs more than to fill most of
//! these, and what was given back last is what the processor's caches still hold.

use std::{cell::RefCell, thread::LocalKey};

use super::line::Line;

/// Of one thread, and of buffers of one kind.
type Pool<T> = RefCell<Vec<Vec<T>>>;

thread_local! {
    static TEXTS: Pool<u8> = const { RefCell::new(Vec::new()) };
    static LINES: Pool<Line> = const { RefCell::new(Vec::new()) };
}

/// More than this many are not kept, nor larger ones than most heads with a small body need.
const MOST: usize = 12;
const LARGEST: usize = 8 << 10;

/// Room for most texts and heads without growing.
const TEXT: usize = 1 << 10;
const LINE: usize = 24;

/// An empty one for text.
pub fn text() -> Vec<u8> {
    take(&TEXTS, TEXT)
}

pub fn give_text(text: Vec<u8>) {
    give(&TEXTS, text);
}

/// An empty one for the lines of a head.
pub fn lines() -> Vec<Line> {
    take(&LINES, LINE)
}

pub(super) fn give_lines(lines: Vec<Line>) {
    give(&LINES, lines);
}

fn take<T: 'static>(pool: &'static LocalKey<Pool<T>>, room: usize) -> Vec<T> {
    pool.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(room))
}

fn give<T: 'static>(pool: &'static LocalKey<Pool<T>>, mut buffer: Vec<T>) {
    if !(1..=LARGEST).contains(&(buffer.capacity() * size_of::<T>())) {
        return;
    }
    buffer.clear();
    // At the end of a thread there is no place for it any more.
    let _ = pool.try_with(|pool| {
        let mut pool = pool.borrow_mut();
        if pool.len() < MOST {
            pool.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_back_empty_and_are_not_hoarded() {
        give_text(b"secret".to_vec());
        let again = text();
        assert!(again.is_empty() && again.capacity() == 6);
        give_text(Vec::new());
        give_text(Vec::with_capacity(LARGEST + 1));
        assert_eq!(text().capacity(), TEXT);
        (0..=MOST).for_each(|_| give_text(Vec::with_capacity(1)));
        assert_eq!(TEXTS.with_borrow(Vec::len), MOST);
    }
}
