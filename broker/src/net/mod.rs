//! Sockets: the thin shell around a worker. It moves bytes and events, and knows no packets.

mod event_loop;
mod listener;
mod seats;
mod tcp;

pub use event_loop::EventLoop;
pub use listener::{Bound, bind};
pub use seats::{Seat, Seats};
pub use tcp::TcpTransport;
