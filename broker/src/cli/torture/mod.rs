//! `dunlin torture`: kills a broker at random moments while clients publish and subscribe, and
//! audits what it had acknowledged.
//!
//! The broker is this program, started as `serve` with a data directory of its own, killed with
//! SIGKILL and started again. SIGKILL takes what the process had not given to the system; what
//! the system had not written to the disk survives it, so a missing fsync is not found here.
//!
//! * `publication`: what is published, as a function of source and sequence number
//! * `flights`, `outgoing`, `publisher`: the sender's half of a client, and how it paces itself
//! * `receipts`, `subscriber`: the receiver's half, and what it has to have got
//! * `queues`: a partitioned queue, its consumer groups, and what they have to have got
//! * `retained`: a look at the retained messages
//! * `process`, `clients`, `run`: the lives of the broker, who its clients are, and the course of
//!   the run
//! * `report`: the verdict
//!
//! The seed settles what is published and how the clients are inclined to behave; which of it a
//! kill meets is up to the scheduler, so a run with the same seed is alike, not the same.

mod args;
mod clients;
mod flights;
mod member;
mod outgoing;
mod process;
mod publication;
mod publisher;
mod queues;
mod random;
mod receipts;
mod report;
mod retained;
mod run;
mod shared;
mod subscriber;
mod wire;

pub use args::TortureArgs;
pub(super) use run::run;
