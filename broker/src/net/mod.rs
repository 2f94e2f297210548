//! Sockets: the thin shell around a worker. It moves bytes and events, and knows no packets.

mod entrance;
mod event_queue;
mod gauge;
mod listener;
mod lodging;
mod seats;
mod tcp;
mod thread;

pub use entrance::Entrance;
pub use event_queue::{EventQueue, Happened};
pub use listener::{Bound, bind};
pub use seats::{Seat, Seats};
pub use tcp::TcpTransport;
pub use thread::run;
