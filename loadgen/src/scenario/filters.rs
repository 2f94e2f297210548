//! Many filters with a wildcard each, and one message for each of them.

use std::fmt::Write;
use std::io;

use dunlin_packets::QoS;

use super::Context;
use super::flow::{Flow, Plan, Readers};
use crate::audit::{Audience, Audit};
use crate::client::{Deaf, Greeting, Observer};
use crate::clock::{MILLISECOND, SECOND};

/// Longest wait for the SUBACKs.
const PATIENCE_NS: u64 = 60 * SECOND;

struct Watch(bool);

impl Observer for Watch {
    fn on_online(&mut self, _client: usize, _since_ns: u64, _now: u64) {
        self.0 = true;
    }
}

/// Two phases: subscribe, and match with delivery.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let params = cx.params;
    let prefix = cx.prefix.clone();
    let mut swarm = cx.swarm()?;
    let names = ["s", "p"]
        .map(|name| Greeting { client_id: format!("{prefix}-{name}"), ..Greeting::default() });
    swarm.connect_all(names, None, &mut Deaf, |_, _| {})?;

    cx.meter.start("subscribe", "filter");
    let filters: Vec<_> =
        (0..params.messages).map(|number| format!("{prefix}/{number}/+/x")).collect();
    if let Some(client) = swarm.client(0) {
        client.subscribe(&filters, QoS::AtMostOnce);
    }
    swarm.flush(0);
    let (mut watch, started) = (Watch(false), cx.clock.now_ns());
    while !watch.0 {
        let now = cx.clock.now_ns();
        if swarm.client(0).is_none() || now - started > PATIENCE_NS {
            let why = swarm.last_error.take().unwrap_or_else(|| "no SUBACK in 60 s".into());
            return Err(io::Error::other(format!("subscribing: {why}")));
        }
        swarm.poll(now + 10 * MILLISECOND, &mut watch)?;
        cx.meter.tick(now, 0);
    }
    let phase = cx.meter.finish(params.messages as u64, None);
    cx.phases.push(phase);

    let audit = Audit::new(Audience::Partner, params.messages, params.messages, 0);
    let mut flow = Flow::new(cx, audit, Readers::One);
    flow.cx.meter.start("match", "delivery");
    let plan = Plan {
        publishers: 1..2,
        count: params.messages,
        window: params.window,
        is_reading: true,
        retain: false,
        weight: 1,
        topic: |_: usize, index: usize, topic: &mut String| {
            let _ = write!(topic, "{prefix}/{index}/a/x");
            index
        },
    };
    flow.publish(&mut swarm, &plan)?;
    let account = flow.audit.account();
    let phase = flow.cx.meter.finish(account.received, Some(account));
    flow.cx.phases.push(phase);
    swarm.close_all();
    Ok(())
}
