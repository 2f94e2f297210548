//! Records of queues, there and back.

use dunlin_queue::partitioned::limits::PARTITIONS_MAX;
use dunlin_queue::partitioned::{Commit, DeadReason, MessageId, Mode};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn offset() -> impl Strategy<Value = u64> {
    prop_oneof![0..1000_u64, 0..OFFSET_END]
}

fn id() -> impl Strategy<Value = MessageId> {
    (0..PARTITIONS_MAX, offset()).prop_map(|(partition, offset)| MessageId { partition, offset })
}

fn change() -> impl Strategy<Value = Change> {
    let group = || any::<u32>().prop_map(GroupId);
    let partition = || 0..PARTITIONS_MAX;
    let reason = prop_oneof![Just(DeadReason::Exhausted), Just(DeadReason::Rejected)];
    let commit = prop_oneof![Just(Commit::Auto), Just(Commit::Explicit)];
    prop_oneof![
        (group(), partition(), offset(), offset()).prop_map(|(group, partition, from, len)| {
            Change::Settled { group, partition, from, to: from + len }
        }),
        (group(), partition(), offset(), any::<u32>()).prop_map(
            |(group, partition, offset, seeks)| Change::Cursor { group, partition, offset, seeks }
        ),
        (group(), id(), any::<u32>()).prop_map(|(group, id, attempts)| Change::Attempts {
            group,
            id,
            attempts
        }),
        (group(), id(), reason, any::<u32>()).prop_map(|(group, id, reason, attempts)| {
            Change::Dead { group, id, reason, attempts }
        }),
        (group(), commit).prop_map(|(group, commit)| Change::GroupCreated { group, commit }),
        group().prop_map(|group| Change::GroupRemoved { group }),
        any::<u32>().prop_map(|next| Change::GroupsNumbered { next }),
        (1..PARTITIONS_MAX, partition(), partition(), offset()).prop_map(
            |(from, more, partition, before)| {
                let to = (from + 1 + more).min(PARTITIONS_MAX);
                Change::Grown { from, to, partition: partition % from, before }
            }
        ),
    ]
}

/// A record, with its texts and bytes beside it.
#[derive(Clone, Debug)]
enum Owned {
    Queue(u64, String, u16, bool),
    End(u64),
    Group(u64, u32, String, String, bool),
    Message(u64, MessageId, [u64; 2], u8, Option<u32>, Option<u64>, Vec<u8>),
    Change(u64, Change),
    Chunk(u64, u16, u64, Vec<u8>),
    Consumer(u64, String, String, u32, u8, u32),
}

fn owned() -> impl Strategy<Value = Owned> {
    let bytes = || vec(any::<u8>(), 0..300);
    let (text, flag) = (|| "[a-zä$/#+]{0,40}", any::<bool>);
    let qid = any::<u64>;
    let message = (qid(), id(), any::<[u64; 2]>(), 0..10_u8, any::<Option<u32>>());
    prop_oneof![
        (qid(), text(), 1..=PARTITIONS_MAX, flag())
            .prop_map(|(a, b, c, d)| Owned::Queue(a, b, c, d)),
        qid().prop_map(Owned::End),
        (qid(), any::<u32>(), text(), text(), flag())
            .prop_map(|(a, b, c, d, e)| Owned::Group(a, b, c, d, e)),
        (message, any::<Option<u64>>(), bytes())
            .prop_map(|((a, b, c, d, e), f, g)| Owned::Message(a, b, c, d, e, f, g)),
        (qid(), change()).prop_map(|(a, b)| Owned::Change(a, b)),
        (qid(), 0..PARTITIONS_MAX, offset(), bytes())
            .prop_map(|(a, b, c, d)| Owned::Chunk(a, b, c, d)),
        (qid(), text(), text(), any::<u32>(), any::<u8>(), any::<u32>())
            .prop_map(|(a, b, c, d, e, f)| Owned::Consumer(a, b, c, d, e, f)),
    ]
}

