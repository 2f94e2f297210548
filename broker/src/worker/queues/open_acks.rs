//! Publications to queues at home elsewhere, where there is no log: what follows them from the same
//! client is acknowledged behind them \[MQTT-4.6.0-2\].

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use super::Refusal;
use crate::worker::acknowledge::Acknowledgement;
use crate::worker::conn::ConnId;

#[derive(Debug)]
struct OpenAck {
    number: u64,
    ack: Acknowledgement,
    is_answered: bool,
}

/// Acknowledgements by connection, in order.
#[derive(Debug, Default)]
pub(in crate::worker) struct OpenAcks {
    by_conn: HashMap<ConnId, VecDeque<OpenAck>, RandomState>,
    last: u64,
}

impl OpenAcks {
    /// Whether something of the connection waits.
    #[inline]
    pub(in crate::worker) fn holds(&self, conn: ConnId) -> bool {
        !self.by_conn.is_empty() && self.by_conn.contains_key(&conn)
    }

    /// Has an acknowledgement wait for an answer; the number is the answer's.
    pub(super) fn open(&mut self, ack: Acknowledgement) -> u64 {
        self.last += 1;
        self.push(ack, false)
    }

    /// Has an acknowledgement wait for those before it.
    pub(in crate::worker) fn follow(&mut self, ack: Acknowledgement) {
        self.push(ack, true);
    }

    fn push(&mut self, ack: Acknowledgement, is_answered: bool) -> u64 {
        let number = self.last;
        let open = OpenAck { number, ack, is_answered };
        self.by_conn.entry(ack.publisher.conn).or_default().push_back(open);
        number
    }

    /// An answer has come: those that can be given now, in order.
    pub(super) fn answer(
        &mut self,
        conn: ConnId,
        number: u64,
        refusal: Option<Refusal>,
    ) -> Vec<Acknowledgement> {
        let mut given = Vec::new();
        let Some(open) = self.by_conn.get_mut(&conn) else { return given };
        if let Some(known) = open.iter_mut().find(|open| open.number == number && !open.is_answered)
        {
            known.is_answered = true;
            known.ack.refuse(refusal);
        }
        while let Some(first) = open.front()
            && first.is_answered
            && let Some(first) = open.pop_front()
        {
            given.push(first.ack);
        }
        if open.is_empty() {
            self.by_conn.remove(&conn);
        }
        given
    }

    /// The connection is gone.
    pub(in crate::worker) fn forget(&mut self, conn: ConnId) {
        if !self.by_conn.is_empty() {
            self.by_conn.remove(&conn);
        }
    }
}
