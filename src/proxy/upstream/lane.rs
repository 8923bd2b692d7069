//! One connection to an upstream as the worker sees it: what was heard on it during the present
//! exchange, until when it may keep silent, and the switch that ends it at once.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Version};
use tokio::task::AbortHandle;

use crate::{
    net::{Clock, Deadline},
    proxy::upstream::interim::Interim,
};

/// Shared by the wire, the exchange that uses the connection and the sweep of deadlines.
pub struct Lane {
    end: Cell<Option<End>>,
    driver: RefCell<Option<AbortHandle>>,
    deadline: Deadline,
    waiting: Cell<Waiting>,
    heard: Cell<u64>,
    peer_closed: Cell<bool>,
    pub(super) interim: RefCell<Interim>,
    keep_head: Cell<bool>,
    head: RefCell<Vec<u8>>,
}

/// What the running deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Nothing,
    Answer,
    /// In the pool, for another exchange.
    Reuse,
}

/// Why the gateway itself ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The fence: from now on no byte is taken and none is sent.
    Cut,
    /// The upstream kept silent for too long.
    TimedOut,
    /// Nobody needs it any more.
    Dropped,
}

impl Lane {
    pub fn new(clock: &Clock) -> Rc<Self> {
        Rc::new(Self {
            end: Cell::new(None),
            driver: RefCell::new(None),
            deadline: clock.deadline(),
            waiting: Cell::new(Waiting::Nothing),
            heard: Cell::new(0),
            peer_closed: Cell::new(false),
            interim: RefCell::new(Interim::default()),
            keep_head: Cell::new(false),
            head: RefCell::new(Vec::new()),
        })
    }

    /// The task that drives the connection; ending the lane aborts it.
    pub fn drive(&self, driver: AbortHandle) {
        *self.driver.borrow_mut() = Some(driver);
    }

    /// A request is about to be sent. `keep_head`: remember its bytes for a second attempt.
    pub fn begin(&self, silence: Duration, keep_head: bool) {
        self.heard.set(0);
        self.interim.borrow_mut().begin();
        self.head.borrow_mut().clear();
        self.keep_head.set(keep_head);
        self.expect_within(silence);
    }

    /// Starts (or starts anew) the time within which the upstream must be heard.
    pub fn expect_within(&self, silence: Duration) {
        self.waiting.set(Waiting::Answer);
        self.deadline.arm(silence);
    }

    /// Starts the time anew, if it runs: the upstream still takes what it is sent.
    pub fn extend(&self, silence: Duration) {
        if self.waiting.get() == Waiting::Answer {
            self.expect_within(silence);
        }
    }

    /// As [`Lane::expect_within`], unless that time runs already.
    pub fn expect_if_quiet(&self, silence: Duration) {
        if self.waiting.get() == Waiting::Nothing {
            self.expect_within(silence);
        }
    }

    /// Something came.
    pub fn expect_nothing(&self) {
        if self.waiting.replace(Waiting::Nothing) != Waiting::Nothing {
            self.deadline.disarm();
        }
    }

    /// Into the pool, for so long.
    pub fn rest(&self, idle: Duration) {
        self.waiting.set(Waiting::Reuse);
        self.deadline.arm(idle);
    }

    /// Asked by the task that waits for bytes.
    pub(super) fn poll_overdue(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.poll_expired(cx).map(|()| {
            let end = if self.waiting.get() == Waiting::Answer { End::TimedOut } else { End::Dropped };
            self.end.set(Some(self.end.get().unwrap_or(end)));
        })
    }

    /// Synchronous: when this returns, no byte is taken from the upstream and none is sent to it.
    pub fn finish(&self, end: End) {
        if self.end.get().is_none() {
            self.end.set(Some(end));
        }
        if let Some(driver) = self.driver.borrow_mut().take() {
            driver.abort();
        }
    }

    pub fn end(&self) -> Option<End> {
        self.end.get()
    }

    /// Whether not one byte of an answer came and the other side has closed: what a keep-alive
    /// connection looks like that the upstream gave up while the request was under way.
    pub fn closed_unanswered(&self) -> bool {
        self.heard.get() == 0 && self.peer_closed.get()
    }

    pub(super) fn too_many_interim(&self) -> bool {
        self.interim.borrow().exceeded()
    }

    pub(super) fn hear(&self, bytes: &[u8]) {
        if bytes.is_empty() {
            self.peer_closed.set(true);
        } else {
            self.heard.set(self.heard.get() + bytes.len() as u64);
        }
    }

    pub(super) fn lose(&self) {
        self.peer_closed.set(true);
    }

    /// The first write of an exchange without a body is its whole head.
    pub(super) fn say(&self, bytes: &[u8]) {
        if self.keep_head.replace(false) {
            self.head.borrow_mut().extend_from_slice(bytes);
        }
    }

    /// The request of this exchange, read back from the bytes that went out: copying every header
    /// map in case of a retry would cost each request what only a few need.
    pub fn said<B>(&self, body: B) -> Option<Request<B>> {
        parse_head(&self.head.borrow(), body)
    }
}

fn parse_head<B>(head: &[u8], body: B) -> Option<Request<B>> {
    let head = head.strip_suffix(b"\r\n\r\n")?;
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|byte| *byte == b' ');
    let mut request = Request::new(body);
    *request.method_mut() = Method::from_bytes(words.next()?).ok()?;
    *request.uri_mut() = std::str::from_utf8(words.next()?).ok()?.parse().ok()?;
    *request.version_mut() = Version::HTTP_11;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        let name = HeaderName::from_bytes(name).ok()?;
        // What hyper added for the connection that is gone.
        if name != http::header::CONNECTION {
            request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
        }
    }
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_back_as_it_was_sent() {
        let sent = b"GET /api/a%2Fb?q=%20x HTTP/1.1\r\nhost: a.example:81\r\nx-a: 1\r\nx-a: \xff2\r\nconnection: close\r\n\r\n";
        let request = parse_head(sent, ()).expect("complete");
        assert_eq!(request.uri(), "/api/a%2Fb?q=%20x");
        assert_eq!(request.headers()["host"], "a.example:81");
        assert_eq!(request.headers().get_all("x-a").iter().count(), 2);
        assert!(!request.headers().contains_key("connection"));
        assert!(parse_head(b"GET / HTTP/1.1\r\nhost: a", ()).is_none());
        assert!(parse_head(b"", ()).is_none());
    }
}
