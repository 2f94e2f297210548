//! `dunlin-cost`: what a delivery and an idle connection cost a broker, measured from outside.
//!
//! `fan-out` publishes to many subscribers, waits until all have it, and publishes again; then a
//! process of its own does the same with nothing but `send()`, and the two are taken in turn. CPU
//! is that of the process, user and system, from `/proc`. On loopback it includes the
//! receiver's half of TCP in both.

mod broker;
mod fan_out;
mod idle;
mod receivers;

use std::process::ExitCode;

use lexopt::prelude::{Long, Value, ValueExt};

const HELP: &str = "\
Usage:
  dunlin-cost fan-out [--subscribers N] [--burst B] [--rounds R] [--seconds S]
  dunlin-cost idle [--connections N]
The broker is target/release/dunlin beside this program, with one worker, on loopback.
";

/// What to measure, and how much of it.
#[derive(Clone, Debug)]
pub(crate) struct Args {
    pub(crate) subscribers: usize,
    pub(crate) burst: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) connections: usize,
}

fn parse() -> Result<(String, Args), lexopt::Error> {
    let mut parser = lexopt::Parser::from_env();
    let mut command = String::new();
    let mut args =
        Args { subscribers: 1000, burst: 1, rounds: 3, seconds: 3.0, connections: 15_000 };
    while let Some(arg) = parser.next()? {
        match arg {
            Value(name) if command.is_empty() => command = name.string()?,
            Long("subscribers") => args.subscribers = parser.value()?.parse()?,
            Long("burst") => args.burst = parser.value()?.parse()?,
            Long("rounds") => args.rounds = parser.value()?.parse()?,
            Long("seconds") => args.seconds = parser.value()?.parse()?,
            Long("connections") => args.connections = parser.value()?.parse()?,
            other => return Err(other.unexpected()),
        }
    }
    Ok((command, args))
}

fn main() -> ExitCode {
    let (command, args) = match parse() {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("dunlin-cost: {error}\n{HELP}");
            return ExitCode::from(2);
        }
    };
    let result = match command.as_str() {
        "fan-out" => fan_out::run(&args),
        "bare-sender" => fan_out::bare_sender(&args),
        "idle" => idle::run(&args),
        _ => {
            eprintln!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-cost: {error}");
            ExitCode::FAILURE
        }
    }
}
