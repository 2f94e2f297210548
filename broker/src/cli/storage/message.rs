//! Reads the messages of an image back.

use dunlin_queue::partitioned::RestoredMessage;

use super::Outcome;
use super::directory::Kept;
use crate::store::{Reader, StoredAt, StoredQueue, Wanted};

/// Bytes of messages that are in memory at once, unless a single one is larger.
const BATCH_BYTES: usize = 8 << 20;

/// A message of which the log has all.
pub(super) struct ReadMessage {
    pub(super) id: u64,
    pub(super) at: StoredAt,
    /// Topic, properties and payload.
    pub(super) content: Vec<u8>,
}

/// Hands over the messages that somebody waits for, in the order of their numbers.
pub(super) fn for_each(
    kept: &Kept,
    mut visit: impl FnMut(&ReadMessage) -> Outcome<()>,
) -> Outcome<()> {
    let messages = &kept.image.messages;
    let mut ids: Vec<u64> = messages.keys().copied().collect();
    ids.sort_unstable();
    let mut reader = Reader::new(kept.snapshot.clone());
    let (mut batch, mut bytes) = (Vec::new(), 0);
    let mut ids = ids.into_iter().peekable();
    while let Some(id) = ids.next() {
        let at = messages[&id];
        let len = at.content_len as usize;
        batch.push(Wanted { id, position: at.position, len });
        bytes += len;
        if bytes < BATCH_BYTES && ids.peek().is_some() {
            continue;
        }
        let mut loaded = reader.read(std::mem::take(&mut batch));
        loaded.sort_unstable_by_key(|loaded| loaded.wanted.id);
        for loaded in loaded {
            let id = loaded.wanted.id;
            let content = loaded.content.map_err(|_| format!("message {id} is damaged"))?;
            visit(&ReadMessage { id, at: messages[&id], content })?;
        }
        bytes = 0;
    }
    Ok(())
}

/// Hands over the messages that are left in a queue, by partition and offset, with their content.
pub(super) fn for_each_in_queue(
    kept: &Kept,
    queue: &StoredQueue,
    mut visit: impl FnMut(&RestoredMessage, &[u8]) -> Outcome<()>,
) -> Outcome<()> {
    let mut reader = Reader::new(kept.snapshot.clone());
    let mut messages = queue.restoring.messages(queue.mode).peekable();
    let (mut batch, mut wanted, mut bytes) = (Vec::new(), Vec::new(), 0);
    while let Some(message) = messages.next() {
        let (id, len) = (batch.len() as u64, message.bytes as usize);
        wanted.push(Wanted { id, position: message.position, len });
        batch.push(message);
        bytes += len;
        if bytes < BATCH_BYTES && messages.peek().is_some() {
            continue;
        }
        let mut loaded = reader.read(std::mem::take(&mut wanted));
        loaded.sort_unstable_by_key(|loaded| loaded.wanted.id);
        for (message, loaded) in batch.drain(..).zip(loaded) {
            let content = loaded.content.map_err(|_| damaged(queue, &message))?;
            visit(&message, &content)?;
        }
        bytes = 0;
    }
    Ok(())
}

/// What is said of a message whose bytes are not what was written.
pub(super) fn damaged(queue: &StoredQueue, message: &RestoredMessage) -> String {
    let (name, id) = (queue.name.escape_debug(), message.id);
    format!("message {} of partition {} of the queue {name} is damaged", id.offset, id.partition)
}
