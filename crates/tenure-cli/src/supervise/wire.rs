//! The wire between supervisor and keeper: signals one way, "look at the page" the other.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

/// How many bytes are taken at a time.
const BATCH: usize = 64;

/// One end. Nothing that goes wrong with it is an error: each side sees the other's death by pidfd.
pub(super) struct Wire {
    stream: UnixStream,
    is_open: bool,
}

impl Wire {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = UnixStream::pair()?;
        Ok((Self::new(one)?, Self::new(other)?))
    }

    /// An inherited end.
    pub(super) fn inherited(fd: OwnedFd) -> io::Result<Self> {
        Self::new(fd.into())
    }

    fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, is_open: true })
    }

    /// False once the other end is closed. A poll must leave it out from then on: it would return
    /// at once, again and again, and a real-time loop starves the very threads whose end it awaits.
    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Sends a byte. A full wire drops it: who reads nothing for so long is wedged.
    pub(super) fn send(&self, byte: u8) {
        let _ = (&self.stream).write(&[byte]);
    }

    /// Takes what has come, at most a batch.
    pub(super) fn take(&mut self) -> Vec<u8> {
        let mut bytes = [0_u8; BATCH];
        match self.stream.read(&mut bytes) {
            Ok(count) if count > 0 => return bytes[..count].to_vec(),
            Err(error)
                if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {}
            _ => self.is_open = false,
        }
        Vec::new()
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl AsRawFd for Wire {
    fn as_raw_fd(&self) -> RawFd {
        self.stream.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_wire_is_noticed_after_its_last_byte() {
        let (mut one, other) = Wire::pair().unwrap();
        assert!(one.take().is_empty() && one.is_open());
        other.send(7);
        drop(other);
        assert_eq!(one.take(), [7]);
        assert!(one.take().is_empty() && !one.is_open());
        one.send(8);
    }
}
