//! What a log does with frames, full disks and failures.

#[cfg(test)]
mod rig;

use dunlin_storage::{
    Backend, BackendError, Damage, FRAME_HEADER_BYTES, Log, LogError, LogOptions, MemoryBackend,
    OpenError, SegmentInfo, set_address,
};
use rig::{START, append, contents, frames, name_of, open, open_as, options, payloads, state};

#[test]
fn an_empty_directory_is_an_empty_log() {
    let log = open(&MemoryBackend::new(), 100);
    assert_eq!((log.oldest(), log.end(), log.durable(), log.bytes()), (START, START, START, 0));
    assert_eq!(log.segments().count(), 0);
}

#[test]
fn what_was_appended_is_read_back() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    log.append(&mut frames(START, &["one", "", "three"])).unwrap();
    assert_eq!((log.end(), log.durable()), (START + 3 * 32 + 8, START));
    log.sync().unwrap();
    assert_eq!(log.durable(), log.end());
    let (again, opened) = open_as(&backend, 100, Damage::Refuse).unwrap();
    assert_eq!((opened.frames, opened.payload_bytes, opened.torn_bytes), (3, 8, 0));
    assert_eq!(payloads(&again), [&b"one"[..], b"", b"three"]);
    assert_eq!(state(&again), state(&log));
}

#[test]
fn a_segment_that_is_large_enough_is_followed_by_another() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    log.append(&mut frames(START, &["a", "b", "c"])).unwrap();
    append(&mut log, b"d").unwrap();
    append(&mut log, &[b'e'; 500]).unwrap();
    append(&mut log, b"f").unwrap();
    // 32 + 33 + 33 is less than 100: the third frame still goes into the first segment.
    let third = START + 4 * 33 + 532;
    let segments = [
        SegmentInfo { base: START, end: START + 99, bytes: 131 },
        SegmentInfo { base: START + 99, end: third, bytes: 32 + 33 + 532 },
        SegmentInfo { base: third, end: third + 33, bytes: 65 },
    ];
    assert_eq!(log.segments().collect::<Vec<_>>(), segments);
    assert_eq!(log.bytes(), 131 + 32 + 33 + 532 + 65);
    assert_eq!(backend.names().unwrap(), segments.map(|segment| name_of(segment.base)));
    assert_eq!(state(&open(&backend, 100)), state(&log));
}

#[test]
fn a_segment_limit_below_a_header_makes_a_segment_per_frame() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    log.append(&mut frames(START, &["a", "b", ""])).unwrap();
    assert_eq!(log.segments().count(), 3);
    assert_eq!(payloads(&open(&backend, 0)), ["a", "b", ""].map(str::as_bytes));
}

#[test]
fn frames_of_any_size_are_written_and_read() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 4 << 20);
    let sizes = [0, 1, 600 << 10, 600 << 10, (1 << 20) - 32, 1 << 20, 3 << 20, 7, 1 << 19];
    let sent: Vec<_> = sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size]).collect();
    log.append(&mut frames(START, &sent)).unwrap();
    assert_eq!(payloads(&log), sent);
    assert_eq!(payloads(&open(&backend, 4 << 20)), sent);
}

#[test]
fn a_segment_is_whole_before_the_next_one_is_used() {
    let workload = |backend: &MemoryBackend| {
        let Ok((mut log, _)) = open_as(backend, 100, Damage::Refuse) else { return START };
        for n in 0..8_u8 {
            if append(&mut log, &[n; 30]).is_err() {
                break;
            }
        }
        log.durable()
    };
    for changes in 0..60 {
        for seed in 0..100 {
            let backend = MemoryBackend::new();
            backend.stop_after(changes);
            let durable = workload(&backend);
            if seed == 0 {
                backend.crash_with(|_| 0);
            } else {
                backend.crash(seed);
            }
            let log = open(&backend, 100);
            assert!(log.end() >= durable, "{changes} changes, seed {seed}");
            let expected = (0..8_u8).map(|n| vec![n; 30]);
            assert!(expected.zip(payloads(&log)).all(|(sent, found)| sent == found));
        }
    }
}

#[test]
fn a_full_device_takes_whole_frames_and_the_rest_later() {
    let sent: Vec<_> = (0..9_u8).map(|n| vec![n; 5 * usize::from(n)]).collect();
    for segment_bytes in [100, 10_000] {
        let whole = MemoryBackend::new();
        let mut log = open(&whole, segment_bytes);
        log.append(&mut frames(START, &sent)).unwrap();
        for capacity in 0..log.bytes() as usize {
            let backend = MemoryBackend::new();
            let mut log = open(&backend, segment_bytes);
            backend.limit_capacity(Some(capacity));
            let mut left = frames(START, &sent);
            assert_eq!(log.append(&mut left), Err(LogError::Full));
            let before = state(&log);
            left.retain(|frame| dunlin_storage::address_of(frame) >= log.end());
            assert_eq!(log.append(&mut left), Err(LogError::Full), "nothing has changed");
            assert_eq!(state(&log), before);
            assert!(log.bytes() as usize <= capacity);
            assert_eq!(backend.names().unwrap().len(), log.segments().count());
            assert_eq!(state(&open(&backend.fork(), segment_bytes)), before, "nothing was torn");

            backend.limit_capacity(None);
            log.append(&mut left).unwrap();
            log.sync().unwrap();
            backend.crash_with(|_| 0);
            assert_eq!(payloads(&open(&backend, segment_bytes)), sent);
            for name in whole.names().unwrap() {
                let address = |bytes: Vec<u8>| bytes.len();
                assert_eq!(backend.content(&name).map(address), whole.content(&name).map(address));
            }
        }
    }
}

