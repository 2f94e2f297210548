//! Measures a phase while it runs: counts, times, the broker's CPU and memory, the live line.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use hdrhistogram::Histogram;

use crate::audit::Account;
use crate::clock::{Clock, MILLISECOND};
use crate::disk::bytes_in;
use crate::outcome::{
    BrokerUsage, DiskUsage, Latency, Phase, Sample, mebibytes, plural, thousands,
};
use crate::process::{Process, Usage};

/// Time between samples: some phases are over before long, so it begins small. It grows with the
/// phase, as each sample delays the messages of a moment.
const SAMPLE_EVERY_NS: std::ops::RangeInclusive<u64> = 10 * MILLISECOND..=250 * MILLISECOND;
/// Latencies above a minute are entered as a minute.
pub(crate) const LATENCY_MAX_NS: u64 = 60_000 * MILLISECOND;

/// What is measured, beside the scenario's own counts.
#[derive(Debug)]
pub(crate) struct Meter {
    clock: Clock,
    broker: Option<Process>,
    /// The broker's directory.
    data_dir: Option<PathBuf>,
    own: Process,
    /// The live line is wanted, and somebody sees it.
    is_live: bool,
    scenario: String,
    name: &'static str,
    unit: &'static str,
    started_ns: u64,
    began: (Usage, Usage),
    histogram: Histogram<u64>,
    series: Vec<Sample>,
    last: (u64, u64, Usage),
    rss_max: u64,
    /// On disk when the phase began, and at most.
    disk: (u64, u64),
}

impl Meter {
    /// Measures the broker's process and the bytes in its directory, where those are known.
    pub(crate) fn new(
        clock: Clock,
        broker: Option<Process>,
        data_dir: Option<PathBuf>,
        quiet: bool,
    ) -> io::Result<Self> {
        let histogram = Histogram::new_with_bounds(1000, LATENCY_MAX_NS, 3)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(Self {
            clock,
            broker,
            data_dir,
            own: Process::own(),
            is_live: !quiet && io::stderr().is_terminal(),
            scenario: String::new(),
            name: "",
            unit: "",
            started_ns: 0,
            began: Default::default(),
            histogram,
            series: Vec::new(),
            last: Default::default(),
            rss_max: 0,
            disk: (0, 0),
        })
    }

    pub(crate) fn scenario(&mut self, name: &str) {
        name.clone_into(&mut self.scenario);
    }

    fn usage(&self) -> Usage {
        // A broker that has died shows in its connections.
        self.broker.as_ref().and_then(|broker| broker.usage().ok()).unwrap_or_default()
    }

    fn disk_bytes(&self) -> u64 {
        self.data_dir.as_deref().map_or(0, bytes_in)
    }

    /// Begins a phase.
    pub(crate) fn start(&mut self, name: &'static str, unit: &'static str) {
        (self.name, self.unit) = (name, unit);
        self.histogram.reset();
        self.series.clear();
        let broker = self.usage();
        self.began = (broker, self.own.usage().unwrap_or_default());
        self.rss_max = broker.rss_bytes;
        self.disk = [self.disk_bytes(); 2].into();
        self.started_ns = self.clock.now_ns();
        self.last = (self.started_ns, 0, broker);
    }

    /// Enters one latency.
    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.histogram.saturating_record(nanos);
    }

    /// Nanoseconds since the phase began.
    pub(crate) fn elapsed(&self, now: u64) -> u64 {
        now.saturating_sub(self.started_ns)
    }

    /// Takes a sample if one is due. `count` is how far the phase is.
    #[inline]
    pub(crate) fn tick(&mut self, now: u64, count: u64) {
        if now >= self.last.0 + self.sample_every(now) {
            self.sample(now, count);
        }
    }

    fn sample_every(&self, now: u64) -> u64 {
        (self.elapsed(now) / 2).clamp(*SAMPLE_EVERY_NS.start(), *SAMPLE_EVERY_NS.end())
    }

    fn sample(&mut self, now: u64, count: u64) {
        let usage = self.usage();
        let (last_ns, last_count, last_usage) = self.last;
        let seconds = (now - last_ns) as f64 / 1e9;
        let sample = Sample {
            at_s: self.elapsed(now) as f64 / 1e9,
            per_s: count.saturating_sub(last_count) as f64 / seconds,
            broker_rss_bytes: usage.rss_bytes,
            broker_cores: (usage.cpu_s - last_usage.cpu_s) / seconds,
            disk_bytes: self.disk_bytes(),
        };
        self.disk.1 = self.disk.1.max(sample.disk_bytes);
        self.rss_max = self.rss_max.max(usage.rss_bytes);
        self.series.push(sample);
        self.last = (now, count, usage);
        self.show(&sample, count);
    }

    fn show(&self, sample: &Sample, count: u64) {
        if !self.is_live {
            return;
        }
        let broker = if self.broker.is_some() {
            let memory = mebibytes(sample.broker_rss_bytes);
            format!(", broker {:.2} cores {memory}", sample.broker_cores)
        } else {
            String::new()
        };
        let line = format!(
            "{} {}: {:.1} s, {count} {}, {}/s{broker}",
            self.scenario,
            self.name,
            sample.at_s,
            plural(self.unit),
            thousands(sample.per_s),
        );
        let _ = write!(io::stderr(), "\r{line:<100.100}");
    }

    /// The latencies entered so far.
    pub(crate) fn latency(&self) -> Option<Latency> {
        Latency::of(&self.histogram)
    }

    /// Ends the phase.
    pub(crate) fn finish(&mut self, count: u64, account: Option<Account>) -> Phase {
        let now = self.clock.now_ns();
        if now > self.last.0 + self.sample_every(now) / 4 {
            self.sample(now, count);
        }
        if self.is_live {
            let _ = write!(io::stderr(), "\r{:<100}\r", "");
        }
        let seconds = self.elapsed(now) as f64 / 1e9;
        let (broker_before, own_before) = self.began;
        let usage = self.usage();
        let own = self.own.usage().unwrap_or_default();
        let broker = self.broker.as_ref().map(|_| BrokerUsage {
            cpu_s: usage.cpu_s - broker_before.cpu_s,
            cpu_us_each: (usage.cpu_s - broker_before.cpu_s) * 1e6 / count.max(1) as f64,
            rss_before_bytes: broker_before.rss_bytes,
            rss_after_bytes: usage.rss_bytes,
            rss_max_bytes: self.rss_max.max(usage.rss_bytes),
        });
        let disk = self.data_dir.is_some().then(|| {
            let (before_bytes, max_bytes) = self.disk;
            let after_bytes = self.disk_bytes();
            DiskUsage { before_bytes, after_bytes, max_bytes: max_bytes.max(after_bytes) }
        });
        Phase {
            name: self.name.into(),
            unit: self.unit.into(),
            count,
            seconds,
            per_s: count as f64 / seconds.max(1e-9),
            latency: self.latency(),
            account,
            broker,
            disk,
            generator_cpu_s: own.cpu_s - own_before.cpu_s,
            series: std::mem::take(&mut self.series),
            notes: Vec::new(),
        }
    }
}
