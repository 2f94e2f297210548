//! What a worker has on its way to the log, and who waits for it.
//!
//! Records gather in one frame a turn. What waits for them, answers to clients, messages, packets
//! that must not be sent before, is the frame's *cargo*: it is let go when the log says that it is
//! as far. Frames are written in the order of their submission, so cargo goes in that order too.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

use ahash::RandomState;
use dunlin_packets::PacketId;
use dunlin_queue::MessageRef;
use dunlin_storage::FRAME_HEADER_BYTES;

use super::conn::ConnId;
use super::mail::Answer;
use super::queues::{QueueJoined, QueuedCargo};
use super::recording::{Pending, Recording};
use super::sessions::{SessionId, SessionKey};
use super::shared::Returned;
use crate::store::record::Record;
use crate::store::{LogPort, LogState, ReadRequest, Submission, Wanted};

/// Cargo lists that are kept for the next frame.
pub(super) const SPARES_MAX: usize = 16;
/// Bytes of answers to one connection that wait.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A frame of so many bytes is submitted before the turn is over.
pub(super) const FRAME_BYTES: usize = 8 << 20;
/// Publications of one worker that wait for answers of others, above which it reads no more.
const PENDING_MAX: usize = 65_536;

/// Where workers ask for messages whose bytes are on disk only, and the reader is told of removed
/// segments.
#[derive(Clone, Debug)]
pub struct ReadRequests(Sender<ReadRequest>);

impl ReadRequests {
    /// Through this channel, to whoever reads.
    #[must_use]
    pub fn new(sender: Sender<ReadRequest>) -> Self {
        Self(sender)
    }

    /// The segments before `address` are removed.
    pub(crate) fn forget_before(&self, address: u64) {
        let _ = self.0.send(ReadRequest::ForgetBefore(address));
    }

    pub(super) fn ask(&self, worker: usize, wanted: Vec<Wanted>) {
        // Nobody reads any more when the broker ends.
        let _ = self.0.send(ReadRequest::Read { worker, wanted });
    }
}

/// A message that is in the log when its frame is.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) id: u64,
    /// Where it is in the frame.
    pub(super) offset: u64,
    /// Other workers that have to know, a bit each.
    pub(super) tell: u64,
}

/// What waits for a frame.
#[derive(Debug, Default)]
pub(super) struct Cargo {
    pub(super) messages: Vec<Kept>,
    /// Connections with answers that wait.
    pub(super) answers: Vec<ConnId>,
    /// Connections that are sent nothing before.
    pub(super) conns: Vec<ConnId>,
    /// The same, of clients that only come back: they need not wait where there is no room.
    pub(super) returning: Vec<ConnId>,
    /// Packets in flight that are sent then.
    pub(super) unholds: Vec<(SessionKey, PacketId)>,
    /// Of queues.
    pub(super) queued: Vec<QueuedCargo>,
}

impl Cargo {
    fn is_empty(&self) -> bool {
        self.messages.is_empty()
            && self.answers.is_empty()
            && self.conns.is_empty()
            && self.returning.is_empty()
            && self.unholds.is_empty()
            && self.queued.is_empty()
    }
}

/// A frame that was submitted.
#[derive(Debug)]
pub(super) struct UnderWay {
    pub(super) address: u64,
    pub(super) end: u64,
    pub(super) must_sync: bool,
    pub(super) number: u64,
    pub(super) cargo: Cargo,
}

/// Answers to one connection that wait for the log, in their order.
#[derive(Debug, Default)]
pub(super) struct HeldAnswers {
    bytes: Vec<u8>,
    /// Up to which byte they wait for which frame.
    marks: VecDeque<(u64, usize)>,
    /// Answers that wait for other workers first.
    pub(super) pending: usize,
}

