//! `dunlin-budgets`: measures what `benches/budgets.toml` limits, prints a table, and ends with 1
//! when something costs more than it may. `scripts/check_budgets.sh` runs it, after the
//! instruction counts it reads.

mod measures;

use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budgets {
    /// What the figures in `report` are of: the last column's name.
    #[serde(default)]
    report: String,
    budget: Vec<Budget>,
}

/// One line of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    name: String,
    measure: String,
    max: Option<f64>,
    min: Option<f64>,
    expect: Option<f64>,
    tolerance_percent: Option<f64>,
    divide: Option<f64>,
    report: Option<String>,
}

/// What became of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    /// So much better that the budget should follow.
    Lower,
    Fail,
}

impl Budget {
    fn judge(&self, measured: f64) -> Result<Verdict, String> {
        let exceeded = self.max.is_some_and(|max| measured > max)
            || self.min.is_some_and(|min| measured < min);
        if exceeded {
            return Ok(Verdict::Fail);
        }
        let Some(expect) = self.expect else {
            return match (self.max, self.min) {
                (None, None) => Err(format!("{}: neither max, min nor expect", self.name)),
                _ => Ok(Verdict::Pass),
            };
        };
        let tolerance = self.tolerance_percent.unwrap_or(0.0) / 100.0;
        Ok(if measured > expect * (1.0 + tolerance) {
            Verdict::Fail
        } else if measured < expect * (1.0 - tolerance) {
            Verdict::Lower
        } else {
            Verdict::Pass
        })
    }

    fn limit(&self) -> String {
        match (self.max, self.min, self.expect) {
            (Some(max), ..) => format!("<= {max}"),
            (_, Some(min), _) => format!(">= {min}"),
            (_, _, Some(expect)) => {
                format!("{expect} +{} %", self.tolerance_percent.unwrap_or(0.0))
            }
            _ => String::new(),
        }
    }
}

fn run(file: &Path, instructions: &Path) -> Result<bool, String> {
    let text =
        std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let budgets: Budgets =
        toml_edit::de::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
    let width = budgets.budget.iter().map(|budget| budget.name.len()).max().unwrap_or(0);
    println!(
        "{:<width$} {:>14} {:>12}  verdict  {}",
        "budget", "limit", "measured", budgets.report
    );
    let mut passed = true;
    for budget in &budgets.budget {
        let measured = measures::measure(&budget.measure, instructions)?;
        let measured = measured / budget.divide.unwrap_or(1.0);
        let verdict = budget.judge(measured)?;
        passed &= verdict != Verdict::Fail;
        println!(
            "{:<width$} {:>14} {:>12}  {:<7}  {}",
            budget.name,
            budget.limit(),
            trimmed(measured),
            match verdict {
                Verdict::Pass => "pass",
                Verdict::Lower => "lower!",
                Verdict::Fail => "FAIL",
            },
            budget.report.as_deref().unwrap_or("")
        );
    }
    Ok(passed)
}

fn trimmed(figure: f64) -> String {
    let text = format!("{figure:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(file), Some(instructions), None) = (args.next(), args.next(), args.next()) else {
        eprintln!("usage: dunlin-budgets BUDGETS.toml DIRECTORY-OF-INSTRUCTION-COUNTS");
        return ExitCode::from(2);
    };
    match run(Path::new(&file), Path::new(&instructions)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("dunlin-budgets: something costs more than it may");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("dunlin-budgets: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(text: &str) -> Budget {
        let text = format!("name = \"n\"\nmeasure = \"m\"\n{text}");
        toml_edit::de::from_str(&text).expect("a budget")
    }

    #[test]
    fn a_budget_bites_on_the_side_it_has_a_limit_on() {
        let cases = [
            ("max = 0", 0.0, Verdict::Pass),
            ("max = 0", 0.01, Verdict::Fail),
            ("min = 99.9", 99.9, Verdict::Pass),
            ("min = 99.9", 99.8, Verdict::Fail),
            ("expect = 100\ntolerance_percent = 3", 103.0, Verdict::Pass),
            ("expect = 100\ntolerance_percent = 3", 103.1, Verdict::Fail),
            ("expect = 100\ntolerance_percent = 3", 96.0, Verdict::Lower),
        ];
        for (text, measured, verdict) in cases {
            assert_eq!(budget(text).judge(measured), Ok(verdict), "{text} {measured}");
        }
        assert!(budget("").judge(1.0).is_err(), "a budget without a limit is a mistake");
    }
}
