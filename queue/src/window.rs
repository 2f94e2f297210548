//! What a session was sent and has not acknowledged.

use std::collections::VecDeque;

use dunlin_packets::{PacketId, QoS};

use crate::{Entry, MessagePool};

/// How far a delivery is.
///
/// ```text
///            QoS 1                       QoS 2
/// Publish ── PUBACK ──▶ (gone)    Publish ── PUBREC ──▶ Release ── PUBCOMP ──▶ (gone)
///                                    └── PUBREC >= 0x80 ──▶ (gone)
/// ```
#[derive(Debug, PartialEq, Eq)]
pub enum Stage {
    /// PUBLISH was sent.
    Publish(Entry),
    /// PUBREC came, PUBREL was sent: the message is the client's \[MQTT-4.3.3-6\].
    Release,
    /// Acknowledged, while an older one is not.
    Done,
}

/// One delivery in flight.
#[derive(Debug, PartialEq, Eq)]
pub struct InFlight {
    /// Its packet identifier, from the first sending until it is done.
    pub packet_id: PacketId,
    /// How far it is.
    pub stage: Stage,
    /// Sent (again) on the present connection.
    pub sent: bool,
    /// Counts against the client's receive maximum on the present connection.
    pub counted: bool,
    /// Its next packet, PUBLISH or PUBREL, has never been sent: it is no repetition.
    pub fresh: bool,
    /// Its next packet is not sent before the log has its packet identifier or its stage.
    pub held: bool,
}

impl InFlight {
    #[inline]
    fn waits_for_puback(&self) -> bool {
        matches!(&self.stage, Stage::Publish(entry) if entry.qos == QoS::AtLeastOnce)
    }
}

/// Deliveries in flight, in the order of their first sending.
///
/// Packet identifiers are given out in turn, so the order is also that of the identifiers (but for
/// the wrap at 65,535) and an acknowledgement is found by binary search, if not at the front.
#[derive(Debug, Default)]
pub struct Window {
    slots: VecDeque<InFlight>,
    done: usize,
    last_id: u16,
    /// An identifier was skipped because an old one is still in use: search one by one.
    unordered: bool,
    /// Deliveries that count against the receive maximum.
    counted: usize,
    bytes: usize,
    /// Everything before this place has been sent on the present connection.
    resend_at: usize,
}

