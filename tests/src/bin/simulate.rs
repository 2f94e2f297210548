//! Runs the simulator: `simulate --seed N --steps M [--seeds K] [--workers W] [--no-crash]
//! [--verbose]`. Ends with 1 at the first broken rule, and says how to see it again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::process::ExitCode;

use dunlin_tests::simulate::{Failure, Plan, run, world};
use lexopt::prelude::{Long, ValueExt};

struct Options {
    plan: Plan,
    seeds: u64,
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
    let mut options = Options { plan, seeds: 1 };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seed") => options.plan.seed = parser.value()?.parse()?,
            Long("seeds") => options.seeds = parser.value()?.parse()?,
            Long("steps") => options.plan.steps = parser.value()?.parse()?,
            Long("workers") => options.plan.workers = Some(parser.value()?.parse()?),
            Long("no-crash") => options.plan.may_crash = false,
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

fn main() -> ExitCode {
    let options = match parse() {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let (seed, step) = world::place();
        eprintln!("seed {seed}, step {step}: PANIC; --verbose shows the steps");
        usual(info);
    }));
    let Options { plan, seeds } = options;
    println!("seeds {} to {}, {} steps each", plan.seed, plan.seed + seeds - 1, plan.steps);
    for seed in plan.seed..plan.seed + seeds {
        match run(&Plan { seed, ..plan }) {
            Ok(report) => println!("seed {seed}: {report:?}"),
            Err(failure) => {
                print(&failure);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
