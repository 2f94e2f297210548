//! What is written down of a publication, and behind it.

use dunlin_queue::{MessagePool, MessageRef};

use super::sessions::SessionKey;
use super::{Transport, Worker};
use crate::store::record::{MessageRecord, Record, Refs};

/// What is written down behind a publication, and not before it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    /// A delivery is done with, as this one replaces it.
    Done {
        /// Whose.
        sid: u64,
        /// Of which message.
        id: u64,
    },
    /// A session without the will that this publication is.
    Session(SessionKey),
    /// The end of the session whose will it is.
    Ended {
        /// Which.
        sid: u64,
    },
}

impl<T: Transport> Worker<T> {
    /// Writes down what had to come behind a publication.
    pub(super) fn write_then(&mut self, then: Then) {
        let Some(journal) = &mut self.journal else { return };
        match then {
            Then::Done { sid, id } => {
                journal.write(&Record::Done { sid, id });
            }
            Then::Session(key) => {
                if let Some(session) = self.sessions.resolve(key) {
                    self.record_session(session);
                }
            }
            Then::Ended { sid } => journal.write_end(sid),
        }
    }
}

/// A message as it is written down.
pub(super) fn message_record<'a>(
    pool: &'a MessagePool,
    message: &MessageRef,
    refs: &'a [u8],
    is_retained: bool,
) -> MessageRecord<'a> {
    let content = pool.get(message);
    let (topic_len, properties_len) = content.part_lens();
    MessageRecord {
        id: content.id,
        qos: content.qos,
        retain: content.retain,
        is_retained,
        expires_at: content.expires_at,
        received: content.received(),
        publisher: content.publisher,
        topic_len,
        properties_len,
        content: content.as_bytes(),
        refs: Refs::new(refs),
        position: 0,
    }
}
