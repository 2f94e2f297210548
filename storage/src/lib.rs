//! Durable bytes: a segmented append log.
//!
//! * [`Log`] takes frames and keeps them in segment files. What was synced survives a crash; what
//!   was not is there as a whole or not at all; what is damaged is told.
//! * [`LogReader`] reads bytes by address, beside the log, from another thread if need be.
//! * [`check`] looks at the segments and changes nothing.
//!
//! An address is the position of a byte in one endless stream, from 4096 on; 0 is never one.
//! Callers give frames their addresses ([`set_address`]) before the log sees them, so that several
//! threads can prepare frames at once.
//!
//! A [`Backend`] is where the segments are: a directory of files that grow at their end.
//! [`DiskBackend`] is one on a file system. [`MemoryBackend`] loses at a crash what was not synced,
//! fails when it is told to, and so makes every crash a test.
//!
//! No threads, no clock. The files are described in `frame.rs` and `segment.rs`.

mod backend;
mod check;
mod disk;
mod frame;
mod log;
mod memory;
mod options;
mod reader;
mod recovery;
mod scan;
mod segment;

pub use backend::{Backend, BackendError, ReadFile};
pub use check::{CheckReport, CheckedSegment, check};
pub use disk::DiskBackend;
pub use frame::{FRAME_HEADER_BYTES, PAYLOAD_BYTES_MAX, address_of, set_address};
pub use log::{Log, LogError, Opened};
pub use memory::{MemoryBackend, MemoryFile};
pub use options::{Damage, LogOptions};
pub use reader::{LogReader, ReadError};
pub use recovery::{Missing, OpenError};
pub use scan::{Entry, Frames};
pub use segment::{FORMAT_VERSION, SegmentInfo};
