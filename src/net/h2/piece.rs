//! A part of an answer's body on its way through h2, which tells when the kernel has it.

use std::rc::Rc;

use bytes::{Buf, Bytes};

use crate::net::Connection;

pub struct Piece {
    bytes: Bytes,
    stream: Rc<Connection>,
}

/// What takes the place of a severed answer in a frame that is on the wire in part: the frame must
/// go on for the sake of the other streams, its content must not.
static BLANK: [u8; 16 << 10] = [0; 16 << 10];

impl Piece {
    pub(super) fn new(bytes: Bytes, stream: &Rc<Connection>) -> Self {
        if let Some(branch) = stream.branch()
            && !bytes.is_empty()
        {
            branch.owe(bytes.len());
            stream.send_stalls();
        }
        Self { bytes, stream: stream.clone() }
    }

    /// Called within h2: nothing here may call h2.
    fn settle(&self, bytes: usize) {
        let Some(branch) = self.stream.branch() else { return };
        let before = branch.unsent();
        let left = branch.settle(bytes);
        if left > 0 {
            self.stream.send_stalls();
        }
        if left == 0 || before >= super::stream::ENOUGH && left < super::stream::ENOUGH {
            self.stream.wake();
        }
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        if self.stream.severed() { &BLANK[..self.bytes.len().min(BLANK.len())] } else { &self.bytes }
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.stream.sent(count);
        self.settle(count);
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        if !self.bytes.is_empty() {
            self.settle(self.bytes.len());
        }
    }
}
