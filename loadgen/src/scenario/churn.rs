//! Connections that come and go at a rate, beside others that stay.

use std::io;

use super::Context;
use crate::client::{Deaf, Greeting, Observer};
use crate::clock::{MILLISECOND, SECOND};
use crate::meter::Meter;

/// Visitors at a time.
const VISITORS_MAX: usize = 1000;
/// Silence after which those who are under way, or could not come, are given up.
const QUIET_NS: u64 = 3 * SECOND;

struct Watch<'a> {
    meter: &'a mut Meter,
    arrived: &'a mut Vec<usize>,
}

impl Observer for Watch<'_> {
    fn on_online(&mut self, client: usize, since_ns: u64, now: u64) {
        self.meter.record(now.saturating_sub(since_ns));
        self.arrived.push(client);
    }
}

/// One phase; its latency is that from when a connection was due to its CONNACK.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let params = cx.params;
    let mut swarm = cx.swarm()?;
    let prefix = cx.prefix.clone();
    let greeting = |name: &str, number: usize| Greeting {
        client_id: format!("{prefix}-{name}{number}"),
        filters: vec![format!("{prefix}/{name}/{number}")],
        ..Greeting::default()
    };
    let base = (0..params.connections).map(|number| greeting("base", number));
    swarm.connect_all(base, None, &mut Deaf, |_, _| {})?;
    cx.meter.start("cycles", "cycle");
    let started = cx.clock.now_ns();
    // All that are due have their turn, however late: a broker that stalls is charged for them.
    let wanted = ((params.rate * params.seconds) as usize).max(1);
    let due_at = |index: usize| started + (index as f64 * 1e9 / params.rate) as u64;
    let (mut opened, mut closed) = (0, 0);
    let mut arrived = Vec::new();
    let mut quiet_since = started;
    while closed < wanted && swarm.broken == 0 {
        let now = cx.clock.now_ns();
        if opened == closed {
            // Nobody is awaited.
            quiet_since = now;
        } else if now - quiet_since > QUIET_NS && now >= due_at(wanted) {
            break;
        }
        while opened < wanted && due_at(opened) <= now && opened - closed < VISITORS_MAX {
            swarm.open_due(greeting("visitor", opened), due_at(opened))?;
            opened += 1;
        }
        let next = if opened < wanted { due_at(opened) } else { now + 10 * MILLISECOND };
        let until = next.max(now + MILLISECOND / 10);
        swarm.poll(until, &mut Watch { meter: cx.meter, arrived: &mut arrived })?;
        for visitor in arrived.drain(..) {
            swarm.close(visitor, true);
            closed += 1;
            quiet_since = now;
        }
        cx.meter.tick(now, closed as u64);
    }
    let phase = cx.meter.finish(closed as u64, None);
    cx.phases.push(phase);
    if swarm.broken > 0 {
        let why = swarm.last_error.take().unwrap_or_default();
        return Err(io::Error::other(format!("a connection ended: {why}")));
    }
    swarm.close_all();
    if closed < wanted {
        let missing = wanted - closed;
        return Err(io::Error::other(format!(
            "{missing} of {wanted} connections were due and got no answer, the last 3 s none did"
        )));
    }
    Ok(())
}
