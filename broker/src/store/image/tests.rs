//! Queues and their consumers in an image, wherever their records stand.

use dunlin_packets::SubscriptionOptions;
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Change, Commit, GroupId, MessageId, Mode};
use proptest::prelude::*;

use super::*;
use crate::store::record::{
    CHECKSUM_BYTES, QueueMessageRecord, QueueRecord, Record, SessionRecord, checked_content,
};

const RECORDS_AT: u64 = 1000;

/// What records say that stand in one frame, and the frame.
fn read(records: &[Record<'_>]) -> (Image, Vec<u8>) {
    let mut frame = Vec::new();
    records.iter().for_each(|record| {
        record.encode(&mut frame);
    });
    let mut reading = Reading::default();
    reading.frame(RECORDS_AT, &frame).unwrap();
    (reading.finish(), frame)
}

fn queue(qid: u64, name: &str) -> Record<'_> {
    Record::Queue(QueueRecord { qid, name, partitions: 4, mode: Mode::Work })
}

fn message(qid: u64, partition: u16, offset: u64, content: &[u8]) -> Record<'_> {
    Record::QueueMessage(QueueMessageRecord {
        qid,
        id: MessageId { partition, offset },
        at: Time::from_millis(offset),
        key_hash: 7,
        priority: 0,
        expiry_s: None,
        deliver_at: None,
        content,
        position: 0,
    })
}

fn change<'a>(qid: u64, change: Change) -> Record<'a> {
    Record::QueueChange { qid, change }
}

fn group(qid: u64, number: u32, name: &str) -> [Record<'_>; 2] {
    let (group, filter, is_temporary) = (GroupId(number), "#", number.is_multiple_of(2));
    let created = Change::GroupCreated { group, commit: Commit::Auto };
    [Record::QueueGroup { qid, group, name, filter, is_temporary }, change(qid, created)]
}

fn settled<'a>(qid: u64, number: u32, from: u64, to: u64) -> Record<'a> {
    change(qid, Change::Settled { group: GroupId(number), partition: 1, from, to })
}

/// Everything of the queues of an image.
fn shown(image: &Image) -> Vec<String> {
    let shown = image.queues.iter().map(|queue| {
        let StoredQueue { qid, name, partitions, mode, groups, restoring } = queue;
        let mut changes = Vec::new();
        restoring.changes(*mode, &mut changes);
        let messages = restoring.messages(*mode).map(|message| (message.id, message.bytes));
        let messages: Vec<_> = messages.collect();
        format!("{qid} {name} {partitions} {mode:?} {groups:?} {changes:?} {messages:?}")
    });
    shown.collect()
}

fn some_records() -> Vec<Record<'static>> {
    let mut records = vec![
        queue(2, "jobs"),
        queue(3, "ended"),
        queue(5, "$dlq/jobs"),
        // Without its own record.
        message(6, 1, 0, b"torn"),
        message(5, 1, 0, b"dead"),
        Record::QueueEnd { qid: 3 },
        message(3, 1, 0, b"of the one that has ended"),
        settled(2, 1, 0, 3),
        settled(2, 2, 0, 2),
        settled(2, 2, 4, 5),
        change(2, Change::Settled { group: GroupId::EVERYBODY, partition: 1, from: 6, to: 8 }),
        change(2, Change::GroupRemoved { group: GroupId(4) }),
        // Without a name.
        change(2, Change::GroupCreated { group: GroupId(9), commit: Commit::Auto }),
        Record::QueueChunk { qid: 2, partition: 1, chunk: 0, bytes: b"index", position: 0 },
    ];
    records.extend(group(2, 1, "one"));
    records.extend(group(2, 2, "two"));
    records.extend(group(2, 4, "removed"));
    records.extend(group(3, 1, "ended"));
    records.extend((0..8).map(|offset| message(2, 1, offset, b"content")));
    records
}

#[test]
fn a_queue_is_what_its_records_say_and_its_messages_are_found() {
    let records = some_records();
    let (image, frame) = read(&records);
    let names: Vec<&str> = image.queues.iter().map(|queue| &*queue.name).collect();
    assert_eq!(names, ["jobs", "$dlq/jobs"]);
    let jobs = &image.queues[0];
    let groups: Vec<(u32, &str, bool)> =
        jobs.groups.iter().map(|group| (group.group.0, &*group.name, group.is_temporary)).collect();
    assert_eq!(groups, [(1, "one", false), (2, "two", true)]);
    let mut offsets = Vec::new();
    for message in jobs.restoring.messages(Mode::Work) {
        offsets.push(message.id.offset);
        let from = (message.position - RECORDS_AT) as usize;
        let len = CHECKSUM_BYTES + message.bytes as usize;
        assert_eq!(checked_content(&frame[from..from + len]), Ok(&b"content"[..]));
    }
    assert_eq!(offsets, [2, 3, 4, 5], "0 and 1 by both groups, 6 and 7 for everybody");
    assert_eq!(image.numbers.session, 7, "numbers of queues are not used again");
    assert_eq!((image.sessions.len(), image.records), (0, records.len() as u64));
}

#[test]
fn of_two_queues_with_one_name_the_newer_one_holds() {
    let (image, _) = read(&[queue(8, "q"), queue(7, "q"), queue(9, "r")]);
    assert_eq!(image.queues.iter().map(|queue| queue.qid).collect::<Vec<_>>(), [8, 9]);
}

#[test]
fn dead_letters_go_to_the_worker_that_has_their_queue() {
    let (image, _) = read(&some_records());
    let shares = image.split(2, |name| usize::from(name == "jobs"));
    assert_eq!((shares[0].queues.len(), shares[1].queues.len()), (0, 2));
}

fn consumer(filter: &str) -> Record<'_> {
    Record::Consumer(ConsumerRecord {
        sid: 1,
        filter,
        group: "workers",
        options: SubscriptionOptions::default(),
        identifier: 3,
        flags: 1,
        prefetch: 10,
    })
}

#[test]
fn a_consumer_is_one_until_it_unsubscribes_or_its_session_ends() {
    let session = |sid, client_id| {
        Record::Session(SessionRecord {
            sid,
            client_id,
            expiry_s: 60,
            expires_at: Time::NEVER,
            is_online: true,
            will_at: Time::NEVER,
            will: None,
        })
    };
    let mut records = vec![
        consumer("$queue/b"),
        consumer("$queue/a"),
        session(1, "client"),
        consumer("$queue/gone"),
        Record::Unsubscribed { sid: 1, filter: "$queue/gone" },
    ];
    let (image, _) = read(&records);
    let consumers = &image.sessions[0].consumers;
    assert_eq!(
        consumers.iter().map(|one| &*one.filter).collect::<Vec<_>>(),
        ["$queue/a", "$queue/b"]
    );
    assert_eq!(Record::Consumer(consumers[0].record(1)), consumer("$queue/a"));
    assert!(image.sessions[0].subscriptions.is_empty());
    records.push(Record::SessionEnd { sid: 1 });
    records.push(session(2, "client"));
    let (image, _) = read(&records);
    assert_eq!((image.sessions.len(), image.sessions[0].consumers.len()), (1, 0));
}

proptest! {
    #[test]
    fn the_order_of_a_queues_records_means_nothing(
        records in Just(some_records()).prop_shuffle()
    ) {
        let (image, _) = read(&records);
        prop_assert_eq!(shown(&image), shown(&read(&some_records()).0));
    }
}
