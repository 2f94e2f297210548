//! `dunlin storage` on data directories with partitioned queues.

use std::collections::BTreeSet;
use std::path::Path;

use dunlin::store::record::{
    CHECKSUM_BYTES, QueueContent, QueueMessageRecord, QueueRecord, Record,
};
use dunlin::store::{NewLog, StoredConsumer, StoredGroup, StoredSession};
use dunlin_packets::{PropertiesBuf, Property, SubscriptionOptions};
use dunlin_queue::Time;
use dunlin_queue::partitioned::{Change, Commit, GroupId, MessageId, Mode};
use dunlin_storage::{Damage, DiskBackend, FRAME_HEADER_BYTES, Log, LogOptions, set_address};
use serde_json::{Value, json};

use super::random::Random;
use super::{bytes, done, fresh, lines, refused, text_of, written};

fn backend(data: &Path) -> DiskBackend {
    let directory = data.join("log");
    std::fs::create_dir_all(&directory).expect("a directory");
    DiskBackend::open(&directory).expect("a directory")
}

fn new_log(data: &Path) -> NewLog<DiskBackend> {
    NewLog::begin(backend(data), LogOptions::default()).expect("an empty log")
}

fn message_line(partition: u16, offset: u64) -> Value {
    json!({
        "type": "queue_message", "queue": 2, "partition": partition, "offset": offset,
        "enqueued_at_ms": 1_700_000_000_000_u64, "expiry_s": null, "deliver_at_ms": null,
        "key_hash": "0123456789abcdef", "priority": 0, "settled_by": [], "failed": [],
        "captured": false, "topic": "$queue/jobs/a", "published_at_ms": 1_700_000_000_000_u64,
        "expires_at_ms": null, "properties": [{"user_property": ["n", "1"]}],
        "properties_base64": "JgABbgABMQ==", "payload_base64": "aGVsbG8=",
    })
}

/// A session that consumes a work queue, which has grown, and a stream.
fn small_export() -> Vec<Value> {
    let mut settled = message_line(0, 4);
    settled["settled_by"] = json!([3]);
    settled["failed"] = json!([{"group": 1, "attempts": 2}]);
    settled["priority"] = json!(9);
    settled["captured"] = json!(true);
    settled["topic"] = json!("m/a");
    settled["expires_at_ms"] = json!(1_700_000_060_000_u64);
    let mut delayed = message_line(2, 0);
    delayed["deliver_at_ms"] = json!(1_800_000_000_000_u64);
    delayed["expiry_s"] = json!(60);
    let mut streamed = message_line(0, 0);
    streamed["queue"] = json!(4);
    vec![
        json!({
            "type": "header", "format": "dunlin-export", "version": 2, "sessions": 1,
            "messages": 0, "retained": 0, "queues": 2, "queue_messages": 4, "hash_keys": null,
        }),
        json!({
            "type": "session", "number": 1, "client_id": "c", "expiry_s": 60, "online": false,
            "expires_at_ms": null, "will_at_ms": null, "will": null, "subscriptions": [],
            "received": [], "in_flight": [], "queue": [],
            "consumers": [{
                "group": "workers", "flags": 5, "prefetch": 10,
                "subscription": {
                    "filter": "$queue/jobs/#", "qos": 1, "no_local": false,
                    "retain_as_published": false, "retain_handling": 0, "identifier": 3,
                },
            }],
        }),
        json!({
            "type": "queue", "number": 2, "name": "jobs", "mode": "work", "partitions": 2,
            "growths": [{"to": 3, "before": [4, 0]}], "ends": [7, 0, 1], "next_group": 5,
            "groups": [
                {
                    "number": 1, "name": "workers", "filter": "#", "temporary": false,
                    "explicit_commit": false, "cursors": [],
                },
                {
                    "number": 3, "name": "others", "filter": "", "temporary": true,
                    "explicit_commit": false, "cursors": [],
                },
            ],
        }),
        message_line(0, 3),
        settled,
        delayed,
        json!({
            "type": "queue", "number": 4, "name": "log", "mode": "stream", "partitions": 1,
            "growths": [], "ends": [1], "next_group": 2,
            "groups": [{
                "number": 1, "name": "g", "filter": "#", "temporary": false,
                "explicit_commit": true,
                "cursors": [{"partition": 0, "offset": 1, "seeks": 2}],
            }],
        }),
        streamed,
    ]
}

