//! The threads of the workers, as far as clients and the system see them.

#![allow(clippy::disallowed_methods)] // clients of a real broker, which has the real clock

mod lodging;
mod players;
mod sleeping;
