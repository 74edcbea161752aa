//! The rings that carry events: refusals, and questions with their answers.

use std::os::fd::{AsFd, BorrowedFd};

use aya::maps::{MapData, RingBuf};

use super::maps::Maps;

/// The reading end. Where reading stopped is kept in the map itself, so a new agent goes on where the old one was.
pub struct Ring {
    inner: RingBuf<MapData>,
}

impl Ring {
    /// The next event's bytes, if there is one; handed to `each` because they go back to the ring afterwards.
    pub fn next<T>(&mut self, each: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.inner.next().map(|item| each(&item))
    }
}

impl AsFd for Ring {
    /// Readable when there are events (epoll).
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Maps {
    /// Takes the reading ends, of refusals and of questions; there is one of each.
    pub fn take_rings(&mut self) -> Option<[Ring; 2]> {
        let (refusals, questions) = self.ring.take().zip(self.questions.take())?;
        Some([refusals, questions].map(|inner| Ring { inner }))
    }
}
