//! A rate that is kept up for long, to sessions that outlive a crash: whether the last minute is as
//! the first, and what it takes on disk meanwhile.

use std::io;
use std::ops::Range;

use hdrhistogram::Histogram;

use super::Context;
use super::load::Load;
use super::watch::subscriber_id;
use crate::audit::Audience;
use crate::client::Greeting;
use crate::clock::{SECOND, seconds};
use crate::meter::LATENCY_MAX_NS;
use crate::outcome::{Latency, Phase, thousands};

/// Longest part at the beginning, and at the end, that are held against each other.
const END_S: f64 = 60.0;
/// Points at which a note says what is on disk.
const DISK_POINTS: usize = 10;

/// Times from when a publication was due to its acknowledgement.
#[derive(Debug)]
pub(super) struct Acknowledged {
    measured: Range<u64>,
    all: Histogram<u64>,
    first: Part,
    last: Part,
}

/// What was acknowledged in a part of the time.
#[derive(Debug)]
struct Part {
    time: Range<u64>,
    latencies: Histogram<u64>,
}

impl Part {
    fn new(time: Range<u64>) -> io::Result<Self> {
        Ok(Self { time, latencies: histogram()? })
    }

    fn record(&mut self, latency: u64, now: u64) {
        if self.time.contains(&now) {
            self.latencies.saturating_record(latency);
        }
    }

    fn seconds(&self) -> f64 {
        (self.time.end - self.time.start) as f64 / SECOND as f64
    }

    fn per_s(&self) -> f64 {
        self.latencies.len() as f64 / self.seconds()
    }

    fn describe(&self, which: &str) -> String {
        let at = |quantile| self.latencies.value_at_quantile(quantile) as f64 / 1e6;
        let (seconds, per_s) = (self.seconds(), thousands(self.per_s()));
        let (p50, p99) = (at(0.5), at(0.99));
        format!("{which} {seconds:.0} s: {per_s} acknowledged/s, p50 {p50:.3} p99 {p99:.3} ms")
    }
}

fn histogram() -> io::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1000, LATENCY_MAX_NS, 3)
        .map_err(|error| io::Error::other(error.to_string()))
}

impl Acknowledged {
    /// For a measurement from `start` on.
    fn new(start: u64, duration_s: f64) -> io::Result<Self> {
        let end = start + seconds(duration_s);
        let part = seconds((duration_s / 10.0).min(END_S)).max(1);
        Ok(Self {
            measured: start..end,
            all: histogram()?,
            first: Part::new(start..start + part)?,
            last: Part::new(end - part..end)?,
        })
    }

    #[inline]
    pub(super) fn record(&mut self, due_ns: u64, now: u64) {
        let latency = now.saturating_sub(due_ns);
        if self.measured.contains(&due_ns) {
            self.all.saturating_record(latency);
        }
        self.first.record(latency, now);
        self.last.record(latency, now);
    }

    fn phase(&self) -> Phase {
        let count = self.all.len();
        let seconds = (self.measured.end - self.measured.start) as f64 / SECOND as f64;
        let of_first = self.last.per_s() / self.first.per_s().max(1e-9);
        Phase {
            name: "acknowledged".into(),
            unit: "publication".into(),
            count,
            seconds,
            per_s: count as f64 / seconds,
            latency: Latency::of(&self.all),
            notes: vec![
                self.first.describe("first"),
                format!("{}; {of_first:.3} of the first", self.last.describe("last")),
            ],
            ..Phase::default()
        }
    }
}

/// Two phases: the deliveries, and the acknowledgements of their publications.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let result = load(cx);
    let session =
        |number| Greeting { client_id: subscriber_id(&cx.prefix, number), ..Greeting::default() };
    let forgotten = cx.forget((0..cx.params.subscribers).map(session));
    result.and(forgotten)
}

fn load(cx: &mut Context<'_>) -> io::Result<()> {
    let duration_s = cx.params.seconds;
    let mut load = Load::prepare(cx, Audience::Partner, true)?;
    load.warm_up()?;
    load.acknowledged = Some(Acknowledged::new(load.cx.clock.now_ns(), duration_s)?);
    load.measure("messages", duration_s)?;
    let acknowledged = load.acknowledged.take().map(|acknowledged| acknowledged.phase());
    if let Some(messages) = load.cx.phases.last_mut() {
        messages.notes.extend(disk_over_time(messages));
    }
    load.cx.phases.extend(acknowledged);
    Ok(())
}

/// What was on disk in the course of a phase, if that is known.
fn disk_over_time(phase: &Phase) -> Option<String> {
    phase.disk.as_ref()?;
    let count = phase.series.len();
    let points = (1..=DISK_POINTS.min(count)).map(|point| {
        let sample = phase.series[point * count / DISK_POINTS.min(count) - 1];
        format!("{:.0} s: {:.1}", sample.at_s, sample.disk_bytes as f64 / f64::from(1 << 20))
    });
    Some(format!("MiB on disk after {}", points.collect::<Vec<_>>().join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_told_apart_by_when_the_acknowledgement_came() {
        let mut acknowledged = Acknowledged::new(100 * SECOND, 20.0).unwrap();
        for (due_s, at_s) in [(99, 100), (101, 101), (103, 110), (117, 119), (119, 125)] {
            acknowledged.record(due_s * SECOND, at_s * SECOND);
        }
        assert_eq!(acknowledged.all.len(), 4, "one was due before");
        assert_eq!((acknowledged.first.latencies.len(), acknowledged.last.latencies.len()), (2, 1));
        assert!(acknowledged.phase().notes[1].contains("0.500 of the first"));
    }
}