#[test]
fn a_frame_that_would_exceed_the_limit_of_bytes_is_refused() {
    let backend = MemoryBackend::new();
    let limits = LogOptions { segment_bytes: 100, bytes_max: 320, secret: 0 };
    let (mut log, _) = Log::open(backend, limits, Damage::Refuse).unwrap();
    let mut sent = frames(START, &[[1; 18]; 10]);
    assert_eq!(log.append(&mut sent), Err(LogError::Full));
    // Two segments with two frames each; a third with one would make it 346.
    assert_eq!(log.bytes(), 2 * 132);
    assert_eq!(log.segments().count(), 2);
    log.remove_oldest().unwrap();
    log.append(&mut sent[4..6]).unwrap();
    assert_eq!(payloads(&log), [[1; 18]; 4]);
}

#[test]
fn a_failed_sync_is_never_tried_again() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    append(&mut log, b"a").unwrap();
    backend.fail_sync_after(0);
    assert_eq!(log.sync(), Err(LogError::Failed(BackendError::Failed(None))));
    let syncs = backend.syncs();
    assert_eq!(log.sync(), Err(LogError::Poisoned));
    assert_eq!(append(&mut log, b"b"), Err(LogError::Poisoned));
    assert_eq!(log.remove_oldest(), Err(LogError::Poisoned));
    assert!(log.is_poisoned());
    assert_eq!((backend.syncs(), log.durable()), (syncs, START));
}

#[test]
fn a_log_that_is_opened_again_after_a_failed_sync_proves_nothing() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 1000);
    append(&mut log, b"a").unwrap();
    log.sync().unwrap();
    let safe = log.end();
    append(&mut log, b"b").unwrap();
    backend.fail_sync_after(0);
    assert!(log.sync().is_err());
    let mut log = open(&backend, 1000);
    append(&mut log, b"c").unwrap();
    assert_eq!(log.sync(), Ok(()));
    backend.crash_with(|_| 0);
    match open_as(&backend, 1000, Damage::Refuse) {
        Err(OpenError::Corrupt(missing)) => {
            assert_eq!((missing[0].from, missing[0].to), (safe, safe + 33));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_sync_that_fails_while_a_segment_is_begun_poisons() {
    for count in 0..3 {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 0);
        append(&mut log, b"a").unwrap();
        backend.fail_sync_after(count);
        assert!(matches!(append(&mut log, b"b"), Err(LogError::Failed(_))), "sync {count}");
        assert_eq!(append(&mut log, b"b"), Err(LogError::Poisoned));
    }
}

#[test]
fn a_failed_write_poisons() {
    for kept in [0, 10, 33] {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 100);
        append(&mut log, b"a").unwrap();
        backend.fail_append_after(0, kept);
        let end = log.end();
        assert!(matches!(append(&mut log, b"b"), Err(LogError::Failed(_))));
        assert_eq!((append(&mut log, b"b"), log.end()), (Err(LogError::Poisoned), end));
    }
}

#[test]
fn a_partial_frame_that_cannot_be_cut_off_poisons() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    append(&mut log, b"a").unwrap();
    backend.limit_capacity(Some(70));
    backend.stop_after(1);
    assert!(matches!(append(&mut log, b"b"), Err(LogError::Failed(_))));
    assert_eq!(append(&mut log, b"b"), Err(LogError::Poisoned));
}

#[test]
fn a_removed_segment_does_not_come_back() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    for n in 0..9 {
        append(&mut log, &[n; 60]).unwrap();
    }
    log.sync().unwrap();
    let segments: Vec<_> = log.segments().collect();
    assert_eq!(log.remove_oldest(), Ok(Some(segments[0])));
    assert_eq!(log.oldest(), segments[1].base);
    backend.crash_with(|_| 0);
    let log = open(&backend, 100);
    assert_eq!(log.segments().collect::<Vec<_>>(), segments[1..]);
    assert_eq!(log.bytes(), segments[1..].iter().map(|segment| segment.bytes).sum::<u64>());
}

#[test]
fn the_segment_that_is_being_written_is_never_removed() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    assert_eq!(log.remove_oldest(), Ok(None));
    log.append(&mut frames(START, &["a", "b"])).unwrap();
    assert!(log.remove_oldest().unwrap().is_some());
    assert_eq!(log.remove_oldest(), Ok(None));
    assert_eq!(payloads(&open(&backend, 0)), [b"b"]);
}

#[test]
fn a_sync_without_anything_to_sync_costs_nothing() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    append(&mut log, b"a").unwrap();
    log.sync().unwrap();
    let syncs = backend.syncs();
    log.sync().unwrap();
    assert_eq!(backend.syncs(), syncs);
}

#[test]
#[should_panic(expected = "another address than its place")]
fn a_frame_with_an_address_of_another_place_is_refused() {
    let mut log = open(&MemoryBackend::new(), 100);
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    set_address(&mut frame, START + 1);
    let _ = log.append(&mut [frame]);
}

#[test]
fn files_with_other_names_are_left_alone() {
    let mut backend = MemoryBackend::new();
    for name in ["dunlin.lock", "1000.log", "0000000000001000.log.bak"] {
        backend.create(name).unwrap();
        backend.append(name, b"something").unwrap();
    }
    let (mut log, _) = Log::open(backend.clone(), options(100), Damage::Refuse).unwrap();
    append(&mut log, b"a").unwrap();
    assert_eq!(contents(&open(&backend, 100)), [(START, b"a".to_vec())]);
    assert_eq!(backend.content("dunlin.lock").unwrap(), b"something");
}