impl Window {
    /// Deliveries in flight.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.done
    }

    /// Whether nothing is in flight.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Deliveries that count against the receive maximum of this connection \[MQTT-4.9.0-1\].
    #[inline]
    #[must_use]
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// Bytes of the messages in flight.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The next free packet identifier \[MQTT-2.2.1-4\]; `None` when all 65,535 are in use.
    pub fn next_id(&mut self) -> Option<PacketId> {
        for _ in 0..=u16::MAX {
            self.last_id = self.last_id.wrapping_add(1);
            let Some(id) = PacketId::new(self.last_id) else { continue };
            if self.is_behind(id) || self.find(id).is_none() {
                return Some(id);
            }
        }
        None
    }

    /// The first of so many identifiers in a row, for [`Self::push_run`]. `None` where those that
    /// come next are not in a row or may not be free: [`Self::next_id`] finds them one by one.
    #[must_use]
    pub fn next_run(&mut self, count: usize) -> Option<PacketId> {
        let count = u16::try_from(count).ok()?;
        let first = PacketId::new(self.last_id.checked_add(1)?)?;
        let last = PacketId::new(self.last_id.checked_add(count)?)?;
        let is_free = self.is_behind(first)
            && self
                .slots
                .front()
                .is_none_or(|front| steps(front.packet_id, first) <= steps(front.packet_id, last));
        is_free.then(|| {
            self.last_id = last.get();
            first
        })
    }

    /// Whether an identifier comes behind all that are in use, in the order of the slots.
    #[inline]
    fn is_behind(&self, id: PacketId) -> bool {
        let (Some(front), Some(back)) = (self.slots.front(), self.slots.back()) else {
            return true;
        };
        !self.unordered && steps(front.packet_id, id) > steps(front.packet_id, back.packet_id)
    }

    /// The identifier that [`Self::next_id`] gave last.
    #[must_use]
    pub fn last_id(&self) -> Option<PacketId> {
        PacketId::new(self.last_id)
    }

    /// Takes back the identifier that [`Self::next_id`] gave last: nothing was sent under it.
    pub fn return_id(&mut self, id: PacketId) {
        self.last_id = id.get() - 1;
    }

    /// Puts a delivery in flight that is being sent under `packet_id`, which
    /// [`Self::next_id`] gave.
    #[inline(always)]
    pub fn push(&mut self, packet_id: PacketId, entry: Entry, pool: &MessagePool) {
        self.note_order(packet_id);
        self.bytes += entry.len(pool);
        self.counted += 1;
        let stage = Stage::Publish(entry);
        let (fresh, held) = (false, false);
        self.slots.push_back(InFlight { packet_id, stage, sent: true, counted: true, fresh, held });
    }

    /// Puts deliveries in flight that are being sent under the identifiers from `first` on, which
    /// [`Self::next_run`] gave, with messages of so many bytes together.
    #[inline]
    pub fn push_run(
        &mut self,
        first: PacketId,
        entries: impl ExactSizeIterator<Item = Entry>,
        bytes: usize,
    ) {
        self.bytes += bytes;
        self.counted += entries.len();
        let ids = (first.get()..=self.last_id).filter_map(PacketId::new);
        self.slots.extend(entries.zip(ids).map(|(entry, packet_id)| {
            let stage = Stage::Publish(entry);
            let (fresh, held) = (false, false);
            InFlight { packet_id, stage, sent: true, counted: true, fresh, held }
        }));
    }

    /// Identifiers are in the order of the slots, unless one was skipped.
    #[inline]
    fn note_order(&mut self, packet_id: PacketId) {
        self.unordered |= !self.is_behind(packet_id);
    }

    /// Puts a delivery in flight whose PUBLISH is to be sent when [`Self::unhold`] says so.
    pub fn push_held(&mut self, packet_id: PacketId, entry: Entry, pool: &MessagePool) {
        self.push(packet_id, entry, pool);
        if let Some(slot) = self.slots.back_mut() {
            (slot.sent, slot.fresh, slot.held) = (false, true, true);
        }
        self.resend_at = self.resend_at.min(self.slots.len() - 1);
    }

    /// Puts a delivery in flight that an earlier run of the broker had, behind all others; `None`
    /// for one that is as far as PUBREL. It is to be sent again.
    pub fn restore(&mut self, packet_id: PacketId, entry: Option<Entry>, pool: &MessagePool) {
        match entry {
            Some(entry) => self.push(packet_id, entry, pool),
            None => {
                self.note_order(packet_id);
                self.counted += 1;
                let stage = Stage::Release;
                let (sent, counted, fresh, held) = (true, true, false, false);
                self.slots.push_back(InFlight { packet_id, stage, sent, counted, fresh, held });
            }
        }
        self.last_id = packet_id.get();
        self.restart();
    }

    /// The log has what the delivery under `id` waited for: it can be sent.
    pub fn unhold(&mut self, id: PacketId) {
        if let Some(at) = self.find(id) {
            self.slots[at].held = false;
            if !self.slots[at].sent {
                self.resend_at = self.resend_at.min(at);
            }
        }
    }

    #[inline]
    fn find(&self, id: PacketId) -> Option<usize> {
        let front = self.slots.front()?.packet_id;
        if front == id && self.slots[0].stage != Stage::Done {
            return Some(0);
        }
        let at = if self.unordered {
            self.slots.iter().position(|slot| slot.packet_id == id && slot.stage != Stage::Done)?
        } else {
            let key = steps(front, id);
            self.slots.binary_search_by_key(&key, |slot| steps(front, slot.packet_id)).ok()?
        };
        (self.slots[at].stage != Stage::Done).then_some(at)
    }

    /// The stage of the delivery under `id`.
    #[must_use]
    pub fn stage(&self, id: PacketId) -> Option<&Stage> {
        self.find(id).map(|at| &self.slots[at].stage)
    }

    /// Ends the QoS 1 delivery under `id`: PUBACK. The entry is the caller's to release; `None`
    /// where there is no such delivery.
    #[inline]
    pub fn acknowledge(&mut self, id: PacketId, pool: &MessagePool) -> Option<Entry> {
        let front = self.slots.front()?;
        if front.packet_id != id || !front.waits_for_puback() || self.done > 0 {
            let at = self.find(id)?;
            return self.slots[at].waits_for_puback().then(|| self.finish(id, pool))??;
        }
        // The oldest, as a client does that answers in order [MQTT-4.6.0-2].
        self.uncount(0);
        let slot = self.slots.pop_front()?;
        self.resend_at = self.resend_at.saturating_sub(1);
        self.unordered &= !self.slots.is_empty();
        self.take_entry(slot.stage, pool)
    }

    /// Ends the delivery under `id`: PUBACK, PUBCOMP, or a refusal. The entry, if it had not been
    /// given to the client before, is the caller's to release.
    pub fn finish(&mut self, id: PacketId, pool: &MessagePool) -> Option<Option<Entry>> {
        let at = self.find(id)?;
        self.uncount(at);
        let stage = std::mem::replace(&mut self.slots[at].stage, Stage::Done);
        self.slots[at].sent = true;
        self.done += 1;
        self.tidy();
        Some(self.take_entry(stage, pool))
    }

    /// PUBREC came for `id`: from here on only PUBREL is sent. The entry is the caller's to
    /// release; `None` inside when it had come before.
    pub fn release(&mut self, id: PacketId, pool: &MessagePool) -> Option<Option<Entry>> {
        let at = self.find(id)?;
        self.slots[at].fresh = false;
        let stage = std::mem::replace(&mut self.slots[at].stage, Stage::Release);
        Some(self.take_entry(stage, pool))
    }

    /// Whether the next packet for `id` waits for [`Self::unhold`].
    #[must_use]
    pub fn is_held(&self, id: PacketId) -> bool {
        self.find(id).is_some_and(|at| self.slots[at].held)
    }

    /// PUBREL for `id` is not to be sent before [`Self::unhold`].
    pub fn hold_release(&mut self, id: PacketId) {
        if let Some(at) = self.find(id) {
            (self.slots[at].sent, self.slots[at].held) = (false, true);
            self.resend_at = self.resend_at.min(at);
        }
    }

    fn take_entry(&mut self, stage: Stage, pool: &MessagePool) -> Option<Entry> {
        let Stage::Publish(entry) = stage else { return None };
        self.bytes -= entry.len(pool);
        Some(entry)
    }

    fn uncount(&mut self, at: usize) {
        if std::mem::take(&mut self.slots[at].counted) {
            self.counted -= 1;
        }
    }

    fn tidy(&mut self) {
        while self.slots.front().is_some_and(|slot| slot.stage == Stage::Done) {
            self.slots.pop_front();
            self.done -= 1;
            self.resend_at = self.resend_at.saturating_sub(1);
        }
        if self.done > 32 && self.done * 2 > self.slots.len() {
            self.slots.retain(|slot| slot.stage != Stage::Done);
            self.done = 0;
            self.resend_at = 0;
        }
        self.unordered &= !self.slots.is_empty();
    }

    /// A new connection begins: everything in flight is to be sent again, and nothing counts yet.
    pub fn restart(&mut self) {
        for slot in &mut self.slots {
            slot.sent = slot.stage == Stage::Done;
            slot.counted = false;
        }
        self.counted = 0;
        self.resend_at = 0;
    }

    /// The first delivery that has not been sent on this connection, and where it stands; with
    /// `releases_only`, the first that is as far as PUBREL.
    #[must_use]
    pub fn next_unsent(&self, releases_only: bool) -> Option<(usize, &InFlight)> {
        let rest = self.slots.range(self.resend_at.min(self.slots.len())..).enumerate();
        let mut rest = rest.map(|(behind, slot)| (self.resend_at + behind, slot));
        rest.find(|(_, slot)| {
            !slot.sent && !slot.held && (!releases_only || slot.stage == Stage::Release)
        })
    }

    /// The delivery [`Self::next_unsent`] found has been sent.
    pub fn mark_sent(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        (slot.sent, slot.fresh) = (true, false);
        if at == self.resend_at {
            self.resend_at += 1;
        }
        if !slot.counted {
            slot.counted = true;
            self.counted += 1;
        }
    }

    /// All deliveries in flight, in order.
    pub fn iter(&self) -> impl Iterator<Item = &InFlight> {
        self.slots.iter().filter(|slot| slot.stage != Stage::Done)
    }

    /// Takes everything out, for a session that ends. The entries are the caller's to release.
    pub fn drain(&mut self) -> impl Iterator<Item = Entry> + use<> {
        let slots = std::mem::take(self).slots;
        slots.into_iter().filter_map(|slot| match slot.stage {
            Stage::Publish(entry) => Some(entry),
            Stage::Release | Stage::Done => None,
        })
    }

    /// Ends the deliveries that `wanted` says and that the client has not got for certain, and
    /// takes their entries.
    pub fn extract(
        &mut self,
        pool: &MessagePool,
        mut wanted: impl FnMut(&Entry) -> bool,
    ) -> Vec<Entry> {
        let mut is_wanted =
            |slot: &InFlight| matches!(&slot.stage, Stage::Publish(entry) if wanted(entry));
        let slots = self.slots.iter().filter(|slot| is_wanted(slot));
        let ids: Vec<PacketId> = slots.map(|slot| slot.packet_id).collect();
        ids.into_iter().filter_map(|id| self.finish(id, pool).flatten()).collect()
    }

    /// Gives memory back that an earlier burst needed.
    pub fn shrink(&mut self) {
        if self.slots.capacity() > 4 * self.slots.len() {
            self.slots.shrink_to(self.slots.len());
        }
    }
}

