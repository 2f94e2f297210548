//! A publication that somebody has to get even if the broker crashes: from its routing to its
//! acknowledgement.
//!
//! ```text
//! route ──▶ deliveries noted here (Recording) ── and asked for from other workers ──▶ Pending
//!   Pending, all answers there ──▶ one record: message, deliveries, packet identifier ──▶ frame
//!   frame safe ──▶ PUBACK or PUBREC; sessions may send it; other workers are told where it is
//! ```
//!
//! One record holds everything, so a crash leaves all of it or nothing: the publisher that was not
//! acknowledged sends the message again, and nobody has got it before. Publications are written
//! down in the order they came in, as they have to be acknowledged in that order \[MQTT-4.6.0-2\]
//! \[MQTT-4.6.0-3\] and delivered in it after a restart.

use dunlin_packets::QoS;
use dunlin_queue::{Entry, MessageRef};

use super::acknowledge::Acknowledgement;
use super::journal::Kept;
use super::mail::{Answer, Copied, Mail, Ticket};
use super::queues::Refusal;
use super::sessions::SessionId;
use super::settings::Level;
use super::then::{Then, message_record};
use super::{Transport, Worker};
use crate::store::LogState;
use crate::store::record::{MessageRecord, Record, put_ref};

/// What is found out about a message while it is routed.
#[derive(Debug)]
pub(super) struct Recording {
    /// Deliveries to sessions that outlive a crash, encoded.
    pub(super) refs: Vec<u8>,
    /// Those under numbers of their own.
    copies: Vec<Copied>,
    /// The session of the last one.
    last_sid: u64,
    /// Other workers that were asked for theirs.
    pub(super) asked: u32,
    /// Members of share groups on other workers that it was sent to.
    pub(super) delegated: u32,
    /// Who writes the message down: somebody else with this ticket, or this worker.
    pub(super) ticket: Option<Ticket>,
    /// Something was written down for it that has to be safe as well.
    pub(super) is_recorded: bool,
    /// It went to a group: a member that keeps nothing may leave it to one that does.
    pub(super) is_shared: bool,
    /// A queue has captured it, and wants that synced.
    pub(super) must_sync: bool,
    /// A queue was to capture it and could not, or there was no room to retain it.
    pub(super) refusal: Option<Refusal>,
}

/// Where a delivery was noted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Noted {
    /// Among the others, from this byte on.
    At(usize),
    /// Behind all others, under a number of its own.
    Copy,
}

/// A publication that is not written down yet.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// The message, if it is to be written down.
    pub(super) message: Option<MessageRef>,
    /// Deliveries so far.
    refs: Vec<u8>,
    /// Those under numbers of their own, and the worker of each.
    copies: Vec<(usize, Copied)>,
    /// Workers that have not answered.
    asked: u32,
    /// Answers of workers that it was passed on to, less those that have come.
    delegated: i64,
    /// Workers that hold the message until it is safe.
    tell: u64,
    /// Another worker has written something down for it, which has to be safe too.
    is_recorded: bool,
    /// See [`Recording`].
    is_shared: bool,
    /// It is in a queue, if it was written down.
    is_for_queue: bool,
    must_sync: bool,
    ack: Option<Acknowledgement>,
    /// A delivery that is over once this one is written down.
    then: Option<Then>,
}

impl Pending {
    /// An acknowledgement that has nothing to wait for but its turn.
    pub(super) fn of(ack: Acknowledgement) -> Self {
        Self::new(Some(ack), None)
    }

    fn new(ack: Option<Acknowledgement>, then: Option<Then>) -> Self {
        Self { ack, then, ..Self::default() }
    }

    /// An acknowledgement that waits for another worker's answer, of a queue or of the retained
    /// store.
    pub(super) fn of_asked(ack: Acknowledgement) -> Self {
        Self { asked: 1, is_for_queue: true, ..Self::of(ack) }
    }

    /// What is to be written down when the home of a queue has a will.
    pub(super) fn of_will(then: Option<Then>) -> Self {
        Self { asked: 1, is_for_queue: true, ..Self::new(None, then) }
    }

    fn is_complete(&self) -> bool {
        self.asked == 0 && self.delegated == 0
    }
}

impl<T: Transport> Worker<T> {
    /// Whether a message of this topic and QoS is kept for sessions that outlive a crash. One at
    /// QoS 0 that may be delivered at a higher one is, as long as that is possible: it cannot be
    /// refused.
    pub(super) fn is_kept(&self, message: &MessageRef) -> bool {
        let Some(journal) = &self.journal else { return false };
        let content = self.pool.get(message);
        let has_durable = journal.port.has_durable_sessions();
        let is_for_somebody = match content.qos {
            QoS::AtMostOnce => {
                let settings = &self.shared.settings;
                settings.upgrade_qos && has_durable && journal.port.state() == LogState::Ok
            }
            _ => content.retain || has_durable,
        };
        is_for_somebody && self.shared.settings.durability.level(content.topic()) != Level::Memory
    }

