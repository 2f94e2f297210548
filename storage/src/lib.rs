//! Durable bytes, without a word of MQTT.
//!
//! A [`Backend`] is where a log keeps its segments: a directory of append-only files. The trait is
//! as small as what a log needs, so that it can be implemented by a disk, and by [`MemoryBackend`],
//! which loses at a crash what was not synced, fails when it is told to, and so makes every crash
//! a test. The log itself comes with durability.

mod backend;
mod memory;

pub use backend::{Backend, BackendError};
pub use memory::MemoryBackend;
