//! What the benchmarks and the gates measure: a worker of the broker in memory ([`Rig`]), and the
//! figures others have published for the same work.

mod rig;
mod scenes;
mod wire;

pub use rig::{ClientNo, Rig};
pub use scenes::{FanOut, HandlePush, IdleQueues, QueueLine};
pub use wire::{Delivery, WireClient};
