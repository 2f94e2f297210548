//! Messages and pieces of the index that are on disk only are read back.

use dunlin_packets::{Properties, QoS};
use dunlin_queue::partitioned::{DeadReason, GroupId, Located, MemberId, MessageId};
use dunlin_queue::{MessageFields, MessageRef};

use super::contents::Content;
use super::dead::{NO_LETTER, Redriven, Undertaking};
use super::publish::{Asker, Receipt};
use super::{QueueKey, Refusal};
use crate::store::record::QueueContent;
use crate::store::{Loaded, Unread, Wanted};
use crate::worker::{Transport, Worker};

/// What a worker asks the reader for has the numbers of messages in the log; for queues, from here
/// on.
const NUMBERS_FROM: u64 = 1 << 63;

/// Bytes of a stored piece of the index.
const CHUNK_BYTES: usize = 6144;

/// Dead letters that are read at a time to be put back.
const REDRIVES_AT_ONCE: usize = 16;

/// Who waits for something that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    key: QueueKey,
    what: Loading,
}

#[derive(Clone, Copy, Debug)]
enum Loading {
    /// A message, for a member.
    Delivery(GroupId, MemberId, MessageId),
    /// A message, to become a dead letter.
    Dead(Dead),
    /// A dead letter, to be put back into this queue.
    Redriven(QueueKey, MessageId),
    /// A piece of the index.
    Chunk(u16, u64),
}

/// A message on its way to the dead letters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dead {
    pub(super) group: GroupId,
    pub(super) id: MessageId,
    pub(super) reason: DeadReason,
    pub(super) attempts: u32,
}

impl<T: Transport> Worker<T> {
    /// Asks for what a member waits for and is not in memory.
    pub(super) fn load_waiting(&mut self, key: QueueKey, group: GroupId, member: MemberId) {
        let Some(slot) = self.queues.get_mut(key) else { return };
        let Some(known) = slot.members.get_mut(&(group, member)) else { return };
        let mut wanted = Vec::new();
        for waiting in &mut known.waiting {
            waiting.is_late = true;
            if waiting.content.is_none() && !std::mem::replace(&mut waiting.is_asked, true) {
                wanted.push(waiting.delivery.id);
            }
        }
        for id in wanted {
            self.load(key, Loading::Delivery(group, member, id), id);
        }
    }

    /// Asks for a message that is to become a dead letter.
    pub(super) fn load_dead(&mut self, key: QueueKey, dead: Dead) {
        self.load(key, Loading::Dead(dead), dead.id);
    }

    /// Asks for a dead letter that is to be put back, for somebody who waits for that.
    pub(super) fn load_redriven(
        &mut self,
        graves: QueueKey,
        origin: QueueKey,
        id: MessageId,
        asker: Option<(usize, Asker)>,
    ) {
        let Undertaking { redriven, unread, .. } = &mut self.queues.undertaking;
        let redriven = redriven.entry((graves, id)).or_insert_with(|| {
            unread.push_back((graves, id));
            Redriven { origin, is_away: false, askers: Vec::new() }
        });
        redriven.askers.extend(asker);
    }

    /// Asks for dead letters that are to be put back, a few at a time: they may be large.
    pub(super) fn read_redriven(&mut self) {
        while self.queues.undertaking.being_read < REDRIVES_AT_ONCE {
            let undertaking = &mut self.queues.undertaking;
            let Some((graves, id)) = undertaking.unread.pop_front() else { return };
            let Some(Redriven { origin, .. }) = undertaking.redriven.get(&(graves, id)) else {
                continue;
            };
            let origin = *origin;
            undertaking.being_read += 1;
            self.load(graves, Loading::Redriven(origin, id), id);
        }
    }

    /// A piece of the index is there: dead letters in it are asked for again.
    fn redrive_again(&mut self, graves: QueueKey) {
        let Undertaking { redriven, unread, .. } = &mut self.queues.undertaking;
        for (&(of, id), redriven) in redriven {
            if of == graves && std::mem::take(&mut redriven.is_away) {
                unread.push_back((graves, id));
            }
        }
        self.read_redriven();
    }

    fn end_redrive(&mut self, graves: QueueKey, id: MessageId, result: Result<Receipt, Refusal>) {
        let undertaking = &mut self.queues.undertaking;
        undertaking.being_read = undertaking.being_read.saturating_sub(1);
        if let Some(redriven) = undertaking.redriven.remove(&(graves, id)) {
            self.answer_later(redriven.askers, result);
        }
    }

