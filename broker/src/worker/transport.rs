//! How a worker reaches its peers.

use std::io;

use super::ConnId;

/// Reads and writes connections. Two implementations: sockets (`net`), and memory in the tests
/// that drive workers with a virtual clock.
pub trait Transport {
    /// One connection.
    type Link: Send;

    /// Begins to report events of `link` under `id`.
    ///
    /// # Errors
    /// When that is not possible; the connection is dropped.
    fn attach(&mut self, link: &mut Self::Link, id: ConnId) -> io::Result<()>;

    /// Stops reporting events, before the link moves to another worker.
    fn detach(&mut self, link: &mut Self::Link);

    /// Reads into `buffer`. 0 bytes is the end.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; anything else ends the connection.
    fn read(&mut self, link: &mut Self::Link, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes `head` and then `body`, as far as there is room, and says how many bytes that were.
    ///
    /// # Errors
    /// `WouldBlock` when there is no room; anything else ends the connection.
    fn write(&mut self, link: &mut Self::Link, head: &[u8], body: &[u8]) -> io::Result<usize>;

    /// From now on "writable" is reported too when there is room again, also for a write that was
    /// cut short before this call. Most connections never need that.
    ///
    /// # Errors
    /// When that is not possible; the connection is dropped.
    fn watch_room(&mut self, link: &mut Self::Link, id: ConnId) -> io::Result<()>;

    /// Ends our half: what was written still arrives.
    fn shutdown(&mut self, link: &mut Self::Link);
}
