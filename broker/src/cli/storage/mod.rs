//! `dunlin storage`: looks at what is kept in a data directory, saves it, and tidies it up.
//!
//! * `check`, `stats`, `export` read a [`Snapshot`](crate::store::Snapshot) and write nothing, so a
//!   broker may run on the directory.
//! * `import` and `compact` make a whole log in a directory beside the one in use (`staged`), read
//!   it again, and put it in its place in one step. They hold the lock of the data directory. A
//!   broker that holds it is asked to compact by itself.
//!
//! `line` is the format of an export, `property` a part of it; `directory` knows where everything
//! is, `message` reads messages back.

mod args;
mod check;
mod compact;
mod directory;
mod export;
mod export_queues;
mod import;
mod import_queues;
mod line;
mod message;
mod property;
mod staged;
mod stats;
mod validate;
mod validate_queues;

use std::error::Error;

use crate::config::Config;
use args::Task;
use directory::DataDirectory;

pub use args::StorageArgs;

/// What goes wrong, in words for the user.
type Outcome<T> = Result<T, Box<dyn Error>>;

/// Does what the command line asks for.
pub(super) fn run(task: &Task, config: &Config) -> Outcome<()> {
    let directory = DataDirectory::new(config)?;
    match task {
        Task::Check => check::run(&directory),
        Task::Stats { json } => stats::run(&directory, *json),
        Task::Export { file } => export::run(&directory, file.as_deref()),
        Task::Import { file } => import::run(&directory, file),
        Task::Compact { timeout_s } => compact::run(&directory, *timeout_s),
    }
}
