//! Messages for sessions that are away, and then come for them.

use std::fmt::Write;
use std::io;

use dunlin_packets::QoS;

use super::Context;
use super::flow::{Flow, Plan, Readers};
use crate::audit::{Audience, Audit};
use crate::client::{Deaf, Greeting};

/// Sessions that come back at a time.
const ARRIVING_MAX: usize = 100;

/// Two phases: the messages are stored, and drained. For `Everybody` there is one topic, and what
/// is stored is counted by deliveries; else every session has a topic of its own.
pub(super) fn run(cx: &mut Context<'_>, audience: Audience) -> io::Result<()> {
    let (prefix, params) = (cx.prefix.clone(), cx.params);
    let is_shared = audience == Audience::Everybody;
    let session = |number: usize| Greeting {
        client_id: format!("{prefix}-{number}"),
        keeps_session: true,
        filters: vec![format!("{prefix}/{}", if is_shared { 0 } else { number })],
        qos: QoS::from_bits(params.qos).unwrap_or_default(),
    };
    let result = store_and_drain(cx, audience, session);
    let forgotten = cx.forget((0..params.subscribers).map(session));
    result.and(forgotten)
}

fn store_and_drain(
    cx: &mut Context<'_>,
    audience: Audience,
    session: impl Fn(usize) -> Greeting,
) -> io::Result<()> {
    let params = cx.params;
    let prefix = cx.prefix.clone();
    let sessions = params.subscribers;
    let is_shared = audience == Audience::Everybody;
    let mut swarm = cx.swarm()?;
    swarm.connect_all((0..sessions).map(&session), None, &mut Deaf, |_, _| {})?;
    swarm.close_all();

    let publisher =
        |number| Greeting { client_id: format!("{prefix}-p{number}"), ..Greeting::default() };
    swarm.connect_all((0..params.publishers).map(publisher), None, &mut Deaf, |_, _| {})?;
    // A stream has one publisher and one topic, so that it has an order.
    let streams = if is_shared { params.publishers } else { params.publishers.max(sessions) };
    let topic = |publisher: usize, message: usize, topic: &mut String| {
        let own = (streams - publisher).div_ceil(params.publishers);
        let stream = publisher + params.publishers * (message % own);
        let _ = write!(topic, "{prefix}/{}", if is_shared { 0 } else { stream % sessions });
        stream
    };
    let readers = if is_shared { Readers::All } else { Readers::InTurn(sessions) };
    let audit = Audit::new(audience, streams, if is_shared { sessions } else { streams }, 0);
    let mut flow = Flow::new(cx, audit, readers);
    let weight = if is_shared { sessions as u64 } else { 1 };
    flow.cx.meter.start("store", if is_shared { "delivery" } else { "message" });
    let plan = Plan {
        publishers: 0..params.publishers,
        count: params.messages,
        window: params.window,
        is_reading: false,
        retain: false,
        weight,
        topic,
    };
    flow.publish(&mut swarm, &plan)?;
    let mut phase = flow.cx.meter.finish(params.messages as u64 * weight, None);
    phase.notes = flow.notes();
    flow.cx.phases.push(phase);
    swarm.close_all();

    flow.cx.meter.start("drain", "delivery");
    for number in 0..sessions {
        // Without filters: the stored session has them.
        swarm.open(Greeting { filters: Vec::new(), ..session(number) })?;
        if number % ARRIVING_MAX == ARRIVING_MAX - 1 {
            let (now, received) = (flow.cx.clock.now_ns(), flow.audit.received());
            flow.poll(&mut swarm, now, received)?;
        }
    }
    flow.receive(&mut swarm)?;
    let account = flow.audit.account();
    let mut phase = flow.cx.meter.finish(account.received, Some(account));
    // Those are the age of the backlog, not the broker's doing.
    phase.latency = None;
    if swarm.broken > 0 {
        let why = swarm.last_error.take().unwrap_or_default();
        phase.notes.push(format!("{} connections ended, the last: {why}", swarm.broken));
    }
    flow.cx.phases.push(phase);
    swarm.close_all();
    Ok(())
}
