//! A whole broker in one thread: N workers, memory for sockets, and a clock that only moves when a
//! test moves it. What a test sees is what comes out of a client's socket, as text.

mod client;
mod describe;
mod disk;
mod packets;
pub mod program;
mod sim;
pub mod simulate;

pub use client::Client;
pub use describe::describe;
pub use disk::SimDisk;
pub use packets::{
    Connecting, Publishing, Subscribing, puback, pubcomp, pubrec, pubrel, unsubscribe,
};
pub use sim::{Pipe, Sim, SimLink, SimTransport};