#[test]
fn queues_are_the_same_after_import_export_and_compacting_and_are_counted() {
    let (data, all) = (fresh("queue-import"), small_export());
    let said = done(&["import", text_of(&written("queue-import.jsonl", &all))], &data);
    let expected = "1 session, 0 messages, 0 retained messages, 2 queues, 4 queue messages";
    assert_eq!(said, format!("imported {expected}\n"));
    let export = done(&["export"], &data);
    assert_eq!(lines(&export), all);
    assert!(done(&["check"], &data).contains("intact"));
    done(&["compact"], &data);
    assert_eq!(done(&["export"], &data), export);

    let stats: Value = serde_json::from_str(&done(&["stats", "--json"], &data)).expect("JSON");
    let content = QueueContent::HEAD_BYTES + 7 + 5;
    let bytes = 4 * content + 3 * "$queue/jobs/a".len() + "m/a".len();
    for (name, expected) in [
        ("queues", 2),
        ("queue_groups", 3),
        ("queue_messages", 4),
        ("queue_message_bytes", bytes),
        ("consumers", 1),
        ("subscriptions", 0),
    ] {
        assert_eq!(stats[name], json!(expected), "{name} of {stats}");
    }
    let text = done(&["stats"], &data);
    assert!(text.contains("queues           2 with 3 groups"), "{text}");
    assert!(text.contains(&format!("in queues        4 messages of {bytes} bytes")), "{text}");
    let found = refused(&["import", text_of(&written("again.jsonl", &all))], &data);
    assert!(found.contains("has data"), "{found}");
}

#[test]
fn an_export_of_the_version_before_there_were_queues_is_imported() {
    let mut all = small_export();
    all.truncate(2);
    all[0] = json!({
        "type": "header", "format": "dunlin-export", "version": 1,
        "sessions": 1, "messages": 0, "retained": 0, "hash_keys": null,
    });
    all[1].as_object_mut().expect("an object").remove("consumers");
    let data = fresh("version-1");
    done(&["import", text_of(&written("version-1.jsonl", &all))], &data);
    let export = lines(&done(&["export"], &data));
    assert_eq!((export[0]["version"].clone(), export[0]["queues"].clone()), (json!(2), json!(0)));
    assert_eq!(export[1]["consumers"], json!([]));
}

#[test]
fn a_data_directory_with_nothing_but_a_queue_is_in_use() {
    let data = fresh("only-queue");
    let mut log = new_log(&data);
    let queue = QueueRecord { qid: 1, name: "q", partitions: 1, mode: Mode::Work };
    log.queue(&queue, &[]).expect("there is room");
    log.finish().expect("it syncs");
    let file = written("only-queue.jsonl", &small_export());
    assert!(refused(&["import", text_of(&file)], &data).contains("has data"));
}

