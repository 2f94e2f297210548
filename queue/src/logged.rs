//! Messages that are in a log: what the pool knows of where they are, and what may be forgotten and
//! read back.
//!
//! ```text
//! (no number) ── number ──▶ (numbered) ── hold ──▶ held ── keep ──▶ kept ── spill ──▶ absent
//!                                                                     ◀── load ─────────┘
//! ```

use crate::{Message, MessagePool, MessageRef, NotAMessage, StoredMessage};

/// What is known of a message's record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Logged {
    /// It is on its way to the log: sessions that outlive a crash do not get the message yet.
    pub(crate) is_held: bool,
    /// Somebody has asked for the message's bytes.
    pub(crate) is_asked_for: bool,
    /// The bytes stay in memory.
    pub(crate) is_pinned: bool,
    /// The bytes could not be read.
    pub(crate) is_lost: bool,
    /// Where it is in the log; 0 when it is not there, or not yet.
    pub(crate) position: u64,
}

impl MessagePool {
    /// Makes a message of what was stored, with one share; `position` is where. Its bytes may be
    /// absent.
    ///
    /// # Errors
    /// When the stored bytes are no message.
    pub fn restore(
        &mut self,
        stored: &StoredMessage<'_>,
        position: u64,
    ) -> Result<MessageRef, NotAMessage> {
        if let Some(known) = self.find_logged(stored.id) {
            return Ok(known);
        }
        let index = self.free_slot();
        let slot = &mut self.slots[index as usize];
        slot.message.keep_capacity_for(0);
        if let Err(error) = slot.message.restore(stored) {
            self.spare_bytes += slot.message.capacity();
            self.free.push(index);
            return Err(error);
        }
        slot.logged.position = position;
        let is_absent = slot.message.is_absent();
        let len = slot.message.len();
        if stored.id != 0 && position != 0 {
            self.logged.insert(stored.id, index);
            self.stats.logged_bytes += len;
        }
        let message = self.count_in(index);
        if is_absent {
            self.stats.live_bytes -= len;
        }
        Ok(message)
    }

    /// A share of the message with this number in the log, if it is here.
    pub fn find_logged(&mut self, id: u64) -> Option<MessageRef> {
        let index = *self.logged.get(&id)?;
        Some(self.share(&MessageRef(index)))
    }

    /// Messages that are in the log or on their way there.
    #[must_use]
    pub fn logged_count(&self) -> usize {
        self.logged.len()
    }

    /// Gives the message its number in the log. It is not known by it before [`Self::hold`].
    pub fn number(&mut self, message: &MessageRef, id: u64) {
        self.slots[message.0 as usize].message.id = id;
    }

    /// A numbered message is on its way to the log: whoever must not get it before it is there
    /// waits for [`Self::keep`].
    pub fn hold(&mut self, message: &MessageRef) {
        let slot = &mut self.slots[message.0 as usize];
        debug_assert!(slot.message.id != 0);
        slot.logged.is_held = true;
        if self.logged.insert(slot.message.id, message.0).is_none() {
            self.stats.logged_bytes += slot.message.len();
        }
    }

    /// Nothing is on its way to the log any more: nobody waits.
    pub fn keep_all(&mut self) {
        for &index in self.logged.values() {
            self.slots[index as usize].logged.is_held = false;
        }
    }

    /// Whether the message is on its way to the log.
    #[inline]
    #[must_use]
    pub fn is_held(&self, message: &MessageRef) -> bool {
        self.slots[message.0 as usize].logged.is_held
    }

    /// The message is in the log, at `position`.
    pub fn keep(&mut self, message: &MessageRef, position: u64) {
        let slot = &mut self.slots[message.0 as usize];
        slot.logged.is_held = false;
        slot.logged.position = slot.logged.position.max(position);
    }

    /// Where the message is in the log; 0 if it is not there yet.
    #[must_use]
    pub fn position(&self, message: &MessageRef) -> u64 {
        self.slots[message.0 as usize].logged.position
    }

    /// Has the message's bytes stay in memory: somebody may need them to choose another receiver,
    /// or has sent some of them.
    pub fn pin(&mut self, message: &MessageRef) {
        let slot = &mut self.slots[message.0 as usize];
        // One without a number is never let go.
        slot.logged.is_pinned = slot.message.id != 0;
    }

    /// Lets the message's bytes go, if they are in the log and somebody else still waits for them.
    pub fn spill(&mut self, message: &MessageRef) {
        let slot = &mut self.slots[message.0 as usize];
        let is_wanted = slot.shares > 1 && !slot.logged.is_pinned && !slot.message.is_empty();
        if slot.logged.position != 0
            && !slot.logged.is_held
            && is_wanted
            && !slot.message.is_absent()
        {
            self.stats.live_bytes -= slot.message.len();
            slot.message.forget_bytes();
        }
    }

    /// Whether the message's bytes have to be asked for, and have not been yet. From here on they
    /// have.
    pub fn ask_for(&mut self, message: &MessageRef) -> bool {
        let slot = &mut self.slots[message.0 as usize];
        slot.message.is_absent() && !std::mem::replace(&mut slot.logged.is_asked_for, true)
    }

    /// Takes the bytes of an absent message, as they were read from the log.
    ///
    /// # Errors
    /// When they are not its bytes.
    pub fn load(&mut self, message: &MessageRef, bytes: Vec<u8>) -> Result<(), NotAMessage> {
        let slot = &mut self.slots[message.0 as usize];
        slot.logged.is_asked_for = false;
        if slot.message.is_absent() {
            slot.message.remember_bytes(bytes)?;
            self.stats.live_bytes += slot.message.len();
        }
        Ok(())
    }

    /// Takes what is missing in a message from one that came by mail and is the same.
    pub(crate) fn complete(&mut self, known: &MessageRef, message: &mut Message) {
        let slot = &mut self.slots[known.0 as usize];
        // Records of messages that are not retained do not say who has sent them.
        slot.message.publisher = message.publisher;
        if slot.message.is_absent() {
            // An answer to who has asked for them changes nothing any more.
            self.stats.live_bytes += slot.message.len();
            std::mem::swap(&mut slot.message, message);
            // Until those who want it now have it.
            slot.logged.is_pinned = true;
        }
    }

    /// The message's record is about to go, of which `bytes` are the content: from here on it is in
    /// memory only.
    pub fn take_out(&mut self, message: &MessageRef, bytes: &[u8]) {
        let slot = &mut self.slots[message.0 as usize];
        slot.logged.position = 0;
        if slot.message.is_absent() && slot.message.remember_bytes(bytes.to_vec()).is_ok() {
            slot.logged.is_asked_for = false;
            self.stats.live_bytes += slot.message.len();
        }
    }

    /// The message's bytes could not be read: whoever waits for it has to do without.
    pub fn lose(&mut self, message: &MessageRef) {
        self.slots[message.0 as usize].logged.is_lost = true;
    }

    /// Whether the message's bytes can never be read.
    #[must_use]
    pub fn is_lost(&self, message: &MessageRef) -> bool {
        self.slots[message.0 as usize].logged.is_lost
    }
}
