//! A subscriber with a persistent session, which does as the standard asks of a receiver.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_packets::{
    Ack, AckKind, FilterRequest, Packet, PacketId, Properties, Publish, QoS, ReasonCode, SubAck,
    Subscribe, SubscriptionOptions,
};
use dunlin_queue::Time;

use super::member::{Faults, Member};
use super::publication::Publication;
use super::receipts::{Interest, Receipts};
use super::shared::{Phase, Progress};
use super::wire::{Broken, Greeting, Link, Output};

/// How long a SUBACK may take.
pub(super) const SUBACK_LIMIT_MS: u64 = 60_000;
/// After so much silence a subscriber that has everything has no repetition to fear.
const QUIET_MS: u64 = 500;
/// After so much silence what is missing is lost.
pub(super) const LOST_MS: u64 = 60_000;
/// The longest time acknowledgements are held back.
const HOLD_MAX_MS: u64 = 5;
const READ_MS: u64 = 50;

/// When a subscriber is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// Whenever there is a broker.
    Steady,
    /// Now and then.
    Flaky,
    /// Once to subscribe, and again at the end.
    Offline,
}

/// A subscriber of the run.
#[derive(Debug)]
pub(super) struct Subscriber<'a> {
    member: Member<'a>,
    manner: Manner,
    receipts: Receipts,
    /// By publisher: the first sequence number that was sent after the SUBACK; `None` before.
    since: Option<Vec<u32>>,
    /// QoS 2 publications between PUBREC and PUBREL. "Method A" of section 4.3.3: the
    /// application has them, and the same identifier is no delivery until it is released.
    unreleased: HashSet<PacketId>,
    /// Held back, in the order they have to be sent in \[MQTT-4.6.0-2\] \[MQTT-4.6.0-3\].
    acks: VecDeque<Ack<'static>>,
    hold_until: Time,
    session_present: bool,
    scratch: Vec<u8>,
}

/// What a subscriber leaves behind.
#[derive(Debug)]
pub(super) struct SubscriberRecord {
    pub(super) client_id: String,
    pub(super) receipts: Receipts,
    pub(super) since: Option<Vec<u32>>,
    /// Whether the last CONNACK found the session.
    pub(super) session_present: bool,
    pub(super) faults: Faults,
}

impl<'a> Subscriber<'a> {
    pub(super) fn new(member: Member<'a>, manner: Manner, interest: Interest) -> Self {
        Self {
            manner,
            receipts: Receipts::new(interest, member.shared.next.len()),
            since: None,
            unreleased: HashSet::new(),
            acks: VecDeque::new(),
            hold_until: Time::default(),
            session_present: false,
            scratch: Vec::new(),
            member,
        }
    }

    /// Receives until everything that is due has come, or does not come any more.
    pub(super) fn run(mut self) -> SubscriberRecord {
        while self.wait_for_turn() {
            let Some((link, greeting)) = self.member.dial() else { break };
            match self.serve(link, greeting) {
                Ok(()) if self.phase() >= Phase::Drain => break,
                Ok(()) => {}
                Err(broken) => self.member.ended(broken),
            }
        }
        SubscriberRecord {
            client_id: self.member.identity.client_id,
            receipts: self.receipts,
            since: self.since,
            session_present: self.session_present,
            faults: self.member.faults,
        }
    }

    fn phase(&self) -> Phase {
        self.member.shared.phase()
    }

    /// Stays away as long as it is the subscriber's manner. `false` when the run is over.
    fn wait_for_turn(&mut self) -> bool {
        let shared = self.member.shared;
        match self.manner {
            Manner::Flaky if self.phase() == Phase::Torture => {
                let pause_ms = self.member.random.within(0..=150);
                shared.pause(pause_ms)
            }
            Manner::Offline if self.since.is_some() => {
                while self.phase() < Phase::Drain {
                    shared.pause(READ_MS);
                }
                self.phase() != Phase::Over
            }
            _ => self.phase() != Phase::Over,
        }
    }

    /// One connection. Returns when the subscriber leaves of its own will.
    fn serve(&mut self, mut link: Link, greeting: Greeting) -> Result<(), Broken> {
        let shared = self.member.shared;
        self.session_present = greeting.session_present;
        self.acks.clear();
        if !greeting.session_present {
            self.unreleased.clear();
        }
        let begun = shared.now();
        let mut waits_for_suback = self.since.is_none() || !greeting.session_present;
        if waits_for_suback {
            self.subscribe(&mut link.output);
        }
        let leave_at = begun.plus_millis(self.member.random.within(10..=500));
        let mut heard = begun;
        loop {
            self.acknowledge(&mut link.output);
            link.flush()?;
            if link.read(self.wait())? > 0 {
                heard = shared.now();
            }
            while let Some(packet) = link.input.next()? {
                waits_for_suback &= !self.on_packet(&packet)?;
            }
            let now = shared.now();
            if waits_for_suback {
                if now.millis_since(begun) > SUBACK_LIMIT_MS {
                    return Err(Broken::fault("no SUBACK in time"));
                }
                if self.member.is_over() {
                    return Ok(());
                }
                continue;
            }
            let leaves = match self.phase() {
                Phase::Over => true,
                Phase::Drain => self.has_drained(now.millis_since(heard)),
                Phase::LastRound => self.manner == Manner::Offline,
                Phase::Torture => match self.manner {
                    Manner::Steady => false,
                    Manner::Flaky => now >= leave_at,
                    Manner::Offline => true,
                },
            };
            if leaves {
                return self.leave(link);
            }
        }
    }