#[test]
fn a_wrong_line_of_a_queue_is_named_and_nothing_is_left_of_the_import() {
    type Edit = fn(&mut Vec<Value>);
    let cases: &[(&str, u32, Edit, &str)] = &[
        ("group", 2, |all| all[1]["consumers"][0]["group"] = json!(""), "name of a group is empty"),
        (
            "consumed",
            2,
            |all| all[1]["consumers"][0]["subscription"]["filter"] = json!("a/#/b"),
            "is not a topic filter",
        ),
        (
            "twice",
            2,
            |all| {
                let consumers = all[1]["consumers"].as_array_mut().expect("a list");
                consumers.push(consumers[0].clone());
            },
            "a filter of consumers is there twice",
        ),
        ("number", 3, |all| all[2]["number"] = json!(1), "a session or a queue with the number 1"),
        ("name", 3, |all| all[2]["name"] = json!("a/+"), "is not a topic name"),
        ("mode", 3, |all| all[2]["mode"] = json!("heap"), "unknown variant `heap`"),
        ("none", 3, |all| all[2]["partitions"] = json!(0), "not between 1 and 1024"),
        ("grown", 3, |all| all[2]["growths"][0]["to"] = json!(2), "has not grown like that"),
        ("before", 3, |all| all[2]["growths"][0]["before"] = json!([8, 0]), "behind its end"),
        ("ends", 3, |all| all[2]["ends"] = json!([7, 0]), "there are 3 partitions, and 2 ends"),
        ("end", 3, |all| all[2]["ends"][0] = json!(1_u64 << 53), "a partition ends behind"),
        ("zero", 3, |all| all[2]["groups"][0]["number"] = json!(0), "not between 1 and next_group"),
        ("next", 3, |all| all[2]["next_group"] = json!(3), "the group 3 is not between"),
        ("groups", 3, |all| all[2]["groups"][1]["number"] = json!(1), "a group is there twice"),
        ("filter", 3, |all| all[2]["groups"][0]["filter"] = json!("#/a"), "not a topic filter"),
        (
            "cursor",
            3,
            |all| all[2]["groups"][0]["cursors"] = all[6]["groups"][0]["cursors"].clone(),
            "has no cursor there",
        ),
        ("far", 7, |all| all[6]["groups"][0]["cursors"][0]["offset"] = json!(2), "no cursor there"),
        ("names", 7, |all| all[6]["name"] = json!("jobs"), "another queue of this name"),
        ("queue", 4, |all| all[3]["queue"] = json!(4), "none of the partitions of the queue"),
        ("behind", 5, |all| all[4]["offset"] = json!(7), "none of the partitions of the queue"),
        ("partition", 4, |all| all[3]["partition"] = json!(3), "none of the partitions"),
        ("order", 5, |all| all[4]["offset"] = json!(3), "come by partition and offset"),
        (
            "span",
            5,
            |all| {
                all[2]["ends"][0] = json!(1_u64 << 40);
                all[4]["offset"] = json!((1_u64 << 32) + 3);
            },
            "behind the partition's first",
        ),
        ("priority", 4, |all| all[3]["priority"] = json!(10), "the priority is 10"),
        ("delay", 8, |all| all[7]["deliver_at_ms"] = json!(1), "a stream has no messages"),
        ("late", 4, |all| all[3]["enqueued_at_ms"] = json!(1_u64 << 48), "enqueued_at_ms"),
        ("key", 4, |all| all[3]["key_hash"] = json!("x"), "key_hash: "),
        ("settled", 4, |all| all[3]["settled_by"] = json!([2]), "the queue has no group 2"),
        ("all", 4, |all| all[3]["settled_by"] = json!([3, 1]), "is gone"),
        ("both", 5, |all| all[4]["failed"][0]["group"] = json!(3), "a group of the message"),
        ("failed", 5, |all| all[4]["failed"][0]["attempts"] = json!(0), "no delivery has failed"),
        (
            "stream",
            8,
            |all| all[7]["failed"] = json!([{"group": 1, "attempts": 1}]),
            "nothing but cursors",
        ),
        ("topic", 4, |all| all[3]["topic"] = json!("#"), "is not a topic name"),
        ("properties", 4, |all| all[3]["properties"] = json!([]), "not what properties_base64 is"),
        ("orphan", 3, |all| drop(all.remove(2)), "a message of a queue comes behind it"),
        ("short", 8, |all| drop(all.pop()), "the header says 4 queue messages, and there are 3"),
        ("few", 9, |all| all[0]["queues"] = json!(3), "the header says 3 queues, and there are 2"),
    ];
    for (name, line, edit, expected) in cases {
        let mut all = small_export();
        edit(&mut all);
        let (data, file) = (fresh("queue-refused"), written("queue-refused.jsonl", &all));
        let found = refused(&["import", text_of(&file)], &data);
        assert!(found.contains(expected), "{name}: {found}");
        assert!(found.contains(&format!("queue-refused.jsonl:{line}: ")), "{name}: {found}");
        assert!(!data.exists(), "{name}: something is left");
    }
}

#[test]
fn bytes_of_a_queue_that_are_not_what_was_written_are_found() {
    let content = b"content";
    let message = QueueMessageRecord {
        qid: 1,
        id: MessageId::default(),
        at: Time::default(),
        key_hash: 0,
        priority: 0,
        expiry_s: None,
        deliver_at: None,
        content,
        position: 0,
    };
    let chunk = Record::QueueChunk { qid: 1, partition: 0, chunk: 0, bytes: content, position: 0 };
    for record in [Record::QueueMessage(message), chunk] {
        for is_damaged in [false, true] {
            let data = fresh("damaged");
            let (mut log, _) =
                Log::open(backend(&data), LogOptions::default(), Damage::Refuse).expect("a log");
            let mut frame = vec![0; FRAME_HEADER_BYTES];
            let queue = QueueRecord { qid: 1, name: "q", partitions: 1, mode: Mode::Work };
            Record::Queue(queue).encode(&mut frame);
            let position = record.encode(&mut frame);
            frame[position + CHECKSUM_BYTES] ^= u8::from(is_damaged);
            set_address(&mut frame, log.end());
            log.append(&mut [frame]).expect("there is room");
            log.sync().expect("it syncs");
            if is_damaged {
                assert!(refused(&["check"], &data).contains("1 frame not readable"));
            } else {
                assert!(done(&["check"], &data).contains("intact"));
            }
            if is_damaged && matches!(record, Record::QueueMessage(_)) {
                let found = refused(&["export"], &data);
                assert!(found.contains("message 0 of partition 0 of the queue q is damaged"));
            }
        }
    }
}

