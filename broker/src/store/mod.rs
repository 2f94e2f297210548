//! What outlives a crash, and how: the records of sessions, messages and queues, over the log of
//! `dunlin-storage`, which knows bytes only.
//!
//! ```text
//! workers ── frames of records ──▶ LogPort ──▶ Writer ──▶ Log      one thread
//!    ▲                                           │
//!    └── mail: how far the log is, chunks to look through (Cleaner)
//! workers ── messages wanted ──▶ Reader ── mail ──▶ workers        another
//! start: Log ──▶ Image ──▶ each worker its sessions
//! ```
//!
//! The worker's side is in `worker/journal.rs`. Nothing here has threads or clocks but
//! [`StoreThreads`], so that a test can take every step by hand and crash between any two.
//! docs/design/storage.md draws the format and argues the cases.

mod cleaner;
mod image;
mod new_log;
mod port;
mod reader;
pub mod record;
mod reserve;
mod snapshot;
mod threads;
mod writer;

pub use cleaner::Chunk;
pub use image::{
    Image, ImageError, ImageShare, StoredAt, StoredConsumer, StoredGroup, StoredMessages,
    StoredQueue, StoredRef, StoredRetained, StoredSession, StoredWill,
};
pub use new_log::{Deliveries, NewLog};
pub use port::{LogFigures, LogPort, LogState, Numbers, Submission};
pub use reader::{Loaded, ReadRequest, Reader, Unread, Wanted};
pub use snapshot::{Snapshot, SnapshotFile};
pub use threads::{COMPACT_REQUEST, RunningStore, StoreThreads};
pub use writer::{Step, Writer, WriterOptions};
