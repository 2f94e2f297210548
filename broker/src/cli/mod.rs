//! The program: its commands and their arguments.

mod args;
mod client;
mod run;
mod torture;

pub use args::{Command, parse};
pub use run::run;
pub use torture::TortureArgs;
