//! Messages for a partitioned queue, and consumers that come for them.

use std::fmt::Write;
use std::io;

use dunlin_packets::QoS;

use super::Context;
use super::flow::{Flow, Plan, Readers};
use crate::audit::{Audience, Audit};
use crate::client::{Deaf, Greeting};

/// Two phases: the messages are put into the queue, where nobody is yet, and taken out by one
/// group, which settles by PUBACK. Each publisher has a routing key of its own, so that its
/// messages have an order.
pub(super) fn run(cx: &mut Context<'_>) -> io::Result<()> {
    let params = cx.params;
    let prefix = cx.prefix.clone();
    let mut swarm = cx.swarm()?;
    let publisher =
        |number| Greeting { client_id: format!("{prefix}-p{number}"), ..Greeting::default() };
    swarm.connect_all((0..params.publishers).map(publisher), None, &mut Deaf, |_, _| {})?;
    let topic = |publisher: usize, _: usize, topic: &mut String| {
        let _ = write!(topic, "$queue/{prefix}/{publisher}");
        publisher
    };
    // Whoever of the group reads a message: it has to be one.
    let audit = Audit::new(Audience::Partner, params.publishers, params.publishers, 0);
    let mut flow = Flow::new(cx, audit, Readers::One);
    flow.cx.meter.start("enqueue", "message");
    let plan = Plan {
        publishers: 0..params.publishers,
        count: params.messages,
        window: params.window,
        is_reading: false,
        retain: false,
        weight: 1,
        topic,
    };
    flow.publish(&mut swarm, &plan)?;
    let mut phase = flow.cx.meter.finish(params.messages as u64, None);
    phase.notes = flow.notes();
    flow.cx.phases.push(phase);
    swarm.close_all();

    flow.cx.meter.start("dequeue and settle", "message");
    for number in 0..params.subscribers {
        swarm.open(Greeting {
            client_id: format!("{prefix}-c{number}"),
            filters: vec![format!("$share/bench/$queue/{prefix}")],
            qos: QoS::AtLeastOnce,
            ..Greeting::default()
        })?;
    }
    flow.receive(&mut swarm)?;
    let account = flow.audit.account();
    let mut phase = flow.cx.meter.finish(account.received, Some(account));
    // Those are the age of the backlog, not the broker's doing.
    phase.latency = None;
    // MQTT has no way to end it.
    phase.notes.push(format!("the empty queue {prefix} is left behind, until its group expires"));
    if swarm.broken > 0 {
        let why = swarm.last_error.take().unwrap_or_default();
        phase.notes.push(format!("{} connections ended, the last: {why}", swarm.broken));
    }
    flow.cx.phases.push(phase);
    swarm.close_all();
    Ok(())
}
