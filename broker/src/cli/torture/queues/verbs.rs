//! What a consumer says about its messages, and what of it the broker has not acknowledged.

use std::collections::VecDeque;

use dunlin_packets::{Ack, Packet, PacketId, PropertiesBuf, Publish, QoS, ReasonCode};

use super::Group;
use super::delivery::MessageId;
use crate::cli::torture::flights::{Flights, WINDOW_MAX};
use crate::cli::torture::publication::QUEUE;
use crate::cli::torture::wire::{Broken, Greeting, Output};

/// What can be said about a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
    Ack,
    Nack,
    Extend,
}

impl Verb {
    fn name(self) -> &'static str {
        match self {
            Self::Ack => "$ack",
            Self::Nack => "$nack",
            Self::Extend => "$extend",
        }
    }
}

type Said = (Verb, MessageId);

/// The verbs of one consumer.
#[derive(Debug)]
pub(super) struct Verbs {
    due: VecDeque<Said>,
    flights: Flights<Said>,
    /// In flight at a time, at most.
    window: usize,
}

impl Verbs {
    pub(super) fn new() -> Self {
        Self { due: VecDeque::new(), flights: Flights::new(), window: WINDOW_MAX }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.due.is_empty() && self.flights.len() == 0
    }

    pub(super) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    pub(super) fn say(&mut self, verb: Verb, message: MessageId) {
        self.due.push_back((verb, message));
    }

    /// A connection begins. What was said is said again as long as the session is there
    /// \[MQTT-4.4.0-1\]; the messages of what was not are somebody else's by now.
    pub(super) fn resume(&mut self, greeting: Greeting, out: &mut Output) {
        self.window = WINDOW_MAX.min(usize::from(greeting.receive_maximum));
        self.due.clear();
        if !greeting.session_present {
            self.flights.clear();
        }
        for &(id, said) in self.flights.iter() {
            send(id, said, true, out);
        }
    }

    /// Whether something about the message is on its way.
    pub(super) fn is_said(&self, message: MessageId) -> bool {
        self.flights.iter().any(|(_, (_, said))| *said == message)
    }

    /// Sends what there is room for.
    pub(super) fn send(&mut self, out: &mut Output) {
        while self.flights.len() < self.window
            && let Some(&said) = self.due.front()
            && let Some(id) = self.flights.begin(said)
        {
            self.due.pop_front();
            send(id, said, false, out);
        }
    }

    /// A PUBACK came. Returns the message that is settled for good, if that is what it says.
    pub(super) fn on_ack(&mut self, ack: &Ack<'_>) -> Result<Option<MessageId>, Broken> {
        let Some((verb, message)) = self.flights.finish(ack.packet_id) else {
            return Err(Broken::Fault(format!("PUBACK {} for nothing", ack.packet_id)));
        };
        match ack.code {
            // The lease is over, or was another's before a kill.
            ReasonCode::NotAuthorized => Ok(None),
            code if code.is_error() => {
                Err(Broken::Fault(format!("{} {message}: {code:?}", verb.name())))
            }
            _ => Ok((verb == Verb::Ack).then_some(message)),
        }
    }
}

fn send(id: PacketId, (verb, message): Said, dup: bool, out: &mut Output) {
    let mut properties = PropertiesBuf::new();
    properties.push_user("message-id", message).push_user("group-id", Group::Verbs.name());
    out.push(&Packet::Publish(Publish {
        dup,
        qos: QoS::AtLeastOnce,
        retain: false,
        topic: &format!("$queue/{QUEUE}/{}", verb.name()),
        packet_id: Some(id),
        properties: properties.as_properties(),
        payload: &[],
    }));
}