/// A worker's side of the log.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) port: Arc<LogPort>,
    pub(super) requests: ReadRequests,
    /// The frame being made, and what waits for it.
    pub(super) frame: Vec<u8>,
    pub(super) cargo: Cargo,
    /// Somebody waits until it is synced.
    must_sync: bool,
    /// It is submitted even if there is nothing in it.
    pub(super) is_forced: bool,
    /// Frames are numbered.
    pub(super) number: u64,
    /// Bytes of the frames that were submitted.
    submitted: u64,
    pub(super) under_way: VecDeque<UnderWay>,
    pub(super) spares: Vec<Cargo>,
    pub(super) held: HashMap<ConnId, HeldAnswers, RandomState>,
    /// Sessions that have nothing to send before this message is kept, or loaded.
    pub(super) waiting: HashMap<u64, Vec<SessionKey>, RandomState>,
    /// Sessions that outlive a crash, by their number in the log.
    pub(super) sessions: HashMap<u64, SessionId, RandomState>,
    /// What goes to another member of its group when it is in the log, by number.
    pub(super) returned: HashMap<u64, Returned, RandomState>,
    /// Sessions that have no more to do with a message that is on its way to the log.
    pub(super) done_early: HashMap<u64, Vec<u64>, RandomState>,
    /// The message being routed has to be written down.
    pub(super) recording: Option<Recording>,
    /// Publications in the order they came, from the first that is not written down yet.
    pub(super) pending: VecDeque<Pending>,
    /// The ticket of the first of them.
    pub(super) first_ticket: u64,
    /// Answers to other workers that wait for the submission of the frame.
    pub(super) late_answers: Vec<(usize, Answer)>,
    /// And what they are told of consumers that a group was made for.
    pub(super) late_joins: Vec<(usize, QueueJoined)>,
    /// The last chunk of old records that was looked through.
    pub(super) cleaned: u64,
    /// Messages whose bytes may be let go at the end of the turn.
    pub(super) spillable: Vec<MessageRef>,
    /// The frame with the last end of a session.
    last_end: u64,
    /// The last frame that was synced, and let go.
    pub(super) synced: u64,
    /// The last state of the log that was acted on.
    pub(super) state: LogState,
}

impl Journal {
    pub(super) fn new(port: Arc<LogPort>, requests: ReadRequests) -> Self {
        let frame = port.frame();
        Self {
            port,
            requests,
            frame,
            cargo: Cargo::default(),
            must_sync: false,
            is_forced: false,
            number: 1,
            submitted: 0,
            under_way: VecDeque::new(),
            spares: Vec::new(),
            held: HashMap::default(),
            waiting: HashMap::default(),
            sessions: HashMap::default(),
            returned: HashMap::default(),
            done_early: HashMap::default(),
            recording: None,
            pending: VecDeque::new(),
            first_ticket: 1,
            late_answers: Vec::new(),
            late_joins: Vec::new(),
            cleaned: 0,
            spillable: Vec::new(),
            last_end: 0,
            synced: 0,
            state: LogState::Ok,
        }
    }

    /// Writes a record into this turn's frame. Says where in the frame's records a message's bytes
    /// begin.
    pub(super) fn write(&mut self, record: &Record<'_>) -> u64 {
        record.encode(&mut self.frame) as u64
    }

    /// Writes the end of a session into this turn's frame.
    pub(super) fn write_end(&mut self, sid: u64) {
        self.write(&Record::SessionEnd { sid });
        self.last_end = self.number;
    }

    /// Whether a session has ended of which a crash could bring back something.
    pub(super) fn has_unsafe_end(&self) -> bool {
        self.last_end > self.synced
    }

    /// Whether a crash takes nothing back of what was written down.
    pub(super) fn is_synced(&self) -> bool {
        self.is_frame_empty() && self.synced + 1 == self.number
    }

    /// This turn's frame is to be synced: somebody waits for it.
    pub(super) fn wait_for_frame(&mut self, must_sync: bool) {
        self.must_sync |= must_sync;
        self.is_forced = true;
    }

    /// Bytes that were written down so far.
    pub(super) fn bytes_written(&self) -> u64 {
        self.submitted + self.frame.len() as u64
    }

    /// So many bytes are written down because old segments are cleaned up.
    pub(super) fn note_moved(&self, bytes: u64) {
        self.port.figures.moved.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Whether everything that was written down has been submitted.
    pub(super) fn is_frame_empty(&self) -> bool {
        self.frame.len() == FRAME_HEADER_BYTES && !self.is_forced
    }

    /// Whether publishers have to wait for the log.
    pub(super) fn is_backed_up(&self) -> bool {
        self.port.is_backed_up()
            || self.frame.len() > 2 * FRAME_BYTES
            || self.pending.len() > PENDING_MAX
    }

    /// Whether everything that was written down is in the log, and everybody has been answered.
    pub(super) fn is_idle(&self) -> bool {
        let is_done = self.under_way.is_empty() && self.is_frame_empty() && self.pending.is_empty();
        is_done || self.state == LogState::Failed || self.port.is_stuck()
    }

    /// Whether answers to a connection wait, so that later ones have to queue up behind them.
    #[inline]
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        !self.held.is_empty() && self.held.contains_key(&conn)
    }

