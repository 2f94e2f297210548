//! What waits in a broker, and where.
//!
//! * [`Message`] and [`MessagePool`]: an application message in one reused buffer, shared by
//!   everybody on a worker who still has to receive it.
//! * [`DeliveryQueue`] and [`Window`]: what one session has to receive, and what it has received
//!   but not acknowledged.
//! * [`mailbox`]: batches from one worker to another.
//! * [`partitioned`]: durable queues for groups of consumers.
//!
//! No sockets, no threads, and no clock: the time comes in as a [`Time`]. Everything is bounded:
//! queues by their [`QueueLimits`], windows by the caller, mailboxes by credit.

mod delivery;
mod logged;
pub mod mailbox;
mod message;
pub mod partitioned;
mod pool;
mod time;
mod window;

pub use delivery::{DeliveryQueue, DropReason, Entry, Likeness, OverflowPolicy, QueueLimits};
pub use message::{Content, Message, MessageFields, NotAMessage, StoredMessage};
pub use pool::{Identifiers, MessagePool, MessageRef, PoolStats, Shares};
pub use time::Time;
pub use window::{InFlight, Stage, Window};
