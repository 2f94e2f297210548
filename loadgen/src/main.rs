//! `dunlin-bench`: puts load on an MQTT broker, any broker, and says what it did with it.
//!
//! One thread drives all clients through one event queue ([`swarm`]). A scenario ([`scenario`])
//! connects them, sends by a schedule or as fast as it goes, and checks what comes ([`audit`]).
//! Figures are gathered by a [`meter`] and come out as text, as JSON ([`outcome`]) and as a page
//! ([`report`]).

mod against_send;
mod args;
mod audit;
mod bare_sender;
mod client;
mod clock;
mod disk;
mod limits;
mod meter;
mod outcome;
mod plot;
mod process;
mod receivers;
mod report;
mod scenario;
mod stamp;
mod stream;
mod swarm;
mod table;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Command, HELP, RunArgs};
use clock::Clock;
use meter::Meter;
use outcome::Run;
use scenario::CATALOGUE;

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
        Command::List => print(&list()),
        Command::Run(args) => match run(&args) {
            Ok(true) => Ok(()),
            Ok(false) => return ExitCode::FAILURE,
            Err(error) => Err(error),
        },
        Command::Report { files, output } => {
            load(&files).and_then(|runs| std::fs::write(output, report::page(&runs)))
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

/// Runs the scenarios; `false` when one of them failed.
fn run(args: &RunArgs) -> io::Result<bool> {
    let clock = Clock::start();
    let connections_max = limits::connections_max().min(args.connections_max);
    let broker = scenario::broker_process(args.pid)?;
    let mut meter = Meter::new(clock, broker, args.data_dir.clone(), args.quiet)?;
    let target = &args.target;
    let mut run = Run {
        tool: concat!("dunlin-bench ", env!("CARGO_PKG_VERSION")).into(),
        date: clock::date(),
        broker: args.broker.clone(),
        target: format!("{}:{}", args.host, target.address.port()),
        protocol: format!(
            "MQTT {}{}",
            target.version.name(),
            if target.tls.is_some() { " over TLS" } else { "" }
        ),
        outcomes: Vec::new(),
    };
    for scenario in &args.scenarios {
        let mut scenario = *scenario;
        let scaled = scenario.fit(connections_max);
        let needed = scenario.kind.connections(&scenario.params);
        if needed > connections_max {
            return Err(io::Error::other(format!(
                "{}: it needs {needed} connections at least, {connections_max} can be had",
                scenario.name
            )));
        }
        scenario.params.seconds = scenario.params.seconds.min(args.seconds_max);
        print(&format!("{}: {}\n    {}\n", scenario.name, scenario.about, scenario.figures()))?;
        if let Some(scaled) = &scaled {
            print(&format!("    scaled {scaled}\n"))?;
        }
        let outcome = scenario.run(target, clock, &mut meter, scaled);
        for line in outcome.phases.iter().flat_map(outcome::Phase::lines) {
            print(&format!("    {line}\n"))?;
        }
        if let Some(failed) = &outcome.failed {
            print(&format!("    FAILED: {failed}\n"))?;
        }
        run.outcomes.push(outcome);
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&run).map_err(io::Error::other)?;
        std::fs::write(file, text + "\n")?;
    }
    let failed = run.outcomes.iter().any(|outcome| outcome.failed.is_some());
    if let Some(file) = &args.html {
        std::fs::write(file, report::page(&[run]))?;
    }
    Ok(!failed)
}
