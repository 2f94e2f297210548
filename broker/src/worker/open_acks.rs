//! Publications that another worker has a say in: it is home to the queue they are for, or to the
//! retained message of their topic. What follows them from the same client is acknowledged behind
//! them \[MQTT-4.6.0-2\]. Where there is a log, it keeps that order (`recording`).

use std::collections::{HashMap, VecDeque};

use ahash::RandomState;

use super::acknowledge::Acknowledgement;
use super::conn::ConnId;
use super::queues::Refusal;
use super::recording::Pending;
use super::{Transport, Worker};

/// What a home has to say to a publication, where there is no log.
#[derive(Clone, Copy, Debug)]
pub struct HomeAnswered {
    pub(super) conn: ConnId,
    /// Of the acknowledgement that waits.
    pub(super) number: u64,
    /// Why not, if so.
    pub(super) refusal: Option<Refusal>,
}

#[derive(Debug)]
struct OpenAck {
    number: u64,
    ack: Acknowledgement,
    is_answered: bool,
}

/// Acknowledgements by connection, in order.
#[derive(Debug, Default)]
pub(super) struct OpenAcks {
    by_conn: HashMap<ConnId, VecDeque<OpenAck>, RandomState>,
    last: u64,
}

impl OpenAcks {
    /// Whether something of the connection waits.
    #[inline]
    pub(super) fn holds(&self, conn: ConnId) -> bool {
        !self.by_conn.is_empty() && self.by_conn.contains_key(&conn)
    }

    /// Has an acknowledgement wait for an answer; the number is the answer's.
    fn open(&mut self, ack: Acknowledgement) -> u64 {
        self.last += 1;
        self.push(ack, false)
    }

    /// Has an acknowledgement wait for those before it.
    pub(super) fn follow(&mut self, ack: Acknowledgement) {
        self.push(ack, true);
    }

    fn push(&mut self, ack: Acknowledgement, is_answered: bool) -> u64 {
        let number = self.last;
        let open = OpenAck { number, ack, is_answered };
        self.by_conn.entry(ack.publisher.conn).or_default().push_back(open);
        number
    }

    /// An answer has come: those that can be given now, in order.
    fn answer(
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
    pub(super) fn forget(&mut self, conn: ConnId) {
        if !self.by_conn.is_empty() {
            self.by_conn.remove(&conn);
        }
    }
}

impl<T: Transport> Worker<T> {
    /// Has an acknowledgement wait, in its place, for the answer with the number returned: a ticket
    /// where there is a log.
    pub(super) fn open_ack(&mut self, ack: Acknowledgement) -> u64 {
        let Some(journal) = &mut self.journal else { return self.open_acks.open(ack) };
        journal.held.entry(ack.publisher.conn).or_default().pending += 1;
        let ticket = journal.first_ticket + journal.pending.len() as u64;
        journal.pending.push_back(Pending::of_asked(ack));
        ticket
    }

    /// A home has answered.
    pub(super) fn on_home_answered(&mut self, answered: HomeAnswered) {
        let HomeAnswered { conn, number, refusal } = answered;
        for ack in self.open_acks.answer(conn, number, refusal) {
            self.give(ack);
        }
    }
}