impl Owned {
    fn record(&self, position: usize) -> Record<'_> {
        match self {
            Self::Queue(qid, name, partitions, is_stream) => Record::Queue(QueueRecord {
                qid: *qid,
                name,
                partitions: *partitions,
                mode: if *is_stream { Mode::Stream } else { Mode::Work },
            }),
            Self::End(qid) => Record::QueueEnd { qid: *qid },
            Self::Group(qid, group, name, filter, is_temporary) => Record::QueueGroup {
                qid: *qid,
                group: GroupId(*group),
                name,
                filter,
                is_temporary: *is_temporary,
            },
            Self::Message(qid, id, [at, key_hash], priority, expiry_s, due, content) => {
                Record::QueueMessage(QueueMessageRecord {
                    qid: *qid,
                    id: *id,
                    at: Time::from_millis(*at),
                    key_hash: *key_hash,
                    priority: *priority,
                    expiry_s: *expiry_s,
                    deliver_at: due.map(Time::from_millis),
                    content,
                    position,
                })
            }
            Self::Change(qid, change) => Record::QueueChange { qid: *qid, change: *change },
            Self::Chunk(qid, partition, chunk, bytes) => Record::QueueChunk {
                qid: *qid,
                partition: *partition,
                chunk: *chunk,
                bytes,
                position,
            },
            Self::Consumer(sid, filter, group, identifier, flags, prefetch) => {
                Record::Consumer(ConsumerRecord {
                    sid: *sid,
                    filter,
                    group,
                    options: SubscriptionOptions::from_bits(0b10_1101).unwrap(),
                    identifier: *identifier,
                    flags: *flags,
                    prefetch: *prefetch,
                })
            }
        }
    }
}

proptest! {
    #[test]
    fn records_of_queues_are_read_as_they_were_written(all in vec(owned(), 0..12)) {
        let mut frame = Vec::new();
        let positions: Vec<usize> =
            all.iter().map(|one| one.record(0).encode(&mut frame)).collect();
        let read: Result<Vec<Record<'_>>, Unreadable> = Records::new(&frame).collect();
        let read = read.unwrap();
        prop_assert_eq!(read.len(), all.len());
        for ((one, &position), read) in all.iter().zip(&positions).zip(read) {
            prop_assert_eq!(read, one.record(position));
            if let Record::QueueMessage(QueueMessageRecord { content: bytes, .. })
            | Record::QueueChunk { bytes, .. } = read
            {
                let end = position + CHECKSUM_BYTES + bytes.len();
                prop_assert_eq!(checked_content(&frame[position..end]), Ok(bytes));
            }
        }
    }

    #[test]
    fn half_a_record_of_a_queue_is_none(one in owned(), part in 0.0..1.0) {
        let mut frame = Vec::new();
        one.record(0).encode(&mut frame);
        frame.truncate((frame.len() as f64 * part) as usize);
        prop_assert!(frame.is_empty() || Records::new(&frame).all(|record| record.is_err()));
    }
}

/// Bytes of another version, or of nobody, are told from records.
#[test]
fn what_no_queue_can_have_is_refused() {
    let id = MessageId { partition: PARTITIONS_MAX, offset: 0 };
    let far = MessageId { partition: 0, offset: OFFSET_END };
    let group = GroupId(1);
    let changes = [
        Change::Attempts { group, id, attempts: 1 },
        Change::Attempts { group, id: far, attempts: 1 },
        Change::Settled { group, partition: 0, from: OFFSET_END, to: OFFSET_END + 1 },
        Change::Grown { from: 2, to: 2, partition: 0, before: 0 },
        Change::Grown { from: 2, to: 3, partition: 2, before: 0 },
        Change::Grown { from: 2, to: PARTITIONS_MAX + 1, partition: 0, before: 0 },
    ];
    let queue = QueueRecord { qid: 1, name: "q", partitions: 0, mode: Mode::Work };
    let too_many = QueueRecord { partitions: PARTITIONS_MAX + 1, ..queue };
    let message = QueueMessageRecord {
        qid: 1,
        id: MessageId::default(),
        at: Time::default(),
        key_hash: 0,
        priority: 10,
        expiry_s: None,
        deliver_at: None,
        content: b"",
        position: 0,
    };
    let others = [Record::Queue(queue), Record::Queue(too_many), Record::QueueMessage(message)];
    let changes = changes.map(|change| Record::QueueChange { qid: 1, change });
    for record in changes.into_iter().chain(others) {
        let mut frame = Vec::new();
        record.encode(&mut frame);
        assert_eq!(Records::new(&frame).next(), Some(Err(Unreadable)), "{record:?}");
    }
    let mut frame = Vec::new();
    Record::QueueMessage(QueueMessageRecord { priority: 9, ..message }).encode(&mut frame);
    assert!(Records::new(&frame).next().unwrap().is_ok());
    frame[1] |= 1 << 7;
    assert_eq!(Records::new(&frame).next(), Some(Err(Unreadable)), "an unknown flag");
    assert_eq!(Records::new(&[GROWN + 1, 1, 1, 1, 1, 1]).next(), Some(Err(Unreadable)));
}