    /// Begins to note who has to get a message, if it is kept. Says whether it is; then
    /// [`Self::end_recording`] has to follow when it is routed.
    #[inline]
    pub(super) fn begin_recording(&mut self, message: &MessageRef) -> bool {
        if self.journal.is_none() || !self.is_kept(message) {
            return false;
        }
        self.begin_recording_for(message, None);
        true
    }

    /// As [`Self::begin_recording`], for the worker that has given `ticket` out.
    pub(super) fn begin_recording_for(&mut self, message: &MessageRef, ticket: Option<Ticket>) {
        // What came before goes into its own record.
        self.settle_run();
        self.number(message);
        let Some(journal) = &mut self.journal else { return };
        journal.recording = Some(Recording {
            refs: Vec::new(),
            copies: Vec::new(),
            last_sid: 0,
            asked: 0,
            delegated: 0,
            ticket,
            is_recorded: false,
            is_shared: false,
            must_sync: false,
            refusal: None,
        });
    }

    /// Gives a message its number in the log, unless it has one.
    pub(super) fn number(&mut self, message: &MessageRef) {
        let Some(journal) = &self.journal else { return };
        if self.pool.get(message).id == 0 {
            self.pool.number(message, journal.port.message_number());
        }
    }

    /// A copy of a message under a number of its own. A session that has been done with a message
    /// once is so for good, for all the log can tell: what it is to get again has to be another.
    pub(super) fn renumbered(&mut self, message: &MessageRef) -> MessageRef {
        let Some(journal) = &self.journal else { return self.pool.share(message) };
        let number = journal.port.message_number();
        let mut copy = self.pool.copy(message);
        copy.id = number;
        self.pool.adopt(&mut copy)
    }

    /// Where other workers are to send what they find out about the message being routed.
    pub(super) fn recording_ticket(&mut self, is_delegation: bool) -> Option<Ticket> {
        let worker = self.index as u16;
        let journal = self.journal.as_mut()?;
        let next = journal.first_ticket + journal.pending.len() as u64;
        let recording = journal.recording.as_mut()?;
        if is_delegation {
            recording.delegated += 1;
        } else {
            recording.asked += 1;
        }
        Some(recording.ticket.unwrap_or(Ticket { worker, number: next }))
    }

    /// Notes a delivery to a session that outlives a crash. Says where it stands, to take it back.
    ///
    /// One session and one number make one delivery for the log. What a session gets through a
    /// group it may get beside it, and with a copy for each subscription it gets several: such
    /// copies have numbers of their own.
    pub(super) fn note_delivery(&mut self, session: SessionId, entry: &mut Entry) -> Option<Noted> {
        let slot = self.sessions.get(session);
        let sid = slot.durable.as_deref().filter(|_| entry.qos != QoS::AtMostOnce)?.sid;
        let journal = self.journal.as_mut().filter(|journal| journal.state != LogState::Failed)?;
        let recording = journal.recording.as_mut()?;
        let is_copy = entry.group != 0 || recording.last_sid == sid;
        recording.last_sid = sid;
        if is_copy {
            let copy = self.renumbered(&entry.message);
            self.pool.release(std::mem::replace(&mut entry.message, copy));
        }
        let recording = self.journal.as_mut()?.recording.as_mut()?;
        let mut copied = Copied { id: self.pool.get(&entry.message).id, refs: Vec::new() };
        let before = recording.refs.len();
        let refs = if is_copy { &mut copied.refs } else { &mut recording.refs };
        let mut one = [0];
        let identifiers = self.pool.identifier_slice(&entry.identifiers, &mut one);
        put_ref(sid, entry.qos, entry.retain, identifiers, refs);
        let noted = if is_copy { Noted::Copy } else { Noted::At(before) };
        if is_copy {
            recording.copies.push(copied);
        }
        self.pool.hold(&entry.message);
        Some(noted)
    }

    /// The session did not take the delivery after all.
    pub(super) fn take_delivery_back(&mut self, noted: Noted) {
        let journal = self.journal.as_mut();
        let Some(recording) = journal.and_then(|journal| journal.recording.as_mut()) else {
            return;
        };
        match noted {
            Noted::At(before) => recording.refs.truncate(before),
            Noted::Copy => drop(recording.copies.pop()),
        }
    }