    /// Whether so many answers to a connection wait for the log that no more of its packets are
    /// read.
    pub(super) fn has_too_many_answers(&self, conn: ConnId) -> bool {
        self.held.get(&conn).is_some_and(|held| held.bytes.len() > ANSWER_BYTES_MAX)
    }

    /// Whether answers to a connection wait for the log.
    pub(super) fn has_answers(&self, conn: ConnId) -> bool {
        self.held.get(&conn).is_some_and(|held| !held.marks.is_empty())
    }

    /// Has an answer wait for what has been written down so far; `encode` appends it. `false` when
    /// there is nothing to wait for, and nothing was appended.
    pub(super) fn hold_answer(&mut self, conn: ConnId, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let (number, cargo) = if self.is_frame_empty() {
            match self.under_way.back_mut() {
                Some(last) => (last.number, &mut last.cargo),
                None => return false,
            }
        } else {
            (self.number, &mut self.cargo)
        };
        let held = self.held.entry(conn).or_default();
        encode(&mut held.bytes);
        let end = held.bytes.len();
        match held.marks.back_mut() {
            Some((last, mark)) if *last == number => *mark = end,
            _ => {
                held.marks.push_back((number, end));
                cargo.answers.push(conn);
            }
        }
        true
    }

    /// Takes the answers of a connection that wait for a frame up to `number` into `out`.
    pub(super) fn release_answers(&mut self, conn: ConnId, number: u64, out: &mut Vec<u8>) {
        let Some(held) = self.held.get_mut(&conn) else { return };
        let mut end = 0;
        while let Some(&(mark, to)) = held.marks.front()
            && mark <= number
        {
            end = to;
            held.marks.pop_front();
        }
        out.extend_from_slice(&held.bytes[..end]);
        held.bytes.drain(..end);
        for (_, to) in &mut held.marks {
            *to -= end;
        }
        if held.bytes.is_empty() && held.pending == 0 {
            self.held.remove(&conn);
        }
    }

    /// The connections that wait for what has no room: those that have to, and those of clients
    /// that only come back.
    pub(super) fn take_waiting_conns(&mut self) -> (Vec<ConnId>, Vec<ConnId>) {
        let has_answers = self.held.iter().filter(|(_, held)| !held.marks.is_empty());
        let mut waiting: Vec<_> = has_answers.map(|(&conn, _)| conn).collect();
        waiting.sort_unstable();
        let mut returning = Vec::new();
        let under_way = self.under_way.iter_mut().map(|frame| &mut frame.cargo);
        for cargo in under_way.chain([&mut self.cargo]) {
            waiting.append(&mut cargo.conns);
            returning.append(&mut cargo.returning);
        }
        (waiting, returning)
    }

    /// Takes what is under way, and will never arrive.
    pub(super) fn take_under_way(&mut self) -> impl Iterator<Item = Cargo> + use<> {
        std::mem::take(&mut self.under_way).into_iter().map(|frame| frame.cargo)
    }

    /// Submits the frame, if there is one and room for it.
    pub(super) fn submit(&mut self, worker: usize) -> bool {
        if self.is_frame_empty() && self.cargo.is_empty() || !self.port.has_room() {
            return false;
        }
        let frame = std::mem::replace(&mut self.frame, self.port.frame());
        let len = frame.len() as u64;
        let must_sync = std::mem::take(&mut self.must_sync);
        self.is_forced = false;
        let cleaned = self.cleaned;
        let submission = Submission { address: 0, frame, must_sync, worker, cleaned };
        let address = self.port.submit(submission);
        let cargo = std::mem::replace(&mut self.cargo, self.spares.pop().unwrap_or_default());
        let (end, number) = (address + len, self.number);
        self.under_way.push_back(UnderWay { address, end, must_sync, number, cargo });
        self.number += 1;
        self.submitted += len;
        true
    }
}
