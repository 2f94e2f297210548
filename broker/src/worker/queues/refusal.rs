//! What clients are told when a queue refuses something: docs/queues.md has the table.

use dunlin_packets::ReasonCode;
use dunlin_queue::partitioned::Refused;

/// Why something a client asked for is refused; or, with a code that is no error, what of it could
/// not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) struct Refusal {
    pub(in crate::worker) code: ReasonCode,
    /// For the reason string.
    pub(in crate::worker) reason: &'static str,
    /// The same may be taken later.
    pub(in crate::worker) is_for_now: bool,
}

impl Refusal {
    pub(in crate::worker) const fn new(code: ReasonCode, reason: &'static str) -> Self {
        let is_for_now = matches!(code, ReasonCode::QuotaExceeded);
        Self { code, reason, is_for_now }
    }

    /// The log takes nothing, and says so by `code`.
    pub(in crate::worker) const fn of_storage(code: ReasonCode) -> Self {
        Self { code, reason: "the storage takes no more", is_for_now: true }
    }

    /// The address is none.
    pub(in crate::worker) const fn bad_topic(reason: &'static str) -> Self {
        Self::new(ReasonCode::TopicNameInvalid, reason)
    }

    /// What is asked for makes no sense.
    pub(in crate::worker) const fn bad_request(reason: &'static str) -> Self {
        Self::new(ReasonCode::ImplementationSpecificError, reason)
    }
}

impl Refusal {
    /// As a SUBACK says it.
    pub(in crate::worker) fn suback_code(self) -> ReasonCode {
        match self.code {
            ReasonCode::TopicNameInvalid => ReasonCode::TopicFilterInvalid,
            code => code,
        }
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let (code, reason) = match refused {
            Refused::TooManyMessages => (ReasonCode::QuotaExceeded, "the queue is full: messages"),
            Refused::TooManyBytes => (ReasonCode::QuotaExceeded, "the queue is full: bytes"),
            Refused::TooLarge => (ReasonCode::QuotaExceeded, "larger than the queue may be"),
            Refused::TooManyDelayed => (ReasonCode::QuotaExceeded, "too many delayed messages"),
            Refused::TooManyGroups => (ReasonCode::QuotaExceeded, "too many consumer groups"),
            Refused::TooManyMembers => (ReasonCode::QuotaExceeded, "too many consumers"),
            Refused::UnknownGroup => {
                (ReasonCode::NotAuthorized, "group-id is no group of this queue")
            }
            Refused::UnknownMember => (ReasonCode::NotAuthorized, "not a consumer of this group"),
            Refused::NotLeased => (
                ReasonCode::NotAuthorized,
                "the message is not leased: settled, or its time is over",
            ),
            Refused::LeasedToAnother => {
                (ReasonCode::NotAuthorized, "the message is leased to another consumer")
            }
            Refused::NotTheOwner => {
                (ReasonCode::NotAuthorized, "the partition belongs to another consumer")
            }
            Refused::UnknownPartition => {
                (ReasonCode::ImplementationSpecificError, "there is no such partition")
            }
            Refused::WrongMode => {
                (ReasonCode::ImplementationSpecificError, "not for a queue of this mode")
            }
            Refused::Backwards => {
                (ReasonCode::ImplementationSpecificError, "the cursor is there already")
            }
            Refused::NotDelivered => {
                (ReasonCode::ImplementationSpecificError, "not delivered as far as that")
            }
            Refused::DelayTooLong => (
                ReasonCode::ImplementationSpecificError,
                "a delay of more than 30 days, or of more than messages are kept",
            ),
            Refused::BadPriority => (ReasonCode::ImplementationSpecificError, "bad priority"),
            Refused::BadPartitions | Refused::NotDying => {
                (ReasonCode::ImplementationSpecificError, "not possible")
            }
        };
        Self::new(code, reason)
    }
}
