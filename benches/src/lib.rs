//! What the benchmarks and the gates measure: a worker of the broker in memory ([`Rig`]), and the
//! figures others have published for the same work.

mod rig;
mod scenes;
mod timing;
mod wire;

pub use rig::{ClientNo, Rig};
pub use scenes::{FanOut, HandlePush, IdleQueues, QueueLine};
pub use timing::{time_of_part, timed};
pub use wire::{Delivery, WireClient};