impl Random {
    fn queue_content(&mut self) -> Vec<u8> {
        let mut properties = PropertiesBuf::new();
        for _ in 0..self.below(3) {
            let (name, value) = (self.text(), self.text());
            properties.push(Property::UserProperty(&name, &value));
        }
        let mut content = Vec::new();
        QueueContent {
            at: Time::from_millis(self.below(1 << 42)),
            expires_at: if self.one_in(2) { Time::NEVER } else { Time::from_millis(self.0 >> 20) },
            is_captured: self.one_in(2),
            topic: &self.text(),
            properties: properties.as_properties().as_bytes(),
            payload: self.text().as_bytes(),
        }
        .put(&mut content);
        content
    }

    fn consumer(&mut self, sid: u64) -> StoredSession {
        let filters: BTreeSet<Box<str>> = (0..self.below(4)).map(|_| self.text()).collect();
        let consumers = filters.into_iter().map(|filter| StoredConsumer {
            filter,
            group: self.text(),
            options: SubscriptionOptions { no_local: self.one_in(2), ..Default::default() },
            identifier: self.below(3) as u32,
            flags: self.below(256) as u8,
            prefetch: self.below(1 << 32) as u32,
        });
        let consumers = consumers.collect();
        StoredSession {
            sid,
            client_id: format!("{sid}").into(),
            expiry_s: 60,
            was_online: false,
            expires_at: Time::NEVER,
            will_at: Time::NEVER,
            will: None,
            subscriptions: Vec::new(),
            received: Vec::new(),
            in_flight: Vec::new(),
            queue: Vec::new(),
            consumers,
        }
    }
}

/// A queue with everything that may be in one, its records in any order, those that mean nothing
/// any more among them.
fn random_queue(qid: u64, log: &mut NewLog<DiskBackend>, random: &mut Random) {
    let mode = if random.one_in(2) { Mode::Work } else { Mode::Stream };
    let name = format!("{qid}{}", random.text());
    let partitions = 1 + random.below(3) as u16;
    let groups: Vec<GroupId> = (1..1 + random.below(4) as u32).map(GroupId).collect();
    let removed = GroupId(9);
    let mut changes = Vec::new();
    let mut messages = Vec::new();
    for &group in groups.iter().chain([&removed]) {
        let commit = if random.one_in(2) { Commit::Auto } else { Commit::Explicit };
        changes.push(Change::GroupCreated { group, commit });
    }
    changes.push(Change::GroupRemoved { group: removed });
    for partition in 0..partitions {
        let end = random.below(600);
        let kept = 1 + random.below(4);
        for offset in 0..end {
            let id = MessageId { partition, offset };
            if random.one_in(kept) {
                messages.push((id, random.queue_content()));
            }
            for &group in groups.iter().chain([&removed]).filter(|_| mode == Mode::Work) {
                let (from, to) = (offset, offset + 1 + random.below(end - offset).min(20));
                if random.one_in(4) {
                    changes.push(Change::Settled { group, partition, from, to });
                } else if random.one_in(6) {
                    let attempts = 1 + random.below(9) as u32;
                    changes.push(Change::Attempts { group, id, attempts });
                }
            }
        }
        let (from, to) = (random.below(end + 1), end);
        if random.one_in(3) {
            let group = GroupId::EVERYBODY;
            changes.push(Change::Settled { group, partition, from, to });
        }
        for &group in groups.iter().filter(|_| mode == Mode::Stream) {
            let (offset, seeks) = (random.below(end + 1), random.below(3) as u32);
            changes.push(Change::Cursor { group, partition, offset, seeks });
        }
        let before = random.below(end + 1);
        for partition in (0..partitions).filter(|_| partition + 1 == partitions && kept > 2) {
            let before = if partition + 1 == partitions { before } else { 0 };
            changes.push(Change::Grown { from: partitions, to: partitions + 2, partition, before });
        }
    }
    let stored = |group: &GroupId| StoredGroup {
        group: *group,
        name: format!("g{}", group.0).into(),
        filter: "#".into(),
        is_temporary: group.0 == 2,
    };
    let groups: Vec<StoredGroup> = groups.iter().chain([&removed]).map(stored).collect();
    let mut order: Vec<(u64, usize)> =
        (0..changes.len() + messages.len()).map(|at| (random.below(1 << 60), at)).collect();
    order.sort_unstable();
    let half = order[order.len() / 2].0;
    for (key, at) in order {
        if key == half {
            let queue = QueueRecord { qid, name: &name, partitions, mode };
            log.queue(&queue, &groups).expect("there is room");
        }
        let is_delayed = mode == Mode::Work && key.is_multiple_of(5);
        match changes.get(at) {
            Some(change) => log.queue_change(qid, change),
            None => log.queue_message(&QueueMessageRecord {
                qid,
                id: messages[at - changes.len()].0,
                at: Time::from_millis(key >> 20),
                key_hash: key,
                priority: (key % 10) as u8,
                expiry_s: key.is_multiple_of(3).then_some(key as u32 / 2),
                deliver_at: is_delayed.then_some(Time::from_millis(key >> 19)),
                content: &messages[at - changes.len()].1,
                position: 0,
            }),
        }
        .expect("there is room");
    }
}

