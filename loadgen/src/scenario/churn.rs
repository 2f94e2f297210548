//! Connections that come and go at a rate, beside others that stay.

use std::io;

use super::Context;
use crate::client::{Deaf, Greeting, Observer};
use crate::clock::{MILLISECOND, seconds};
use crate::meter::Meter;
use crate::swarm::Swarm;

/// Visitors at a time.
const VISITORS_MAX: usize = 1000;

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
    let end = started + seconds(params.seconds);
    let (mut opened, mut closed) = (0usize, 0u64);
    let mut arrived = Vec::new();
    loop {
        let now = cx.clock.now_ns();
        if now >= end {
            break;
        }
        let due_at = |index: usize| started + (index as f64 * 1e9 / params.rate) as u64;
        while due_at(opened) <= now && (opened as u64).saturating_sub(closed) < VISITORS_MAX as u64
        {
            visit(&mut swarm, greeting("visitor", opened), due_at(opened))?;
            opened += 1;
        }
        let until = due_at(opened).max(now + MILLISECOND / 10).min(end);
        swarm.poll(until, &mut Watch { meter: cx.meter, arrived: &mut arrived })?;
        for visitor in arrived.drain(..) {
            swarm.close(visitor, true);
            closed += 1;
        }
        cx.meter.tick(now, closed);
        if swarm.broken > 0 {
            let why = swarm.last_error.take().unwrap_or_default();
            return Err(io::Error::other(format!("a connection ended: {why}")));
        }
    }
    let phase = cx.meter.finish(closed, None);
    cx.phases.push(phase);
    swarm.close_all();
    Ok(())
}

fn visit(swarm: &mut Swarm, greeting: Greeting, due_ns: u64) -> io::Result<()> {
    let number = swarm.open(greeting)?;
    if let Some(client) = swarm.client(number) {
        client.since_ns = due_ns;
    }
    Ok(())
}
