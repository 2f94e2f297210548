//! Messages whose bytes are on disk only: let go when memory is short, read back when a session
//! comes to them.

use dunlin_queue::{MessageRef, Stage};

use super::sessions::SessionId;
use super::{Transport, Worker};
use crate::store::{Loaded, Unread, Wanted};

/// Messages that are asked for at a time for one session, and their bytes.
const LOAD_MESSAGES: usize = 1024;
const LOAD_BYTES: usize = 1 << 20;
/// When memory is short, fewer.
const LOAD_MESSAGES_SHORT: usize = 32;

impl<T: Transport> Worker<T> {
    /// Asks for the next messages of a session that are not in memory. It goes on when they are.
    pub(super) fn load_backlog(&mut self, session: SessionId) {
        let memory_bytes = self.shared.settings.durability.memory_bytes;
        let is_short = self.pool.live_bytes() > 2 * memory_bytes;
        let messages_max = if is_short { LOAD_MESSAGES_SHORT } else { LOAD_MESSAGES };
        let slot = self.sessions.get(session);
        let in_flight = slot.session.window().iter().filter(|slot| !slot.sent);
        let in_flight = in_flight.filter_map(|slot| match &slot.stage {
            Stage::Publish(entry) => Some(entry),
            Stage::Release | Stage::Done => None,
        });
        let entries = in_flight.chain(slot.session.queue().iter());
        let (mut wanted, mut bytes, mut first) = (Vec::new(), 0, None);
        for entry in entries.take(messages_max) {
            let content = self.pool.get(&entry.message);
            let (id, len) = (content.id, content.len());
            if !content.is_absent() {
                continue;
            }
            first.get_or_insert(id);
            bytes += len;
            if bytes > LOAD_BYTES && !wanted.is_empty() {
                break;
            }
            if self.pool.ask_for(&entry.message) {
                let position = self.pool.position(&entry.message);
                wanted.push(Wanted { id, position, len });
            }
        }
        if let Some(first) = first {
            self.wait_for(session, first);
        }
        if let Some(journal) = self.journal.as_ref().filter(|_| !wanted.is_empty()) {
            journal.requests.ask(self.index, wanted);
        }
    }

    /// What was asked for has been read.
    pub(super) fn on_loaded(&mut self, loaded: Vec<Loaded>) {
        // Whoever reads could be ahead of who writes in our inbox: what was not found has been
        // moved before.
        self.on_log_progress();
        let mut again = Vec::new();
        for loaded in loaded {
            let Some(Loaded { wanted, content }) = self.on_queue_loaded(loaded) else { continue };
            let Some(message) = self.pool.find_logged(wanted.id) else {
                self.wake_waiting(wanted.id);
                continue;
            };
            let position = self.pool.position(&message);
            let may_be_read = matches!(content, Err(Unread::Failed)) || position != wanted.position;
            let is_loaded = content.is_ok_and(|bytes| self.pool.load(&message, bytes).is_ok())
                || !self.pool.get(&message).is_absent();
            if !is_loaded && may_be_read {
                // It was moved while it was read, or there was no descriptor to read it with.
                again.push(Wanted { position, ..wanted });
            } else {
                if !is_loaded {
                    tracing::error!(position, id = wanted.id, "a message cannot be read back");
                    self.pool.lose(&message);
                }
                self.wake_waiting(wanted.id);
            }
            self.pool.release(message);
        }
        if let Some(journal) = self.journal.as_ref().filter(|_| !again.is_empty()) {
            journal.requests.ask(self.index, again);
        }
    }

    /// Lets go of what has come since and nobody has been sent yet, as memory is short.
    pub(super) fn spill(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        if journal.spillable.is_empty() {
            return;
        }
        let mut spillable: Vec<MessageRef> = std::mem::take(&mut journal.spillable);
        for message in spillable.drain(..) {
            self.pool.spill(&message);
            self.pool.release(message);
        }
        if let Some(journal) = &mut self.journal {
            // Its memory serves again.
            journal.spillable = spillable;
        }
    }
}