    /// With a DISCONNECT or without.
    fn leave(&mut self, link: Link) -> Result<(), Broken> {
        if self.member.random.one_in(2) { link.leave() } else { Ok(()) }
    }

    fn subscribe(&self, out: &mut Output) {
        let interest = &self.receipts.interest;
        let options = SubscriptionOptions { qos: interest.qos, ..SubscriptionOptions::default() };
        let filter = interest.filter();
        let requests = [FilterRequest { filter: &filter, options }];
        let version = self.member.identity.version;
        let properties = Properties::default();
        Subscribe::encode(version, PacketId::MIN, properties, &requests, &mut out.bytes);
    }

    fn has_drained(&self, silence_ms: u64) -> bool {
        if silence_ms < QUIET_MS || !self.acks.is_empty() {
            return false;
        }
        let (Some(since), Some(published)) = (&self.since, self.member.shared.published.get())
        else {
            return false;
        };
        let missing = self.receipts.missing(since, published);
        missing.iter().all(|missing| missing.len() == 0) || silence_ms >= LOST_MS
    }

    fn wait(&self) -> Duration {
        let hold_ms = self.hold_until.millis_since(self.member.shared.now());
        Duration::from_millis(if self.acks.is_empty() { READ_MS } else { hold_ms })
    }

    /// Sends some of the acknowledgements that were held back long enough.
    fn acknowledge(&mut self, out: &mut Output) {
        let now = self.member.shared.now();
        if now < self.hold_until || self.acks.is_empty() {
            return;
        }
        let random = &mut self.member.random;
        let len = self.acks.len() as u64;
        let count = random.within(len.div_ceil(2)..=len) as usize;
        for ack in self.acks.drain(..count) {
            out.push(&Packet::Ack(ack));
        }
        self.hold_until = now.plus_millis(random.within(0..=HOLD_MAX_MS));
    }

    /// `true` for the SUBACK.
    fn on_packet(&mut self, packet: &Packet<'_>) -> Result<bool, Broken> {
        match packet {
            Packet::Publish(publish) => self.on_publish(publish)?,
            Packet::Ack(ack) if ack.kind == AckKind::PubRel => {
                let is_known = self.unreleased.remove(&ack.packet_id);
                let code = ReasonCode::PacketIdentifierNotFound;
                let code = if is_known { ReasonCode::Success } else { code };
                self.acks.push_back(Ack { code, ..Ack::new(AckKind::PubComp, ack.packet_id) });
            }
            Packet::SubAck(suback) => {
                self.on_suback(suback)?;
                return Ok(true);
            }
            _ => return Err(Broken::Fault(format!("a subscriber got {packet:?}"))),
        }
        Ok(false)
    }

    fn on_suback(&mut self, suback: &SubAck<'_>) -> Result<(), Broken> {
        if suback.codes != [self.receipts.interest.qos as u8] {
            return Err(Broken::Fault(format!("a subscription was answered {:?}", suback.codes)));
        }
        // After the loss of a session the first SUBACK still holds: what was lost in between was.
        if self.since.is_none() {
            let next = self.member.shared.next.iter();
            self.since = Some(next.map(|next| next.load(Ordering::SeqCst)).collect());
        }
        Ok(())
    }

    fn on_publish(&mut self, publish: &Publish<'_>) -> Result<(), Broken> {
        let Some(id) = publish.packet_id else { return Err(Broken::fault("PUBLISH at QoS 0")) };
        if publish.qos == QoS::ExactlyOnce {
            self.acks.push_back(Ack::new(AckKind::PubRec, id));
            if !self.unreleased.insert(id) {
                return Ok(());
            }
        } else {
            self.acks.push_back(Ack::new(AckKind::PubAck, id));
        }
        let shared = self.member.shared;
        let publication = Publication::read(shared.seed, publish.payload, &mut self.scratch);
        let Some(publication) =
            publication.filter(|publication| self.is_due(*publication, publish))
        else {
            self.member.faults.mangled += 1;
            return Ok(());
        };
        Progress::count(&shared.progress.delivered);
        let since = self.since.as_ref().map(|since| since[usize::from(publication.source)]);
        let is_owed = since.is_some_and(|since| publication.sequence >= since);
        self.receipts.deliver(publication, is_owed);
        Ok(())
    }

    /// Whether the publication was sent, to this subscription's filter, and comes as it has to.
    fn is_due(&self, publication: Publication, publish: &Publish<'_>) -> bool {
        let interest = &self.receipts.interest;
        self.member.shared.is_sent(publication)
            && interest.covers(publication.source)
            && publish.topic == publication.topic()
            && publish.qos == publication.qos().min(interest.qos)
    }
}
