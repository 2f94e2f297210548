//! Dunlin, an MQTT broker.
//!
//! [`serve::Broker`] is the broker as a value: started from a [`config::Config`], it runs on
//! threads of its own until it is stopped. [`worker::Worker`] is one of its workers, which needs
//! no sockets: tests drive it with a clock of their own.
//!
//! * `worker/`: what a broker does, sans-io
//! * `net/`: sockets and event queues
//! * `queues/`: partitioned queues in topics and user properties
//! * `config/`: the table of options, and where their values come from
//! * `cli/`: the program

pub mod cli;
pub mod clock;
pub mod config;
pub mod net;
pub mod queues;
pub mod serve;
pub mod store;
pub mod worker;
