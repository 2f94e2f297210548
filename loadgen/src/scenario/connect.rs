//! Connections that come, at a rate or as fast as it goes, and stay.

use std::cell::RefCell;
use std::io;

use super::Context;
use crate::client::{Greeting, Observer};
use crate::clock::SECOND;
use crate::meter::Meter;

struct Watch<'a, 'b>(&'a RefCell<&'b mut Meter>);

impl Observer for Watch<'_, '_> {
    fn on_online(&mut self, _client: usize, since_ns: u64, now: u64) {
        self.0.borrow_mut().record(now - since_ns);
    }
}

/// One phase; what a connection takes of the broker's memory is a note of it.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let params = cx.params;
    let mut swarm = cx.swarm()?;
    let prefix = cx.prefix.clone();
    let greeting = |number: usize| Greeting {
        client_id: format!("{prefix}-{number}"),
        filters: (0..params.messages).map(|filter| format!("{prefix}/{number}/{filter}")).collect(),
        ..Greeting::default()
    };
    // The first connection pays for what all share.
    let first = [greeting(params.connections)];
    swarm.connect_all(first, None, &mut crate::client::Deaf, |_, _| {})?;
    cx.meter.start("connect", "connection");
    let rate = (params.rate > 0.0).then_some(params.rate);
    // The meter is told by two: the clock, and those who come.
    let meter = RefCell::new(&mut *cx.meter);
    let tick = |now, online| meter.borrow_mut().tick(now, online as u64);
    let all = (0..params.connections).map(greeting);
    swarm.connect_all(all, rate, &mut Watch(&meter), tick)?;
    let mut phase = cx.meter.finish(params.connections as u64, None);
    // One that has been larger before takes memory that it has already.
    if let Some(broker) = phase.broker.as_ref().filter(|_| cx.is_first) {
        let each = (broker.rss_after_bytes.saturating_sub(broker.rss_before_bytes)) as f64
            / params.connections.max(1) as f64;
        phase.notes.push(format!("{each:.0} bytes of the broker's memory per connection"));
    }
    cx.phases.push(phase);
    // Whoever was let in and dropped at once would show now.
    let end = cx.clock.now_ns() + SECOND;
    while cx.clock.now_ns() < end {
        swarm.poll(end, &mut crate::client::Deaf)?;
    }
    let (kept, wanted) = (swarm.len(), params.connections + 1);
    swarm.close_all();
    if kept < wanted {
        return Err(io::Error::other(format!("only {kept} of {wanted} connections stayed")));
    }
    Ok(())
}
