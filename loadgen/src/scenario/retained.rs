//! Retained messages: stored, and fetched by one subscription.

use std::fmt::Write;
use std::io;

use dunlin_packets::{PacketId, QoS, ReasonCode};

use super::Context;
use super::flow::{Flow, Plan, Readers};
use crate::audit::{Audience, Audit};
use crate::client::{Deaf, Greeting, Observer};
use crate::clock::{MILLISECOND, SECOND};

/// Publications that take a retained message away, unacknowledged at a time.
const CLEARING_MAX: usize = 100;
/// Longest wait for one of their acknowledgements.
const PATIENCE_NS: u64 = 15 * SECOND;

/// Two phases: store and fetch.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let result = store_and_fetch(cx);
    let cleared = clear(cx);
    result.and(cleared)
}

fn store_and_fetch(cx: &mut Context<'_>) -> io::Result<()> {
    let params = cx.params;
    let prefix = cx.prefix.clone();
    let mut swarm = cx.swarm()?;
    let publisher = Greeting { client_id: format!("{prefix}-p"), ..Greeting::default() };
    swarm.connect_all([publisher], None, &mut Deaf, |_, _| {})?;
    let audit = Audit::new(Audience::Partner, params.messages, params.messages, 0);
    let mut flow = Flow::new(cx, audit, Readers::One);
    flow.cx.meter.start("store", "message");
    let plan = Plan {
        publishers: 0..1,
        count: params.messages,
        window: params.window,
        is_reading: false,
        retain: true,
        weight: 1,
        topic: |_: usize, index: usize, topic: &mut String| {
            let _ = write!(topic, "{prefix}/{index}");
            index
        },
    };
    flow.publish(&mut swarm, &plan)?;
    let mut phase = flow.cx.meter.finish(params.messages as u64, None);
    phase.notes = flow.notes();
    flow.cx.phases.push(phase);

    flow.cx.meter.start("fetch", "delivery");
    swarm.open(Greeting {
        client_id: format!("{prefix}-s"),
        filters: vec![format!("{prefix}/#")],
        qos: QoS::from_bits(params.qos).unwrap_or_default(),
        ..Greeting::default()
    })?;
    flow.receive(&mut swarm)?;
    let account = flow.audit.account();
    let mut phase = flow.cx.meter.finish(account.received, Some(account));
    phase.latency = None;
    flow.cx.phases.push(phase);
    swarm.close_all();
    Ok(())
}

struct Acknowledged(usize);

impl Observer for Acknowledged {
    fn on_acknowledged(&mut self, _client: usize, _id: PacketId, _code: ReasonCode, _now: u64) {
        self.0 += 1;
    }
}

/// Leaves nothing behind: an empty payload takes the retained message away.
fn clear(cx: &Context<'_>) -> io::Result<()> {
    let mut swarm = cx.tidy_swarm()?;
    let cleaner = Greeting { client_id: format!("{}-t", cx.prefix), ..Greeting::default() };
    swarm.connect_all([cleaner], None, &mut Deaf, |_, _| {})?;
    let (mut sent, mut acknowledged) = (0, Acknowledged(0));
    let mut progress = (0, cx.clock.now_ns());
    while acknowledged.0 < cx.params.messages {
        let now = cx.clock.now_ns();
        if acknowledged.0 > progress.0 {
            progress = (acknowledged.0, now);
        }
        let Some(client) = swarm.client(0).filter(|_| now - progress.1 < PATIENCE_NS) else {
            let left = cx.params.messages - acknowledged.0;
            return Err(io::Error::other(format!("{left} retained messages were left behind")));
        };
        let window = CLEARING_MAX.min(usize::from(client.receive_maximum));
        while sent < cx.params.messages && sent - acknowledged.0 < window {
            let id = PacketId::new((sent % 60_000) as u16 + 1);
            client.publish(&format!("{}/{sent}", cx.prefix), &[], QoS::AtLeastOnce, id, true);
            sent += 1;
        }
        swarm.flush(0);
        swarm.poll(now + 10 * MILLISECOND, &mut acknowledged)?;
    }
    swarm.close_all();
    Ok(())
}
