//! Durable partitioned queues: which message goes to which consumer.
//!
//! * [`Queue`]: partitions, consumer groups, leases, cursors, dead letters. Calls come in with a
//!   [`Context`]; what must survive a crash comes out as [`Change`]s, what is to be done as
//!   [`Action`]s.
//! * [`Restoring`]: a queue from its changes, in any order.
//! * [`IndexPool`]: the memory that the queues of one worker share.
//!
//! No sockets, no threads, no clock, no disk, and no messages: a queue knows where they are in the
//! log and how large they are. `docs/design/queues.md` has the rules and why they are as they are.
//!
//! The order of calls: [`Queue::enqueue`] gives a message its place, and [`Queue::keep`], when its
//! record is in the log, has it delivered. [`Queue::poll`] leases messages to a member; `ack`,
//! `nack`, `reject` and `extend` are its answers. [`Queue::on_timer`] is due at
//! [`Queue::deadline`].

mod alarms;
mod change;
mod chunk;
mod claims;
mod config;
mod consume;
mod dying;
mod group;
mod groups;
mod index;
mod keys;
mod leases;
pub mod limits;
mod memory;
mod partition;
mod queue;
mod restore;
mod restored;
mod rows;
mod settle;
mod settled;
mod stats;
mod timer;

pub use change::{Action, Change, DeadReason, GroupId, MemberId, MessageId, REJECTED, Refused};
pub use chunk::IndexPool;
pub use config::{BadConfig, Config, FullPolicy, Mode, Retention};
pub use consume::Delivery;
pub use groups::{Commit, Start};
pub use limits::Limits;
pub use memory::Located;
pub use queue::{Context, NewMessage, Queue};
pub use restore::Restoring;
pub use restored::RestoredMessage;
pub use stats::{GroupStats, QueueStats};
