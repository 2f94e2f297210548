//! Runs scenarios one after the other, and keeps what has been found out so far.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::args::RunArgs;
use crate::clock::{Clock, date};
use crate::meter::Meter;
use crate::outcome::{Outcome, Phase, Run};
use crate::scenario::{Scenario, broker_process};
use crate::swarm::own_addresses;
use crate::{TOOL, limits, print, report};

/// Runs the scenarios; `false` when one of them failed.
pub(crate) fn run(args: &RunArgs) -> io::Result<bool> {
    let target = &args.target;
    let connections_max =
        limits::connections_max(own_addresses(target.address)).min(args.connections_max);
    refuse_impossible(args, connections_max)?;
    let is_over = told_to_end()?;
    let clock = Clock::start();
    let broker = broker_process(args.pid)?;
    let mut meter = Meter::new(clock, broker, args.data_dir.clone(), args.quiet)?;
    let over_tls = if target.tls.is_some() { " over TLS" } else { "" };
    let mut run = Run {
        tool: TOOL.into(),
        date: date(),
        broker: args.broker.clone(),
        target: format!("{}:{}", args.host, target.address.port()),
        protocol: format!("MQTT {}{over_tls}", target.version.name()),
        outcomes: Vec::new(),
    };
    // Whether it can be written is known before anything is measured.
    save(&run, args)?;
    for scenario in &args.scenarios {
        if is_over.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let mut scenario = *scenario;
        scenario.shorten(args.seconds_max);
        let scaled = scenario.fit(connections_max);
        print(&format!("{}: {}\n    {}\n", scenario.name, scenario.about, scenario.figures()))?;
        if let Some(scaled) = &scaled {
            print(&format!("    scaled {scaled}\n"))?;
        }
        let needed = scenario.kind.connections(&scenario.params);
        let mut outcome = if needed > connections_max {
            let why =
                format!("it needs {needed} connections at least, {connections_max} can be had");
            scenario.outcome(Some(why))
        } else {
            scenario.run(target, clock, &mut meter, &is_over, run.outcomes.is_empty())
        };
        outcome.scaled = scaled;
        if args.strict && outcome.failed.is_none() {
            outcome.failed = outcome.unclean();
        }
        tell(&outcome)?;
        run.outcomes.push(outcome);
        save(&run, args)?;
    }
    Ok(run.outcomes.iter().all(|outcome| outcome.failed.is_none()))
}

/// What the catalogue wants is scaled to what can be had; what the user wants is not.
fn refuse_impossible(args: &RunArgs, connections_max: usize) -> io::Result<()> {
    let wants = |scenario: &Scenario| scenario.kind.connections(&scenario.params);
    let impossible = args.scenarios.iter().find(|scenario| wants(scenario) > connections_max);
    let Some(scenario) = impossible.filter(|_| args.is_sized) else { return Ok(()) };
    Err(io::Error::other(format!(
        "{}: {} connections are wanted, {connections_max} can be had here",
        scenario.name,
        wants(scenario)
    )))
}

/// Set by the first signal: the scenario tidies up. The second ends the process at once.
fn told_to_end() -> io::Result<Arc<AtomicBool>> {
    let is_over = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&is_over))?;
        signal_hook::flag::register(signal, Arc::clone(&is_over))?;
    }
    Ok(is_over)
}

fn tell(outcome: &Outcome) -> io::Result<()> {
    for line in outcome.phases.iter().flat_map(Phase::lines) {
        print(&format!("    {line}\n"))?;
    }
    match &outcome.failed {
        Some(failed) => print(&format!("    FAILED: {failed}\n")),
        None => Ok(()),
    }
}

/// Writes what is known by now.
fn save(run: &Run, args: &RunArgs) -> io::Result<()> {
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(run).map_err(io::Error::other)?;
        write(file, &(text + "\n"))?;
    }
    match &args.html {
        Some(file) => write(file, &report::page(std::slice::from_ref(run))),
        None => Ok(()),
    }
}

/// Writes a file; an error names it.
pub(crate) fn write(file: &str, text: &str) -> io::Result<()> {
    std::fs::write(file, text).map_err(|error| io::Error::other(format!("{file}: {error}")))
}
