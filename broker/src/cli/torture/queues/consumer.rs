//! A member of a consumer group, which comes and goes.

use std::collections::VecDeque;
use std::time::Duration;

use dunlin_packets::{
    Ack, AckKind, FilterRequest, Packet, PacketId, PropertiesBuf, Publish, QoS, ReasonCode,
    Subscribe, SubscriptionOptions,
};
use dunlin_queue::Time;

use super::delivery::{Attempt, Delivery, MessageId};
use super::verbs::{Verb, Verbs};
use super::{Group, QueueState};
use crate::cli::torture::member::{Faults, Member};
use crate::cli::torture::publication::{Publication, QUEUE};
use crate::cli::torture::shared::{Phase, Progress};
use crate::cli::torture::subscriber::SUBACK_LIMIT_MS;
use crate::cli::torture::wire::{Broken, Greeting, Link, Output};

/// Of so many messages one is refused, has its lease extended, or is forgotten.
const NACK_ONE_IN: u64 = 50;
const EXTEND_ONE_IN: u64 = 100;
const FORGET_ONE_IN: u64 = 1000;
const PREFETCH: std::ops::RangeInclusive<u64> = 20..=200;
/// How long a member that comes and goes stays, and stays away.
const STAY_MS: std::ops::RangeInclusive<u64> = 50..=1000;
const AWAY_MS: std::ops::RangeInclusive<u64> = 0..=150;
const READ_MS: u64 = 20;
/// How long answers are held back, mostly and once in so many times.
const HOLD_MS: std::ops::RangeInclusive<u64> = 0..=2;
const LONG_HOLD_MS: std::ops::RangeInclusive<u64> = 10..=200;
const LONG_HOLD_ONE_IN: u64 = 50;

/// A member of a group.
#[derive(Debug)]
pub(in crate::cli::torture) struct Consumer<'a> {
    member: Member<'a>,
    group: Group,
    /// Whether it comes and goes.
    is_flaky: bool,
    /// A SUBACK has come, to this session.
    is_subscribed: bool,
    prefetch: u64,
    /// PUBACKs, in the order they have to be sent in \[MQTT-4.6.0-2\].
    acks: VecDeque<Ack<'static>>,
    verbs: Verbs,
    hold_until: Time,
    scratch: Vec<u8>,
}

impl<'a> Consumer<'a> {
    pub(in crate::cli::torture) fn new(
        mut member: Member<'a>,
        group: Group,
        is_flaky: bool,
    ) -> Self {
        Self {
            group,
            is_flaky,
            is_subscribed: false,
            prefetch: member.random.within(PREFETCH),
            acks: VecDeque::new(),
            verbs: Verbs::new(),
            hold_until: Time::default(),
            scratch: Vec::new(),
            member,
        }
    }

    /// Consumes until nothing comes any more. Returns what went wrong.
    pub(in crate::cli::torture) fn run(mut self) -> Faults {
        while let Some((link, greeting)) = self.member.dial() {
            match self.serve(link, greeting) {
                Ok(()) if self.phase() >= Phase::Drain => break,
                Ok(()) => {
                    let pause_ms = self.member.random.within(AWAY_MS);
                    self.member.shared.pause(pause_ms);
                }
                Err(broken) => self.member.ended(broken),
            }
        }
        self.member.faults
    }

    fn phase(&self) -> Phase {
        self.member.shared.phase()
    }

