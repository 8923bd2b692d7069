//! Bytes that go from one socket to another without being read: through a pipe, which holds the
//! pages that they came in (splice(2)). A copy of a large body costs more than everything else
//! about it.

use std::{
    cell::RefCell,
    io,
    os::fd::{AsFd, OwnedFd},
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

/// Opened when it is first filled; empty, it goes to the next who needs one.
#[derive(Default)]
pub struct Splice {
    ends: Option<Ends>,
    held: usize,
}

struct Ends {
    read: OwnedFd,
    write: OwnedFd,
}

/// A thread's pipes.
struct Pipes {
    spare: Vec<Ends>,
    /// How many more may be opened.
    left: usize,
}

/// Of one thread, so that large bodies take few descriptors from connections to come.
const PIPES: usize = 16;

/// The most that is asked for in one step; a pipe holds about as much.
const STEP: usize = 1 << 20;

thread_local! {
    static OWN: RefCell<Pipes> = const { RefCell::new(Pipes { spare: Vec::new(), left: PIPES }) };
}

impl Splice {
    pub fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Takes at most so many bytes out of a socket into the empty pipe, and tells how many; zero is
    /// the stream's end. `None`: it has to be read, since there is no pipe to be had, the system does
    /// not allow it, or the socket has failed, as reading will tell.
    pub fn fill_from(&mut self, socket: &TcpStream, cx: &mut Context<'_>, most: u64) -> Poll<Option<usize>> {
        debug_assert!(self.is_empty(), "a full pipe looks like an empty socket");
        if self.ends.is_none() {
            self.ends = OWN.with_borrow_mut(Pipes::take);
        }
        let Some(ends) = &self.ends else { return Poll::Ready(None) };
        let most = usize::try_from(most).unwrap_or(STEP).min(STEP);
        loop {
            if ready!(socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            match socket.try_io(Interest::READABLE, || moved(socket, &ends.write, most)) {
                Ok(count) => {
                    self.held = count;
                    return Poll::Ready(Some(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(None),
            }
        }
    }

    /// Hands what is in it to a socket, as much as that takes.
    pub fn empty_into(&mut self, socket: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(ends) = &self.ends else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(socket.poll_write_ready(cx))?;
            match socket.try_io(Interest::WRITABLE, || moved(&ends.read, socket, self.held)) {
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => {
                    self.held -= count;
                    return Poll::Ready(Ok(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

fn moved(from: impl AsFd, to: impl AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?)
}

impl Pipes {
    fn take(&mut self) -> Option<Ends> {
        if let Some(ends) = self.spare.pop() {
            return Some(ends);
        }
        self.left = self.left.checked_sub(1)?;
        match pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK) {
            Ok((read, write)) => Some(Ends { read, write }),
            Err(_) => {
                self.left += 1;
                None
            }
        }
    }

    fn give_back(&mut self, ends: Option<Ends>) {
        match ends {
            Some(ends) => self.spare.push(ends),
            None => self.left += 1,
        }
    }
}

impl Drop for Splice {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take() else { return };
        // What somebody has left in it is for nobody else.
        let ends = (self.held == 0).then_some(ends);
        // At the end of a thread there is no place for it any more.
        let _ = OWN.try_with(|own| own.borrow_mut().give_back(ends));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]

    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    fn run(work: impl Future<Output = ()>) {
        tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap().block_on(work);
    }

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0)
    }

    #[test]
    fn bytes_go_through_as_they_are_and_no_further_than_asked() {
        run(async {
            let ((mut from, inner), (outer, mut to)) = (pair().await, pair().await);
            let bytes: Vec<u8> = (0..300_000_u32).map(|at| at.to_le_bytes()[at as usize % 3]).collect();
            let sent = bytes.clone();
            let sending = async move {
                from.write_all(&sent).await.unwrap();
                from.write_all(b"of the next message").await.unwrap();
                from
            };
            let moving = async {
                let (mut splice, mut left) = (Splice::default(), bytes.len());
                while left > 0 || !splice.is_empty() {
                    if splice.is_empty() {
                        let filled = poll_fn(|cx| splice.fill_from(&inner, cx, left as u64)).await;
                        left -= filled.unwrap();
                    }
                    poll_fn(|cx| splice.empty_into(&outer, cx)).await.unwrap();
                }
            };
            let mut read = vec![0; bytes.len()];
            let (from, (), _) =
                tokio::join!(sending, moving, async { to.read_exact(&mut read).await.unwrap() });
            assert!(read == bytes);
            let mut rest = [0; 64];
            let (mut inner, mut splice) = (inner, Splice::default());
            let count = inner.read(&mut rest).await.unwrap();
            assert_eq!(&rest[..count], b"of the next message");
            drop(from);
            let end = poll_fn(|cx| splice.fill_from(&inner, cx, 10)).await;
            assert_eq!(end, Some(0));
        });
    }

    #[test]
    fn what_is_left_in_a_pipe_is_for_nobody_else() {
        run(async {
            let ((mut from, inner), (outer, mut to)) = (pair().await, pair().await);
            from.write_all(b"secret").await.unwrap();
            let mut splice = Splice::default();
            poll_fn(|cx| splice.fill_from(&inner, cx, 6)).await.unwrap();
            drop(splice);
            from.write_all(b"other").await.unwrap();
            let mut splice = Splice::default();
            poll_fn(|cx| splice.fill_from(&inner, cx, 5)).await.unwrap();
            poll_fn(|cx| splice.empty_into(&outer, cx)).await.unwrap();
            let mut read = [0; 5];
            to.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"other");
        });
    }

    #[test]
    fn there_are_only_so_many() {
        run(async {
            let (mut from, inner) = pair().await;
            from.write_all(&[7; PIPES + 1]).await.unwrap();
            let mut splices = Vec::new();
            for _ in 0..PIPES {
                let mut splice = Splice::default();
                poll_fn(|cx| splice.fill_from(&inner, cx, 1)).await.unwrap();
                splices.push(splice);
            }
            let mut one_more = Splice::default();
            assert!(poll_fn(|cx| one_more.fill_from(&inner, cx, 1)).await.is_none());
            splices.pop();
            assert!(poll_fn(|cx| one_more.fill_from(&inner, cx, 1)).await.is_some());
        });
    }
}