    fn load(&mut self, key: QueueKey, what: Loading, id: MessageId) {
        let located = self.with_queue(key, |queue, cx| queue.locate(id, cx));
        self.absorb(key);
        match located {
            Some(Located::At { position, bytes }) => self.ask(key, what, position, bytes as usize),
            // Who waits is asked again when its piece of the index is there.
            Some(Located::Away) => self.unask(key, what),
            Some(Located::Gone) | None => self.on_unreadable(key, what),
        }
    }

    fn ask(&mut self, key: QueueKey, what: Loading, position: u64, len: usize) {
        let number = self.queues.loads.insert(Load { key, what }) as u64;
        let wanted = Wanted { id: NUMBERS_FROM | number, position, len };
        self.queues.wanted.push(wanted);
        self.queues.is_busy = true;
    }

    /// Asks for a piece of the index.
    pub(super) fn load_chunk(&mut self, key: QueueKey, partition: u16, chunk: u64, position: u64) {
        self.ask(key, Loading::Chunk(partition, chunk), position, CHUNK_BYTES);
    }

    /// Takes what was read for a queue; gives back what was not.
    pub(in crate::worker) fn on_queue_loaded(&mut self, loaded: Loaded) -> Option<Loaded> {
        if loaded.wanted.id < NUMBERS_FROM {
            return Some(loaded);
        }
        let number = (loaded.wanted.id & !NUMBERS_FROM) as usize;
        let Load { key, what } = self.queues.loads.try_remove(number)?;
        let Wanted { position, len, .. } = loaded.wanted;
        match (loaded.content, what) {
            (Err(Unread::Failed), _) => self.ask(key, what, position, len),
            (Ok(bytes), Loading::Chunk(partition, chunk)) => {
                self.on_chunk_loaded(key, partition, chunk, &bytes);
            }
            (Err(Unread::Gone), Loading::Chunk(partition, chunk)) => {
                self.find_chunk(key, (partition, chunk), position);
            }
            (Ok(bytes), _) => match self.make_content(&bytes) {
                Some(content) => self.on_content(key, what, content),
                None => self.on_unreadable(key, what),
            },
            (
                Err(Unread::Gone),
                Loading::Delivery(_, _, id)
                | Loading::Redriven(_, id)
                | Loading::Dead(Dead { id, .. }),
            ) => {
                // It may have been moved while it was read.
                let located = self.with_queue(key, |queue, cx| queue.locate(id, cx));
                self.absorb(key);
                match located {
                    Some(Located::At { position: now, bytes }) if now != position => {
                        self.ask(key, what, now, bytes as usize);
                    }
                    Some(Located::Away) => self.unask(key, what),
                    _ => self.on_unreadable(key, what),
                }
            }
        }
        self.read_redriven();
        None
    }

    /// A piece of the index is not where it was: it may have been moved while it was read.
    fn find_chunk(&mut self, key: QueueKey, (partition, chunk): (u16, u64), was_at: u64) {
        let now = self.queues.get(key).and_then(|it| it.queue.wanted_at(partition, chunk));
        match now {
            Some(position) if position != was_at => {
                self.load_chunk(key, partition, chunk, position);
            }
            Some(position) => {
                tracing::error!(position, partition, chunk, "a part of a queue cannot be read");
                self.with_queue(key, |queue, cx| queue.lose_chunk(partition, chunk, cx));
                self.absorb(key);
                self.sweep_contents(key);
                // Who waits for something in it learns that it is gone.
                self.ask_again(key, partition);
            }
            None => {}
        }
    }

    fn on_chunk_loaded(&mut self, key: QueueKey, partition: u16, chunk: u64, bytes: &[u8]) {
        let is_taken = self.with_queue(key, |queue, cx| queue.load(partition, chunk, bytes, cx));
        if is_taken == Some(true) {
            self.note_moved(key, partition, chunk);
        }
        self.absorb(key);
        self.ask_again(key, partition);
    }

    /// A piece of the index is there: members that wait for messages in it ask again.
    fn ask_again(&mut self, key: QueueKey, partition: u16) {
        let Some(slot) = self.queues.get(key) else { return };
        let waits = |waiting: &super::Waiting| {
            waiting.delivery.id.partition == partition && waiting.content.is_none()
        };
        let members: Vec<_> = slot
            .members
            .iter()
            .filter(|(_, member)| member.waiting.iter().any(waits))
            .map(|(&(group, member), _)| (group, member))
            .collect();
        for (group, member) in members {
            self.load_waiting(key, group, member);
        }
        self.bury_again(key);
        self.redrive_again(key);
    }

