//! `dunlin storage compact`: gives the space back of what is done with.
//!
//! A broker that runs does that itself when it finds a file of a certain name. Without one, what is
//! alive is written to a new log, that is read again and compared, and the two are exchanged.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use dunlin_queue::partitioned::RestoredMessage;
use dunlin_storage::DiskBackend;

use super::Outcome;
use super::directory::{DataDirectory, Kept, counted, read_image};
use super::message;
use super::staged::Staged;
use crate::cli::lock::try_lock;
use crate::clock::Clock;
use crate::serve::log_options;
use crate::store::record::{MessageRecord, QueueMessageRecord, Refs};
use crate::store::{COMPACT_REQUEST, Deliveries, Image, NewLog, Snapshot, StoredQueue};

/// Between two looks at whether the broker is done.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
/// Between two lines of progress.
const PROGRESS_INTERVAL_MS: u64 = 2_000;

pub(super) fn run(directory: &DataDirectory<'_>, timeout_s: u32) -> Outcome<()> {
    // Before the lock, which would make the directory's first file.
    if !directory.log().is_dir() {
        return Err(format!("there is no log in the data directory {}", directory.shown()).into());
    }
    directory.check_owner()?;
    let (before, after) = match try_lock(&directory.path)? {
        Some(_lock) => rewrite(directory)?,
        None => ask(directory, timeout_s)?,
    };
    println!("{} before, {} after", counted(before, "byte"), counted(after, "byte"));
    Ok(())
}

/// Of the segments.
fn bytes_of(log: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(log)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            // It may have gone meanwhile.
            bytes += entry.metadata().map_or(0, |metadata| metadata.len());
        }
    }
    Ok(bytes)
}

fn rewrite(directory: &DataDirectory<'_>) -> Outcome<(u64, u64)> {
    let kept = directory.read(true)?;
    let staged = Staged::begin(directory)?;
    let done = write_alive(directory, &kept, &staged).and_then(|bytes| {
        staged.put_in_place()?;
        Ok(bytes)
    });
    if done.is_err() {
        staged.remove()?;
    }
    Ok((kept.snapshot.bytes(), done?))
}

/// Writes what is alive, reads it again and compares. Says how many bytes that takes.
fn write_alive(directory: &DataDirectory<'_>, kept: &Kept, staged: &Staged) -> Outcome<u64> {
    let image = &kept.image;
    let mut log = NewLog::begin(staged.backend()?, log_options(directory.config))?;
    if let Some(keys) = image.keys {
        log.keys(keys)?;
    }
    let mut deliveries = Deliveries::default();
    for session in &image.sessions {
        log.session(session)?;
        deliveries.add(session);
    }
    message::for_each(kept, |message| {
        let refs = deliveries.take(message.id).unwrap_or_default();
        Ok(log.message(&MessageRecord {
            id: message.id,
            qos: message.at.qos,
            retain: message.at.retain,
            is_retained: false,
            expires_at: message.at.expires_at,
            received: message.at.received,
            publisher: 0,
            topic_len: message.at.topic_len,
            properties_len: message.at.properties_len,
            content: &message.content,
            refs: Refs::new(&refs),
            position: 0,
        })?)
    })?;
    for retained in &image.retained {
        log.retained(retained)?;
    }
    for queue in &image.queues {
        write_queue(kept, queue, &mut log)?;
    }
    log.finish()?;
    let (snapshot, report) = Snapshot::take(&staged.path)?;
    let written = read_image(&staged.path, &snapshot, &report)?;
    if !report.missing.is_empty() || !is_same(image, &written) {
        return Err("what was written is not what was read; the log is as it was".into());
    }
    Ok(snapshot.bytes())
}

fn write_queue(kept: &Kept, queue: &StoredQueue, log: &mut NewLog<DiskBackend>) -> Outcome<()> {
    let qid = queue.qid;
    log.queue(&queue.record(), &queue.groups)?;
    let mut changes = Vec::new();
    queue.restoring.changes(queue.mode, &mut changes);
    for change in &changes {
        log.queue_change(qid, change)?;
    }
    message::for_each_in_queue(kept, queue, |message, content| {
        let RestoredMessage { id, at, key_hash, priority, expiry_s, deliver_at, .. } = *message;
        Ok(log.queue_message(&QueueMessageRecord {
            qid,
            id,
            at,
            key_hash,
            priority,
            expiry_s,
            deliver_at,
            content,
            position: 0,
        })?)
    })
}

/// Whether two logs keep the same, wherever it is in them.
fn is_same(one: &Image, other: &Image) -> bool {
    let has_messages = one.messages.len() == other.messages.len()
        && one.messages.iter().all(|(id, message)| {
            other.messages.get(id).is_some_and(|found| {
                let mut moved = *found;
                moved.position = message.position;
                moved == *message
            })
        });
    let retained = |image: &Image| {
        let mut retained = image.retained.clone();
        retained.sort_unstable_by(|one, next| one.topic().cmp(next.topic()));
        retained
    };
    has_messages
        && one.sessions == other.sessions
        && one.keys == other.keys
        && retained(one) == retained(other)
        && one.queues.len() == other.queues.len()
        && one.queues.iter().zip(&other.queues).all(|(one, other)| is_same_queue(one, other))
}

/// Whether two queues are the same, wherever their messages are in the log.
fn is_same_queue(one: &StoredQueue, other: &StoredQueue) -> bool {
    let changes = |queue: &StoredQueue| {
        let mut changes = Vec::new();
        queue.restoring.changes(queue.mode, &mut changes);
        changes
    };
    let without_place = |message| RestoredMessage { position: 0, ..message };
    let messages = one.restoring.messages(one.mode).map(without_place);
    let others = other.restoring.messages(other.mode).map(without_place);
    one.record() == other.record()
        && one.groups == other.groups
        && changes(one) == changes(other)
        && messages.eq(others)
}

/// Has the broker compact its log, and waits until it has.
fn ask(directory: &DataDirectory<'_>, timeout_s: u32) -> Outcome<(u64, u64)> {
    let log = directory.log();
    let before = bytes_of(&log)?;
    let request = log.join(COMPACT_REQUEST);
    match OpenOptions::new().write(true).create_new(true).open(&request) {
        // Somebody else has asked for it.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => drop(result?),
    }
    let clock = Clock::start();
    let started = clock.now();
    let (deadline, mut tell_at) =
        (started.plus_seconds(timeout_s), started.plus_millis(PROGRESS_INTERVAL_MS));
    while request.exists() {
        let now = clock.now();
        if try_lock(&directory.path)?.is_some() {
            let _ = std::fs::remove_file(&request);
            return Err(
                "the broker has ended meanwhile; without it this can be done at once".into()
            );
        }
        if now >= deadline {
            // If the broker has begun, it goes on to the end.
            let is_new = std::fs::metadata(&request).is_ok_and(|file| file.len() == 0);
            let and = if is_new && std::fs::remove_file(&request).is_ok() {
                "it has not begun, and will not"
            } else {
                "it goes on"
            };
            return Err(format!("the broker is not done after {timeout_s} s; {and}").into());
        }
        if now >= tell_at {
            tell_at = now.plus_millis(PROGRESS_INTERVAL_MS);
            eprintln!("the broker is at it: {before} bytes before, {} now", bytes_of(&log)?);
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
    Ok((before, bytes_of(&log)?))
}
