//! The program: its commands and their arguments.

mod args;
mod client;
mod run;

pub use args::{Command, parse};
pub use run::run;