#[test]
fn any_queue_is_the_same_after_export_and_import_and_after_compacting() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut messages = 0;
    for _ in 0..12 {
        let (data, copy) = (fresh("queues"), fresh("queues-copy"));
        let mut log = new_log(&data);
        for sid in 1..=random.below(4) {
            log.session(&random.consumer(sid)).expect("there is room");
        }
        for qid in 5..=5 + random.below(4) {
            random_queue(qid, &mut log, &mut random);
        }
        log.finish().expect("it syncs");
        let file = fresh("queues.jsonl");
        done(&["export", "-o", text_of(&file)], &data);
        let export = std::fs::read_to_string(&file).expect("a file");
        messages += lines(&export)[0]["queue_messages"].as_u64().expect("a number");
        done(&["import", text_of(&file)], &copy);
        assert!(done(&["export"], &copy) == export);
        for directory in [&copy, &data] {
            done(&["compact"], directory);
            assert!(done(&["export"], directory) == export);
            assert!(done(&["check"], directory).contains("intact"));
        }
    }
    assert!(messages > 1000, "{messages} messages are not much of a test");
}

#[test]
fn compacting_leaves_no_message_that_all_groups_have_settled() {
    let data = fresh("queue-compact");
    let mut log = new_log(&data);
    let mut random = Random(1);
    let queue = QueueRecord { qid: 7, name: "q", partitions: 1, mode: Mode::Work };
    let groups = [1, 2].map(|number| StoredGroup {
        group: GroupId(number),
        name: format!("g{number}").into(),
        filter: "#".into(),
        is_temporary: false,
    });
    log.queue(&queue, &groups).expect("there is room");
    for group in groups.map(|group| group.group) {
        let commit = Commit::Auto;
        log.queue_change(7, &Change::GroupCreated { group, commit }).expect("there is room");
        let (from, to) = if group.0 == 1 { (0, 950) } else { (0, 990) };
        let settled = Change::Settled { group, partition: 0, from, to };
        log.queue_change(7, &settled).expect("there is room");
    }
    for offset in 0..1000 {
        let content = random.queue_content();
        let message = QueueMessageRecord {
            qid: 7,
            id: MessageId { partition: 0, offset },
            at: Time::from_millis(offset),
            key_hash: offset,
            priority: 0,
            expiry_s: None,
            deliver_at: None,
            content: &content,
            position: 0,
        };
        log.queue_message(&message).expect("there is room");
    }
    log.finish().expect("it syncs");
    let (before, export) = (bytes(&data), lines(&done(&["export"], &data)));
    assert_eq!(export[0]["queue_messages"], json!(50));
    let settled = |line: &&Value| line["settled_by"] == json!([2]);
    assert_eq!(export.iter().filter(settled).count(), 40);
    done(&["compact"], &data);
    assert!(bytes(&data) < before / 10, "{} of {before}", bytes(&data));
    assert_eq!(lines(&done(&["export"], &data)), export);
}
