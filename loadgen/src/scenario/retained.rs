//! Retained messages: stored, and fetched by one subscription.

use std::fmt::Write;
use std::io;

use dunlin_packets::{PacketId, QoS};

use super::Context;
use super::flow::{Flow, Plan, Readers};
use crate::audit::{Audience, Audit};
use crate::client::{Deaf, Greeting};
use crate::clock::MILLISECOND;

/// Two phases: store and fetch.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
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
    swarm.close(1, true);

    // Leave nothing behind: an empty payload takes the retained message away.
    for index in 0..params.messages {
        if let Some(client) = swarm.client(0) {
            let id = PacketId::new((index % 60_000) as u16 + 1);
            client.publish(&format!("{prefix}/{index}"), &[], QoS::AtLeastOnce, id, true);
        }
        if index % 64 == 0 {
            swarm.flush(0);
            swarm.poll(flow.cx.clock.now_ns() + MILLISECOND, &mut Deaf)?;
        }
    }
    swarm.flush(0);
    swarm.poll(flow.cx.clock.now_ns() + 100 * MILLISECOND, &mut Deaf)?;
    swarm.close_all();
    Ok(())
}