    /// The message has been routed: it is written down when all have answered, and acknowledged
    /// when that is safe.
    pub(super) fn end_recording(
        &mut self,
        message: &MessageRef,
        ack: Option<Acknowledgement>,
        then: Option<Then>,
    ) {
        let level = self.shared.settings.durability.level(self.pool.get(message).topic());
        let Some(journal) = &mut self.journal else { return };
        let Some(recording) = journal.recording.take() else { return };
        let message = self.pool.share(message);
        let Recording { refs, copies, asked, delegated, is_recorded, is_shared, .. } = recording;
        let index = self.index;
        let ack = ack.map(|mut ack| {
            ack.refuse(recording.refusal);
            ack
        });
        if let Some(ack) = &ack {
            journal.held.entry(ack.publisher.conn).or_default().pending += 1;
        }
        journal.pending.push_back(Pending {
            message: Some(message),
            refs,
            copies: copies.into_iter().map(|copied| (index, copied)).collect(),
            asked,
            delegated: i64::from(delegated),
            tell: 0,
            is_recorded,
            is_shared,
            is_for_queue: false,
            must_sync: recording.must_sync || level == Level::Fsync,
            ack,
            then,
        });
        self.settle_pending();
    }

    /// Tells the worker that asked what was found out about the message being routed.
    pub(super) fn answer_recording(&mut self, is_delegated: bool) {
        let Some(journal) = &mut self.journal else { return };
        let Some(recording) = journal.recording.take() else { return };
        let Some(ticket) = recording.ticket else { return };
        let delegated = recording.delegated;
        let answer = Answer {
            ticket: ticket.number,
            refs: recording.refs,
            copies: recording.copies,
            delegated,
            is_delegated,
            is_recorded: recording.is_recorded,
            is_shared: recording.is_shared,
            must_sync: recording.must_sync,
            refusal: recording.refusal,
        };
        let to = usize::from(ticket.worker);
        if answer.is_recorded && to != self.index {
            // It says that this turn's frame is on its way.
            return journal.late_answers.push((to, answer));
        }
        self.answer(to, answer);
    }

    /// Sends an answer to the worker that has given its ticket out.
    pub(super) fn answer(&mut self, to: usize, answer: Answer) {
        if to == self.index {
            self.on_answer(to, answer);
        } else {
            self.mail(to, Mail::Answer(Box::new(answer)));
        }
    }

    /// A worker that was asked has answered.
    pub(super) fn on_answer(&mut self, from: usize, answer: Answer) {
        let Some(journal) = &mut self.journal else { return };
        let at = answer.ticket.wrapping_sub(journal.first_ticket) as usize;
        let Some(pending) = journal.pending.get_mut(at) else { return };
        if answer.is_delegated {
            pending.delegated -= 1;
        } else {
            pending.asked -= 1;
        }
        pending.delegated += i64::from(answer.delegated);
        pending.is_recorded |= answer.is_recorded;
        pending.is_shared |= answer.is_shared;
        pending.must_sync |= answer.must_sync;
        if let Some(ack) = &mut pending.ack {
            ack.refuse(answer.refusal);
        }
        pending.copies.extend(answer.copies.into_iter().map(|copied| (from, copied)));
        if !answer.refs.is_empty() {
            pending.refs.extend_from_slice(&answer.refs);
            pending.tell |= 1 << from;
        }
        self.settle_pending();
    }

    /// Writes down what is complete, in order.
    pub(super) fn settle_pending(&mut self) {
        while let Some(journal) = &mut self.journal
            && journal.pending.front().is_some_and(Pending::is_complete)
            && let Some(pending) = journal.pending.pop_front()
        {
            journal.first_ticket += 1;
            self.write_down(pending);
        }
    }

    fn write_down(&mut self, pending: Pending) {
        let Pending { message, refs, copies, tell, is_recorded, must_sync, ack, .. } = pending;
        let is_written = !refs.is_empty() || !copies.is_empty();
        // Also of a message that nobody has to get, its publisher's packet identifier is kept.
        let is_receipt = message.is_some()
            && ack.as_ref().is_some_and(|ack| self.outlives_crash(ack) && !ack.code.is_error());
        let Some(journal) = &mut self.journal else { return };
        let is_recorded = is_recorded || is_receipt;
        if let Some(message) = message {
            let mut write = |id: Option<u64>, refs: &[u8], tell: u64| {
                let record = message_record(&self.pool, &message, refs, false);
                let id = id.unwrap_or(record.id);
                let offset = journal.write(&Record::Message(MessageRecord { id, ..record }));
                let tell = tell & !(1 << self.index);
                journal.cargo.messages.push(Kept { id, offset, tell });
            };
            if !refs.is_empty() {
                write(None, &refs, tell);
            }
            for (worker, Copied { id, refs }) in &copies {
                write(Some(*id), refs, 1 << worker);
            }
            self.pool.release(message);
        }
        if let Some(then) = pending.then {
            self.write_then(then);
        }
        let Some(journal) = &mut self.journal else { return };
        if is_written || is_recorded {
            journal.wait_for_frame(must_sync);
        }
        let may_be_kept =
            is_written || is_receipt || pending.is_shared || pending.is_for_queue && is_recorded;
        if let Some(ack) = ack {
            let level = match must_sync {
                _ if !is_written && !is_recorded => Level::Memory,
                true => Level::Fsync,
                false => Level::Interval,
            };
            self.acknowledge_behind(ack, level, may_be_kept);
        }
        self.submit_if_large();
    }
}
