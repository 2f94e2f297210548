//! Messages for sessions that are away, and then come for them.

use std::io;

use dunlin_packets::QoS;

use super::Context;
use super::flow::Flow;
use crate::audit::{Audience, Audit};
use crate::client::{Deaf, Greeting};

/// Two phases: the messages are stored, and drained.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let params = cx.params;
    let prefix = cx.prefix.clone();
    let qos = QoS::from_bits(params.qos).unwrap_or_default();
    let session = |number: usize| Greeting {
        client_id: format!("{prefix}-{number}"),
        keeps_session: true,
        filters: vec![format!("{prefix}/{number}")],
        qos,
    };
    let mut swarm = cx.swarm()?;
    swarm.connect_all((0..params.subscribers).map(session), None, &mut Deaf, |_, _| {})?;
    swarm.close_all();

    let publisher = Greeting { client_id: format!("{prefix}-p"), ..Greeting::default() };
    swarm.connect_all([publisher], None, &mut Deaf, |_, _| {})?;
    let audit = Audit::new(Audience::Partner, params.subscribers, params.subscribers, 0);
    let mut flow = Flow::new(cx, audit, false);
    flow.cx.meter.start("store", "message");
    let topic = |index: usize| {
        let number = index % params.subscribers;
        (number, format!("{prefix}/{number}"))
    };
    flow.publish(&mut swarm, 0, params.messages, false, topic, false)?;
    let mut phase = flow.cx.meter.finish(params.messages as u64, None);
    phase.notes = flow.notes();
    flow.cx.phases.push(phase);
    swarm.close_all();

    flow.cx.meter.start("drain", "delivery");
    // Without filters: the stored session has them.
    for number in 0..params.subscribers {
        swarm.open(Greeting { filters: Vec::new(), ..session(number) })?;
    }
    flow.receive(&mut swarm)?;
    let account = flow.audit.account();
    let mut phase = flow.cx.meter.finish(account.received, Some(account));
    // Those are the age of the backlog, not the broker's doing.
    phase.latency = None;
    flow.cx.phases.push(phase);
    swarm.close_all();

    // Leave nothing behind.
    let forget = |number| Greeting { keeps_session: false, filters: Vec::new(), ..session(number) };
    swarm.connect_all((0..params.subscribers).map(forget), None, &mut Deaf, |_, _| {})?;
    swarm.close_all();
    Ok(())
}