    fn queue(&self) -> &'a QueueState {
        &self.member.shared.queue
    }

    /// One connection. Returns when the consumer leaves of its own will.
    fn serve(&mut self, mut link: Link, greeting: Greeting) -> Result<(), Broken> {
        self.acks.clear();
        self.is_subscribed &= greeting.session_present;
        if !self.is_subscribed {
            self.subscribe(&mut link.output);
        }
        self.verbs.resume(greeting, &mut link.output);
        let begun = self.member.shared.now();
        let leave_at = begun.plus_millis(self.member.random.within(STAY_MS));
        loop {
            self.answer(&mut link.output);
            link.flush()?;
            link.read(self.wait())?;
            while let Some(packet) = link.input.next()? {
                self.on_packet(&packet)?;
            }
            let now = self.member.shared.now();
            if !self.is_subscribed && now.millis_since(begun) > SUBACK_LIMIT_MS {
                return Err(Broken::fault("a consumer got no SUBACK in time"));
            }
            if self.leaves(now, leave_at) {
                if self.phase() == Phase::Drain && !self.verbs.is_empty() {
                    self.member.fault("verbs are not acknowledged");
                }
                return if self.member.random.one_in(2) { link.leave() } else { Ok(()) };
            }
        }
    }

    fn leaves(&self, now: Time, leave_at: Time) -> bool {
        match self.phase() {
            Phase::Torture => self.is_flaky && now >= leave_at,
            Phase::LastRound => false,
            Phase::Drain => {
                let (queue, shared) = (self.queue(), self.member.shared);
                let has_answered = self.acks.is_empty() && self.verbs.is_empty();
                queue.is_silent(shared) || has_answered && queue.is_drained(shared)
            }
            Phase::Over => true,
        }
    }

    fn subscribe(&self, out: &mut Output) {
        let version = self.member.identity.version;
        let mut properties = PropertiesBuf::new();
        let filter = if version.has_properties() {
            let settle = if self.group == Group::Auto { "auto" } else { "manual" };
            properties.push_user("consumer-group", self.group.name());
            properties.push_user("settle", settle).push_user("prefetch", self.prefetch);
            format!("$queue/{QUEUE}")
        } else {
            format!("$share/{}/$queue/{QUEUE}", self.group.name())
        };
        let options =
            SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
        let requests = [FilterRequest { filter: &filter, options }];
        // The identifiers of verbs begin at the other end.
        let id = PacketId::MAX;
        Subscribe::encode(version, id, properties.as_properties(), &requests, &mut out.bytes);
    }

    fn wait(&self) -> Duration {
        let hold_ms = self.hold_until.millis_since(self.member.shared.now());
        let has_answers = !self.acks.is_empty() || self.verbs.has_due();
        Duration::from_millis(if has_answers { hold_ms.min(READ_MS) } else { READ_MS })
    }

    /// Sends verbs and acknowledgements, some now and some later: what a kill or a leave meets is
    /// not settled.
    fn answer(&mut self, out: &mut Output) {
        let now = self.member.shared.now();
        let random = &mut self.member.random;
        if now < self.hold_until {
            return;
        }
        self.verbs.send(out);
        let held_back = random.within(0..=self.acks.len() as u64 / 2) as usize;
        let count = self.acks.len() - held_back;
        self.acks.drain(..count).for_each(|ack| out.push(&Packet::Ack(ack)));
        let is_long = random.one_in(LONG_HOLD_ONE_IN);
        let hold_ms = random.within(if is_long { LONG_HOLD_MS } else { HOLD_MS });
        self.hold_until = now.plus_millis(hold_ms);
    }

    fn on_packet(&mut self, packet: &Packet<'_>) -> Result<(), Broken> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish),
            Packet::Ack(ack) if ack.kind == AckKind::PubAck => {
                if let Some(message) = self.verbs.on_ack(ack)? {
                    let life = self.member.life();
                    self.queue().audit.lock().settle(self.group, message, life);
                }
                Ok(())
            }
            Packet::SubAck(suback) if suback.codes == [QoS::AtLeastOnce as u8] => {
                self.is_subscribed = true;
                self.queue().come(self.group);
                Ok(())
            }
            _ => Err(Broken::Fault(format!("a consumer got {packet:?}"))),
        }
    }

    fn on_publish(&mut self, publish: &Publish<'_>) -> Result<(), Broken> {
        let Some(id) = publish.packet_id.filter(|_| publish.qos == QoS::AtLeastOnce) else {
            return Err(Broken::Fault(format!("a delivery at {:?}", publish.qos)));
        };
        let shared = self.member.shared;
        let publication = Publication::read(shared.seed, publish.payload, &mut self.scratch);
        let publication = publication
            .filter(|it| it.is_queued() && shared.is_sent(*it) && it.topic() == publish.topic);
        let attempt = Attempt::read(self.group, publish.properties);
        let is_complete = attempt.is_some() || !self.member.identity.version.has_properties();
        let Some(publication) = publication.filter(|_| is_complete) else {
            self.member.faults.mangled += 1;
            self.acks.push_back(Ack::new(AckKind::PubAck, id));
            return Ok(());
        };
        let life = self.member.life();
        // A verb from before the kill may have settled it on its way here.
        let is_said = attempt.is_some_and(|attempt| self.verbs.is_said(attempt.message));
        let is_repeated = publish.dup || is_said;
        let delivery = Delivery { publication, attempt, is_repeated, life };
        self.queue().audit.lock().deliver(self.group, &delivery, shared.now());
        Progress::count(&shared.progress.delivered);
        let code = self.settle(attempt.map(|attempt| attempt.message));
        self.acks.push_back(Ack { code, ..Ack::new(AckKind::PubAck, id) });
        Ok(())
    }

    /// Decides what becomes of a message, and returns the code of its PUBACK.
    fn settle(&mut self, message: Option<MessageId>) -> ReasonCode {
        let is_torture = self.phase() == Phase::Torture;
        let random = &mut self.member.random;
        let is_refused = random.one_in(NACK_ONE_IN);
        match (self.group, message) {
            (Group::Auto, Some(_)) if is_refused => return ReasonCode::UnspecifiedError,
            (Group::Verbs, Some(message)) if !(is_torture && random.one_in(FORGET_ONE_IN)) => {
                if random.one_in(EXTEND_ONE_IN) {
                    self.verbs.say(Verb::Extend, message);
                }
                self.verbs.say(if is_refused { Verb::Nack } else { Verb::Ack }, message);
            }
            _ => {}
        }
        ReasonCode::Success
    }
}
