//! Brokers side by side: medians over the rounds that were run.

use std::fmt::Write;

use crate::outcome::{Outcome, Phase, Run, median, thousands};

/// What one broker did in one phase, over all rounds.
#[derive(Debug, Default)]
struct Cell {
    per_s: Vec<f64>,
    /// Where the broker sets the pace.
    us_each: Vec<f64>,
    cpu_us: Vec<f64>,
    p99_ms: Vec<f64>,
    rss_mib: Vec<f64>,
    lost: u64,
    duplicated: u64,
    out_of_order: u64,
    failed: Option<String>,
}

impl Cell {
    fn add(&mut self, phase: &Phase, sets_the_pace: bool) {
        self.per_s.push(phase.per_s);
        self.us_each.extend(sets_the_pace.then_some(1e6 / phase.per_s));
        if let Some(broker) = &phase.broker {
            self.cpu_us.push(broker.cpu_us_each);
            self.rss_mib.push(broker.rss_max_bytes as f64 / f64::from(1 << 20));
        }
        self.p99_ms.extend(phase.latency.as_ref().map(|latency| latency.p99_us / 1e3));
        if let Some(account) = &phase.account {
            self.lost += account.lost;
            self.duplicated += account.duplicated;
            self.out_of_order += account.out_of_order;
        }
    }
}

/// A table for each phase of each scenario, with the last column against the first broker named.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut brokers: Vec<&str> = Vec::new();
    for run in runs {
        if !brokers.contains(&run.broker.as_str()) {
            brokers.push(&run.broker);
        }
    }
    let mut text = String::new();
    for (scenario, about, phase) in phases(runs) {
        let _ = writeln!(text, "\n{scenario} ({phase}): {about}");
        for figures in figures(runs, &scenario) {
            let _ = writeln!(text, "  {figures}");
        }
        let _ = writeln!(
            text,
            "  {:<14} {:>13} {:>11} {:>9} {:>10} {:>10} {:>7} {:>7} {:>8}",
            "broker",
            "per second",
            "CPU us each",
            "of first",
            "p99 ms",
            "RSS MiB",
            "lost",
            "again",
            "disorder"
        );
        let mut first = None;
        for broker in &brokers {
            let cell = cell(runs, broker, &scenario, &phase);
            let cpu = median(&cell.cpu_us);
            if first.is_none() {
                first = cpu;
            }
            let of_first = cpu.zip(first).filter(|(_, first)| *first > 0.0);
            let _ = writeln!(text, "  {broker:<14} {}", line(&cell, of_first.map(|(c, f)| c / f)));
        }
    }
    if let [first, others @ ..] = &brokers[..]
        && !others.is_empty()
    {
        text.push_str(&losses(runs, first, others));
    }
    text
}

/// Where another broker did the same for less than the first one, or faster, and lost nothing.
fn losses(runs: &[Run], first: &str, others: &[&str]) -> String {
    let mut text = format!("\nWhere {first} is not the best:\n");
    let empty = text.len();
    for (scenario, _, phase) in phases(runs) {
        let ours = cell(runs, first, &scenario, &phase);
        for other in others {
            let theirs_all = cell(runs, other, &scenario, &phase);
            for (what, ours, theirs) in [
                ("CPU us each", &ours.cpu_us, &theirs_all.cpu_us),
                ("us of time each", &ours.us_each, &theirs_all.us_each),
                ("p99 ms", &ours.p99_ms, &theirs_all.p99_ms),
                ("RSS MiB", &ours.rss_mib, &theirs_all.rss_mib),
            ] {
                let is_whole = theirs_all.failed.is_none() && theirs_all.lost == 0;
                if let (Some(ours), Some(theirs)) = (median(ours), median(theirs))
                    && is_whole
                    && theirs < ours
                {
                    let _ = writeln!(
                        text,
                        "  {scenario} ({phase}), {what}: {ours:.3}, {other} {theirs:.3}"
                    );
                }
            }
        }
    }
    if text.len() == empty {
        text.push_str("  nowhere in what was run\n");
    }
    text
}

fn line(cell: &Cell, of_first: Option<f64>) -> String {
    let figure = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
    };
    if cell.per_s.is_empty() {
        return cell.failed.clone().unwrap_or_else(|| "-".into());
    }
    let mut line = format!(
        "{:>13} {:>11} {:>9} {:>10} {:>10} {:>7} {:>7} {:>8}",
        median(&cell.per_s).map_or_else(|| "-".into(), thousands),
        figure(median(&cell.cpu_us), 3),
        figure(of_first, 2),
        figure(median(&cell.p99_ms), 3),
        figure(median(&cell.rss_mib), 1),
        cell.lost,
        cell.duplicated,
        cell.out_of_order
    );
    if let Some(failed) = &cell.failed {
        let _ = write!(line, "  failed: {failed}");
    }
    line
}

/// Scenarios and their phases, in the order in which they were run.
fn phases(runs: &[Run]) -> Vec<(String, String, String)> {
    let mut phases = Vec::new();
    for outcome in runs.iter().flat_map(|run| &run.outcomes) {
        for phase in &outcome.phases {
            let key = (outcome.scenario.clone(), outcome.about.clone(), phase.name.clone());
            if !phases.contains(&key) {
                phases.push(key);
            }
        }
    }
    phases
}

/// What the scenario was run with, and whether that is less than its name says: once, if all runs
/// are alike.
fn figures(runs: &[Run], scenario: &str) -> Vec<String> {
    let mut all = Vec::new();
    for outcome in runs.iter().flat_map(|run| &run.outcomes) {
        let mut figures = outcome.figures.clone();
        if let Some(scaled) = &outcome.scaled {
            let _ = write!(figures, "; scaled {scaled}");
        }
        if outcome.scenario == scenario && !all.contains(&figures) {
            all.push(figures);
        }
    }
    all
}

fn cell(runs: &[Run], broker: &str, scenario: &str, phase: &str) -> Cell {
    let mut cell = Cell::default();
    let runs = runs.iter().filter(|run| run.broker == broker);
    let of_scenario = |outcome: &&Outcome| outcome.scenario == scenario;
    for outcome in runs.flat_map(|run| &run.outcomes).filter(of_scenario) {
        for found in outcome.phases.iter().filter(|found| found.name == phase) {
            cell.add(found, outcome.params.rate == 0.0);
        }
        cell.failed = cell.failed.or_else(|| outcome.failed.clone());
    }
    cell
}