/// How far an identifier is behind another, as they are given out.
#[inline]
fn steps(from: PacketId, to: PacketId) -> u16 {
    to.get().wrapping_sub(from.get())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Identifiers, MessageFields, Time};
    use dunlin_packets::Properties;

    fn entry(pool: &mut MessagePool) -> Entry {
        let fields = MessageFields {
            topic: "t",
            payload: b"",
            properties: Properties::default(),
            qos: QoS::AtLeastOnce,
            retain: false,
            publisher: 0,
        };
        let message = pool.insert(&fields, Time::default());
        let (identifiers, qos) = (Identifiers::NONE, QoS::AtLeastOnce);
        Entry { message, identifiers, group: 0, qos, retain: false }
    }

    fn send(window: &mut Window, pool: &mut MessagePool) -> PacketId {
        let id = window.next_id().unwrap();
        let entry = entry(pool);
        window.push(id, entry, pool);
        id
    }

    fn finish(window: &mut Window, pool: &mut MessagePool, id: PacketId) {
        window.finish(id, pool).unwrap().unwrap().release(pool);
    }

    #[test]
    fn an_identifier_in_use_is_skipped_after_the_wrap() {
        let (mut window, mut pool) = (Window::default(), MessagePool::new(0));
        let stuck = send(&mut window, &mut pool);
        for _ in 0..70_000 {
            let id = send(&mut window, &mut pool);
            assert_ne!(id, stuck);
            assert_eq!(window.len(), 2);
            finish(&mut window, &mut pool, id);
        }
        finish(&mut window, &mut pool, stuck);
        assert!(window.is_empty());
        assert_eq!((pool.stats().live, window.bytes(), window.counted()), (0, 0, 0));
    }

    #[test]
    fn acknowledgements_are_found_in_any_order() {
        let (mut window, mut pool) = (Window::default(), MessagePool::new(0));
        window.last_id = 65_000;
        let mut ids: Vec<_> = (0..1000).map(|_| send(&mut window, &mut pool)).collect();
        ids.sort_by_key(|id| id.get() % 7);
        for id in ids {
            finish(&mut window, &mut pool, id);
            assert!(window.stage(id).is_none());
            assert!(window.finish(id, &pool).is_none());
        }
        assert!(window.is_empty());
    }

    #[test]
    fn what_is_acknowledged_at_qos_1_leaves_nothing_behind_in_any_order() {
        let (mut window, mut pool) = (Window::default(), MessagePool::new(0));
        for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0], [1, 2, 0]] {
            let ids: Vec<_> = (0..3).map(|_| send(&mut window, &mut pool)).collect();
            for id in order.map(|index| ids[index]) {
                window.acknowledge(id, &pool).unwrap().release(&mut pool);
                assert_eq!(window.acknowledge(id, &pool), None);
            }
            assert!(window.is_empty(), "{order:?}");
            assert_eq!((pool.stats().live, window.bytes(), window.counted()), (0, 0, 0));
        }
    }

    #[test]
    fn a_run_has_identifiers_in_a_row_that_are_free_or_there_is_none() {
        let (mut window, mut pool) = (Window::default(), MessagePool::new(0));
        let run = |window: &mut Window, pool: &mut MessagePool, count: usize| {
            let first = window.next_run(count)?;
            let entries: Vec<_> = (0..count).map(|_| entry(pool)).collect();
            let bytes = entries.iter().map(|entry| entry.len(pool)).sum();
            window.push_run(first, entries.into_iter(), bytes);
            Some(first.get())
        };
        assert_eq!(run(&mut window, &mut pool, 3), Some(1));
        assert_eq!(run(&mut window, &mut pool, 2), Some(4));
        (1..5).for_each(|id| finish(&mut window, &mut pool, PacketId::new(id).unwrap()));
        // None is in a row over the wrap, and none over what is in use.
        window.last_id = u16::MAX - 2;
        assert_eq!(run(&mut window, &mut pool, 3), None);
        assert_eq!(run(&mut window, &mut pool, 2), Some(u16::MAX - 1));
        assert_eq!(run(&mut window, &mut pool, 1), None);
        window.last_id = 0;
        assert_eq!(run(&mut window, &mut pool, 5), None);
        assert_eq!(run(&mut window, &mut pool, 4), Some(1));
        assert_eq!(run(&mut window, &mut pool, 1), None);
        assert_eq!((window.next_id().map(PacketId::get), window.len()), (Some(6), 7));
        let mut window = Window { last_id: 4, ..Window::default() };
        assert_eq!(run(&mut window, &mut pool, 3), Some(5));
        for last_id in [2, 4, 5] {
            window.last_id = last_id;
            assert_eq!(run(&mut window, &mut pool, 9), None, "behind {last_id}");
        }
    }

    #[test]
    fn a_restart_sends_again_in_the_first_order() {
        let (mut window, mut pool) = (Window::default(), MessagePool::new(0));
        let ids: Vec<_> = (0..4).map(|_| send(&mut window, &mut pool)).collect();
        window.release(ids[1], &pool).unwrap().unwrap().release(&mut pool);
        finish(&mut window, &mut pool, ids[2]);
        window.restart();
        let mut resent = Vec::new();
        while let Some((at, slot)) = window.next_unsent(false) {
            resent.push(slot.packet_id);
            window.mark_sent(at);
        }
        assert_eq!(resent, [ids[0], ids[1], ids[3]]);
        // A resent PUBREL is a publication the client is still busy with.
        assert_eq!(window.counted(), 3);
    }
}
