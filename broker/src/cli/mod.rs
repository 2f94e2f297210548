//! The program: its commands and their arguments.

mod args;
mod client;
mod lock;
mod run;
mod storage;
mod torture;

pub use args::{Command, parse};
pub use run::run;
pub use storage::StorageArgs;
pub use torture::TortureArgs;
