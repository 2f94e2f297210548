//! A load of messages, and beside it connections that come at a rate.

use std::io;

use hdrhistogram::Histogram;

use super::Context;
use super::load::Load;
use crate::audit::Audience;
use crate::client::Greeting;
use crate::outcome::{Latency, Phase};
use crate::swarm::Swarm;

pub(super) const CONNECTIONS_PER_S: f64 = 200.0;

/// Two phases: the deliveries, and those who came meanwhile.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let wanted = cx.params.connections;
    let mut load = Load::prepare(cx, Audience::Partner, false)?;
    load.warm_up()?;
    let since_ns = load.cx.clock.now_ns();
    load.guests = Some(Guests { since_ns, opened: 0, wanted });
    load.measure("messages", wanted as f64 / CONNECTIONS_PER_S)
}

/// Connections that come while a load is on.
#[derive(Debug)]
pub(super) struct Guests {
    since_ns: u64,
    opened: usize,
    wanted: usize,
}

impl Guests {
    /// Opens those whose time has come.
    pub(super) fn open(&mut self, now: u64, prefix: &str, swarm: &mut Swarm) -> io::Result<()> {
        let due = ((now - self.since_ns) as f64 * CONNECTIONS_PER_S / 1e9) as usize;
        while self.opened < due.min(self.wanted) {
            let client_id = format!("{prefix}-g{}", self.opened);
            self.opened += 1;
            let due_ns = self.since_ns + (self.opened as f64 * 1e9 / CONNECTIONS_PER_S) as u64;
            swarm.open_due(Greeting { client_id, ..Greeting::default() }, due_ns)?;
        }
        Ok(())
    }

    /// What became of them; `arrivals` are the times they took.
    pub(super) fn phase(&self, arrivals: &Histogram<u64>, seconds: f64) -> Phase {
        let count = arrivals.len();
        let missing = (self.opened as u64).saturating_sub(count);
        let note = (missing > 0).then(|| format!("{missing} connections got no answer"));
        Phase {
            name: "arrivals".into(),
            unit: "connection".into(),
            count,
            seconds,
            per_s: count as f64 / seconds,
            latency: Latency::of(arrivals),
            notes: note.into_iter().collect(),
            ..Phase::default()
        }
    }
}