    /// A message that could not be asked for.
    fn unask(&mut self, key: QueueKey, what: Loading) {
        match what {
            Loading::Delivery(group, member, id) => {
                let slot = self.queues.get_mut(key);
                let known = slot.and_then(|slot| slot.members.get_mut(&(group, member)));
                let waiting =
                    known.and_then(|it| it.waiting.iter_mut().find(|it| it.delivery.id == id));
                if let Some(waiting) = waiting {
                    waiting.is_asked = false;
                }
            }
            Loading::Dead(dead) => self.bury_later(key, dead),
            Loading::Redriven(_, id) => {
                let undertaking = &mut self.queues.undertaking;
                undertaking.being_read = undertaking.being_read.saturating_sub(1);
                if let Some(it) = undertaking.redriven.get_mut(&(key, id)) {
                    it.is_away = true;
                }
            }
            Loading::Chunk(..) => {}
        }
    }

    fn on_content(&mut self, key: QueueKey, what: Loading, content: Content) {
        match what {
            Loading::Delivery(group, member, id) => {
                let slot = self.queues.get_mut(key);
                let known = slot.and_then(|slot| slot.members.get_mut(&(group, member)));
                let waiting =
                    known.and_then(|it| it.waiting.iter_mut().find(|it| it.delivery.id == id));
                match waiting {
                    Some(waiting) => {
                        waiting.content = Some(content);
                        self.send_waiting(key, group, member);
                    }
                    // The member has gone.
                    None => self.pool.release(content.message),
                }
            }
            Loading::Dead(dead) => {
                self.bury_content(key, dead, &content);
                self.pool.release(content.message);
            }
            Loading::Redriven(origin, id) => {
                let result = self.redrive_content(key, origin, id, &content);
                if let Err(refusal) = result
                    && refusal != NO_LETTER
                {
                    tracing::warn!(reason = refusal.reason, ?id, "a dead letter stays one");
                }
                self.end_redrive(key, id, result);
                self.pool.release(content.message);
            }
            Loading::Chunk(..) => self.pool.release(content.message),
        }
    }

    /// A message that is not there any more, or cannot be read.
    fn on_unreadable(&mut self, key: QueueKey, what: Loading) {
        match what {
            Loading::Delivery(group, member, id) => {
                let is_needed = self.queues.get(key).is_some_and(|slot| slot.queue.is_needed(id));
                if is_needed {
                    self.counters.drop(dunlin_queue::DropReason::Unreadable);
                    tracing::error!(?id, "a message of a queue cannot be read back");
                }
                let slot = self.queues.get_mut(key);
                if let Some(known) = slot.and_then(|it| it.members.get_mut(&(group, member))) {
                    known.waiting.retain(|waiting| waiting.delivery.id != id);
                }
                // Otherwise it would come again for ever.
                let _ = self.with_queue(key, |queue, cx| queue.ack(group, member, id, cx));
                self.absorb(key);
                self.send_waiting(key, group, member);
                self.queues.list(key, group, member);
            }
            Loading::Dead(dead) => {
                self.counters.drop(dunlin_queue::DropReason::Unreadable);
                tracing::error!(id = ?dead.id, "a dead letter cannot be read back");
                let _ = self.with_queue(key, |queue, cx| queue.bury(dead.group, dead.id, cx));
                self.absorb(key);
            }
            Loading::Redriven(_, id) => {
                self.end_redrive(key, id, Err(NO_LETTER));
            }
            Loading::Chunk(..) => {}
        }
    }

    fn make_content(&mut self, bytes: &[u8]) -> Option<Content> {
        let stored = QueueContent::read(bytes).ok()?;
        let fields = MessageFields {
            topic: stored.topic,
            payload: stored.payload,
            properties: Properties::from_checked(stored.properties),
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: 0,
        };
        let message: MessageRef = self.pool.insert(&fields, self.now);
        self.pool.set_expiry(&message, stored.expires_at);
        let (at, is_captured) = (stored.at, stored.is_captured);
        Some(Content { message, at, key_at: 0, is_captured, is_only: false })
    }
}
