//! The threads of the workers, as far as clients and the system see them.

#![allow(clippy::disallowed_methods)] // a program has its own clock

mod lodging;
mod players;
mod sleeping;
