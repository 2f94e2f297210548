//! Runs the simulator: `simulate --seed N --steps M [--seeds K] [--workers W] [--no-crash]
//! [--verbose] [--keep-going] [--queues]`. Ends with 1 at the first broken rule, and says how to see it again;
//! with `--keep-going` it says so in a line, and goes on with the next seed.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::catch_unwind;
use std::process::ExitCode;

use dunlin_tests::simulate::{Failure, Plan, queues, run, world};
use lexopt::prelude::{Long, ValueExt};

struct Options {
    plan: Plan,
    is_of_queues: bool,
    seeds: u64,
    keeps_going: bool,
}

/// A seed that is another one in each process. The keys of the standard's hash tables are drawn at
/// random.
fn draw_seed() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    hasher.finish() >> 24
}

fn parse() -> Result<Options, lexopt::Error> {
    let plan =
        Plan { seed: draw_seed(), steps: 2000, workers: None, may_crash: true, is_verbose: false };
    let mut options = Options { plan, is_of_queues: false, seeds: 1, keeps_going: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => options.plan.seed = parser.value()?.parse()?,
            Long("seeds") => options.seeds = parser.value()?.parse()?,
            Long("steps") => options.plan.steps = parser.value()?.parse()?,
            Long("workers") => options.plan.workers = Some(parser.value()?.parse()?),
            Long("queues") => options.is_of_queues = true,
            Long("no-crash") => options.plan.may_crash = false,
            Long("keep-going") => options.keeps_going = true,
            Long("verbose") => options.plan.is_verbose = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(options)
}

fn print(failure: &Failure) {
    println!("seed {}, step {}: {}", failure.seed, failure.step, failure.setting);
    for line in &failure.log {
        println!("{line}");
    }
    println!("seed {}, step {}: BROKEN: {}", failure.seed, failure.step, failure.what);
}

fn run_queues(options: &Options) -> ExitCode {
    let Options { plan, seeds, .. } = options;
    println!("queues: seeds {} to {}, {} steps each", plan.seed, plan.seed + seeds - 1, plan.steps);
    let mut failures = 0;
    for seed in plan.seed..plan.seed + seeds {
        let result = catch_unwind(|| queues::run(seed, plan.steps, plan.is_verbose));
        let broken = match result {
            Ok(Ok(())) => continue,
            Ok(Err(what)) => what,
            Err(_) => format!("seed {seed}: PANIC"),
        };
        println!("BROKEN: {broken}; again: simulate --queues --seed {seed} --steps {}", plan.steps);
        failures += 1;
        if !options.keeps_going {
            break;
        }
    }
    if failures == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    if options.is_of_queues {
        return run_queues(&options);
    }
    let Options { plan, seeds, keeps_going, .. } = options;
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let (seed, step) = world::place();
        if keeps_going {
            return println!("seed {seed}, step {step}: PANIC: {info}");
        }
        eprintln!("seed {seed}, step {step}: PANIC; --verbose shows the steps");
        usual(info);
    }));
    println!("seeds {} to {}, {} steps each", plan.seed, plan.seed + seeds - 1, plan.steps);
    let mut failures = 0;
    for seed in plan.seed..plan.seed + seeds {
        let plan = Plan { seed, ..plan };
        if keeps_going {
            match catch_unwind(|| run(&plan)) {
                Ok(Ok(_)) => continue,
                Ok(Err(failure)) => {
                    let Failure { step, what, .. } = *failure;
                    println!("seed {seed}, step {step}: BROKEN: {what}");
                }
                Err(_) => {}
            }
            failures += 1;
            continue;
        }
        match run(&plan) {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err(failure) => {
                print(&failure);
                return ExitCode::FAILURE;
            }
        }
    }
    if failures == 0 {
        return ExitCode::SUCCESS;
    }
    println!("{failures} of {seeds} seeds break a rule");
    ExitCode::FAILURE
}
