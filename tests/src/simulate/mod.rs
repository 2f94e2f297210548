//! Random clients against a whole broker, from one seed, with an auditor.
//!
//! [`run`] draws everything from its seed: how many workers, their options, what the clients do,
//! in which order the workers get their turns. The same seed is the same run, so whatever it finds
//! can be looked at again. `cargo run -p dunlin-tests --release --bin simulate` does that.
//!
//! * [`world`]: one run, from the first connection to the last check;
//! * [`steps`]: what may happen next; [`connecting`]: how connections begin and end;
//!   [`crashing`] and [`faults`]: how the broker does;
//! * [`client`] and [`link`]: a client as the standard wants it;
//! * [`audit`], with [`lives`], [`requests`], [`delivery`] and [`groups`]: what the broker owes,
//!   and what it must not do;
//! * [`ending`]: everybody comes back, and nothing is owed any more;
//! * [`queues`]: the same for partitioned queues, a run of its own.

pub mod audit;
pub mod broker;
pub mod client;
pub mod connecting;
pub mod crashing;
pub mod delivery;
pub mod ending;
pub mod faults;
pub mod groups;
pub mod link;
pub mod lives;
pub mod names;
pub mod publication;
pub mod queues;
pub mod random;
pub mod requests;
pub mod session;
pub mod steps;
pub mod subscriptions;
pub mod world;

pub use world::{Failure, Plan, Report, run};
