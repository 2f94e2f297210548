//! Carrying a command out.

use std::error::Error;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing_subscriber::filter::LevelFilter;

use super::args::Command;
use super::lock::try_lock;
use super::{client, storage, torture};
use crate::config::{Config, LogConfig, Sources, default_file};
use crate::serve::Broker;

/// Does what the command line asks for.
///
/// # Errors
/// Whatever goes wrong, in words for the user.
pub fn run(command: Command) -> Result<(), Box<dyn Error>> {
    match command {
        Command::Serve(sources) => serve(sources),
        Command::CheckConfig(sources) => {
            Config::load(&with_environment(sources))?;
            print("the configuration is in order\n")
        }
        Command::PrintDefaultConfig => print(&default_file()),
        Command::Publish(args) => Ok(client::publish(&args)?),
        Command::Subscribe(args) => Ok(client::subscribe(&args)?),
        Command::Storage(args) => {
            raise_file_limit();
            let config = Config::load(&with_environment(args.sources))?;
            storage::run(&args.task, &config)
        }
        Command::Torture(args) => torture::run(&args),
        Command::Print(text) => print(&text),
    }
}

fn print(text: &str) -> Result<(), Box<dyn Error>> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

fn with_environment(mut sources: Sources) -> Sources {
    sources.environment = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| name.starts_with("DUNLIN_"))
        .collect();
    sources
}

fn serve(sources: Sources) -> Result<(), Box<dyn Error>> {
    let config = Config::load(&with_environment(sources))?;
    start_log(&config.log);
    raise_file_limit();
    let _lock = lock_data_dir(&config.data_dir)?;
    // Before the workers start, so that no signal finds the default action.
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let broker = Broker::start(&config)?;
    for address in broker.addresses() {
        // For people and scripts; the log has everything else.
        print(&format!("listening on {address}\n"))?;
    }
    for signal in signals.forever() {
        if signal != SIGHUP {
            tracing::info!(signal, "shutting down");
            break;
        }
        // A terminal that closes, or a log that is rotated, is no reason to end.
        tracing::warn!("SIGHUP: goes on as it is; the configuration is read at the start only");
    }
    broker.stop()?;
    Ok(())
}

fn start_log(config: &LogConfig) {
    let level: LevelFilter = config.level.parse().unwrap_or(LevelFilter::WARN);
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false);
    if config.format == "json" {
        builder.json().init();
    } else {
        builder.with_ansi(false).init();
    }
}

/// A descriptor per connection: as many as the system lets us have.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// Makes sure that no other broker uses the directory.
fn lock_data_dir(data_dir: &str) -> Result<Option<File>, Box<dyn Error>> {
    if data_dir.is_empty() {
        return Ok(None);
    }
    let directory = Path::new(data_dir);
    std::fs::create_dir_all(directory)
        .map_err(|error| format!("cannot make the data directory {data_dir}: {error}"))?;
    match try_lock(directory)? {
        Some(file) => Ok(Some(file)),
        None => Err(format!("another broker uses the data directory {data_dir}").into()),
    }
}
