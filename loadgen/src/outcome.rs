//! What a run found out: the form it has in JSON, in the report and in tables.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::audit::Account;
use crate::scenario::Params;

/// A whole run: one broker, some scenarios.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    /// The generator and its version.
    pub(crate) tool: String,
    /// UTC.
    pub(crate) date: String,
    /// What the broker is called in tables.
    pub(crate) broker: String,
    pub(crate) target: String,
    /// MQTT version, and whether over TLS.
    pub(crate) protocol: String,
    pub(crate) outcomes: Vec<Outcome>,
}

/// One scenario.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    pub(crate) scenario: String,
    pub(crate) about: String,
    pub(crate) params: Params,
    /// Those of them that count, as text.
    pub(crate) figures: String,
    /// What was made smaller than the name says, and why.
    pub(crate) scaled: Option<String>,
    /// Why it did not come to its end.
    pub(crate) failed: Option<String>,
    pub(crate) phases: Vec<Phase>,
}

/// One part of a scenario with figures of its own.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Phase {
    pub(crate) name: String,
    /// What is counted.
    pub(crate) unit: String,
    pub(crate) count: u64,
    pub(crate) seconds: f64,
    pub(crate) per_s: f64,
    pub(crate) latency: Option<Latency>,
    pub(crate) account: Option<Account>,
    /// Without the broker's pid there is nothing to say about it.
    pub(crate) broker: Option<BrokerUsage>,
    /// Nor without its directory about what is in that.
    #[serde(default)]
    pub(crate) disk: Option<DiskUsage>,
    pub(crate) generator_cpu_s: f64,
    pub(crate) series: Vec<Sample>,
    /// Anything a reader has to know.
    pub(crate) notes: Vec<String>,
}

/// Times in microseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// Points of the cumulative distribution: microseconds, and the share that took no longer.
    pub(crate) cdf: Vec<(f64, f64)>,
}

/// What the broker's process used.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BrokerUsage {
    pub(crate) cpu_s: f64,
    /// For each of what was counted.
    pub(crate) cpu_us_each: f64,
    pub(crate) rss_before_bytes: u64,
    pub(crate) rss_after_bytes: u64,
    pub(crate) rss_max_bytes: u64,
}

/// Bytes of all files in the broker's directory.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct DiskUsage {
    pub(crate) before_bytes: u64,
    pub(crate) after_bytes: u64,
    /// As far as samples have seen.
    pub(crate) max_bytes: u64,
}

/// A moment of a phase.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) at_s: f64,
    pub(crate) per_s: f64,
    pub(crate) broker_rss_bytes: u64,
    /// Cores in use since the sample before.
    pub(crate) broker_cores: f64,
    #[serde(default)]
    pub(crate) disk_bytes: u64,
}

impl Outcome {
    /// What was not as it should be with what was delivered.
    pub(crate) fn unclean(&self) -> Option<String> {
        let accounts = || self.phases.iter().filter_map(|phase| phase.account.as_ref());
        let sum = |of: fn(&Account) -> u64| accounts().map(of).sum::<u64>();
        let (lost, again) = (sum(|account| account.lost), sum(|account| account.duplicated));
        let (late, foreign) = (sum(|account| account.out_of_order), sum(|account| account.foreign));
        (lost + again + late + foreign > 0).then(|| {
            format!("{lost} lost, {again} duplicated, {late} out of order, {foreign} foreign")
        })
    }
}

impl Latency {
    /// Of times in nanoseconds; `None` when there are none.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Option<Self> {
        if histogram.is_empty() {
            return None;
        }
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        let cdf = histogram
            .iter_quantiles(5)
            .map(|step| (step.value_iterated_to() as f64 / 1e3, step.quantile_iterated_to()));
        Some(Self {
            count: histogram.len(),
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            max_us: histogram.max() as f64 / 1e3,
            cdf: cdf.collect(),
        })
    }
}

impl Phase {
    /// Lines for a terminal.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<10} {} {} in {:.2} s = {}/s",
            self.name,
            self.count,
            plural(&self.unit),
            self.seconds,
            thousands(self.per_s),
        )];
        if let Some(broker) = &self.broker {
            lines.push(format!(
                "           broker: {:.2} s CPU, {:.3} us per {}; RSS {} -> {}, at most {}; \
                 generator: {:.2} s CPU",
                broker.cpu_s,
                broker.cpu_us_each,
                self.unit,
                mebibytes(broker.rss_before_bytes),
                mebibytes(broker.rss_after_bytes),
                mebibytes(broker.rss_max_bytes),
                self.generator_cpu_s,
            ));
        }
        if let Some(disk) = &self.disk {
            lines.push(format!(
                "           on disk: {} -> {}, at most {}",
                mebibytes(disk.before_bytes),
                mebibytes(disk.after_bytes),
                mebibytes(disk.max_bytes),
            ));
        }
        if let Some(latency) = &self.latency {
            lines.push(format!(
                "           latency ms: p50 {:.3}  p90 {:.3}  p99 {:.3}  p99.9 {:.3}  max {:.3}",
                latency.p50_us / 1e3,
                latency.p90_us / 1e3,
                latency.p99_us / 1e3,
                latency.p999_us / 1e3,
                latency.max_us / 1e3,
            ));
        }
        if let Some(account) = &self.account {
            lines.push(format!(
                "           of {} deliveries due: {} lost, {} duplicated, {} out of order, \
                 {} foreign",
                account.expected,
                account.lost,
                account.duplicated,
                account.out_of_order,
                account.foreign,
            ));
        }
        lines.extend(self.notes.iter().map(|note| format!("           note: {note}")));
        lines
    }
}

/// The value in the middle, or between the two in the middle.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (above, below) = (sorted.len() / 2, sorted.len().saturating_sub(1) / 2);
    sorted.get(below).zip(sorted.get(above)).map(|(below, above)| (below + above) / 2.0)
}

/// More than one of a unit.
pub(crate) fn plural(unit: &str) -> String {
    match unit.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{unit}s"),
    }
}

/// A figure with separators: 1,234,567.
pub(crate) fn thousands(figure: f64) -> String {
    if figure.abs() < 100.0 {
        return format!("{figure:.1}");
    }
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes as MiB.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    }

    #[test]
    fn figures_are_grouped_by_three() {
        let texts = [0.0, 12.34, 999.0, 1000.0, 1_234_567.0].map(thousands);
        assert_eq!(texts, ["0.0", "12.3", "999", "1,000", "1,234,567"]);
    }
}
