//! `dunlin-bench`: puts load on an MQTT broker, any broker, and says what it did with it.
//!
//! One thread drives all clients through one event queue ([`swarm`]). A scenario ([`scenario`])
//! connects them, sends by a schedule or as fast as it goes, and checks what comes ([`audit`]); the
//! [`runner`] takes one after the other.
//! Figures are gathered by a [`meter`] and come out as text, as JSON ([`outcome`]) and as a page
//! ([`report`]).

mod against_send;
mod args;
mod audit;
mod bare_sender;
mod client;
mod clock;
mod disk;
mod figures;
mod limits;
mod meter;
mod outcome;
mod plot;
mod process;
mod receivers;
mod report;
mod runner;
mod scenario;
mod stamp;
mod stream;
mod swarm;
mod table;
mod template;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Command, HELP};
use outcome::Run;
use scenario::CATALOGUE;

/// The generator and its version.
const TOOL: &str = concat!("dunlin-bench ", env!("CARGO_PKG_VERSION"));

fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(refusal) => {
            eprintln!("dunlin-bench: {refusal}");
            return ExitCode::from(2);
        }
    };
    let result = match command {
        Command::Help => print(HELP),
        Command::Version => print(&format!("{TOOL}\n")),
        Command::List => print(&list()),
        Command::Run(args) => match runner::run(&args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Report { files, output } => {
            load(&files).and_then(|runs| runner::write(&output, &report::page(&runs)))
        }
        Command::Table(files) => load(&files).and_then(|runs| print(&table::table(&runs))),
        Command::AgainstSend(args) => against_send::run(&args),
        Command::BareSender(args) => bare_sender::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A reader that has gone (`| head`) is no error of ours.
fn print(text: &str) -> io::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn list() -> String {
    let mut text = String::new();
    for scenario in CATALOGUE {
        text.push_str(&format!("{:<27}{}\n", scenario.name, scenario.about));
        text.push_str(&format!("{:<27}  --{}\n", "", scenario.kind.uses().join(" --")));
    }
    text
}

fn load(files: &[String]) -> io::Result<Vec<Run>> {
    files
        .iter()
        .map(|file| {
            let text = std::fs::read_to_string(file)
                .map_err(|error| io::Error::other(format!("{file}: {error}")))?;
            serde_json::from_str(&text)
                .map_err(|error| io::Error::other(format!("{file}: {error}")))
        })
        .collect()
}
