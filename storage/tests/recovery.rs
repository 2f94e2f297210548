//! What a log finds after a crash, and what it makes of damage.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

#[cfg(test)]
mod rig;

use dunlin_storage::{
    Backend, Damage, FORMAT_VERSION, Log, MemoryBackend, Missing, OpenError, check,
};
use rig::{
    SEGMENT_HEADER_BYTES, START, append, contents, contents_and_missing, frames, name_of, open,
    open_as, payloads, state,
};

/// Replaces a file by `bytes`, durably.
fn replace(backend: &MemoryBackend, name: &str, bytes: &[u8]) {
    let mut backend = backend.clone();
    if backend.content(name).is_ok() {
        backend.remove(name).unwrap();
    }
    backend.create(name).unwrap();
    backend.append(name, bytes).unwrap();
    backend.sync(name).unwrap();
    backend.sync_names().unwrap();
}

/// Five frames of 40 bytes, each synced, and an empty one that says so.
fn synced(backend: &MemoryBackend, segment_bytes: u64) -> Log<MemoryBackend> {
    let mut log = open(backend, segment_bytes);
    for n in 0..5 {
        append(&mut log, &[n; 8]).unwrap();
        log.sync().unwrap();
    }
    append(&mut log, b"").unwrap();
    log.sync().unwrap();
    log
}

fn corrupt(
    result: Result<(Log<MemoryBackend>, dunlin_storage::Opened), OpenError>,
) -> Vec<Missing> {
    match result {
        Err(OpenError::Corrupt(missing)) => missing,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_ends() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 1000);
    log.append(&mut frames(START, &["one", "two", "three"])).unwrap();
    let whole = backend.content(&name_of(START)).unwrap();
    for len in SEGMENT_HEADER_BYTES..whole.len() {
        let torn = MemoryBackend::new();
        replace(&torn, &name_of(START), &whole[..len]);
        let frames = [35, 70].iter().filter(|end| len >= SEGMENT_HEADER_BYTES + **end).count();
        let (mut log, opened) = open_as(&torn, 1000, Damage::Refuse).unwrap();
        assert_eq!(opened.torn_bytes as usize, len - SEGMENT_HEADER_BYTES - 35 * frames);
        assert_eq!((opened.frames as usize, log.end()), (frames, START + 35 * frames as u64));
        assert_eq!(log.durable(), log.end());
        append(&mut log, b"again").unwrap();
        assert_eq!(payloads(&open(&torn, 1000)).len(), frames + 1);
    }
}

#[test]
fn a_hole_that_was_never_synced_is_torn_with_all_that_follows() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100_000);
    append(&mut log, &[1; 600]).unwrap();
    log.sync().unwrap();
    let durable = log.end();
    for n in 2..6 {
        append(&mut log, &[n; 600]).unwrap();
    }
    // In the first frame that was not synced; three good ones follow.
    backend.flip(&name_of(START), SEGMENT_HEADER_BYTES + 632 + 100, 1).unwrap();
    let (log, opened) = open_as(&backend, 100_000, Damage::Refuse).unwrap();
    assert_eq!((log.end(), opened.torn_bytes, opened.frames), (durable, 4 * 632, 1));
    assert_eq!(contents(&log), [(START, vec![1; 600])]);
}

#[test]
fn what_an_open_log_calls_durable_is() {
    let backend = MemoryBackend::new();
    append(&mut open(&backend, 100), b"written by a process that was killed").unwrap();
    let log = open(&backend, 100);
    assert_eq!(log.durable(), log.end());
    backend.crash_with(|_| 0);
    assert_eq!(open(&backend, 100).end(), log.end());
}

#[test]
fn a_segment_of_a_process_that_was_killed_is_durable_before_it_is_used() {
    for changes in 0..10 {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 100);
        backend.stop_after(changes);
        let _ = append(&mut log, b"first");
        // The process is gone, the power is not.
        backend.stop_after(usize::MAX);
        let mut log = open(&backend, 100);
        append(&mut log, b"second").unwrap();
        log.sync().unwrap();
        backend.crash_with(|_| 0);
        assert_eq!(open(&backend, 100).end(), log.end(), "{changes} changes");
    }
}

#[test]
fn a_cut_is_durable_before_anything_follows() {
    let mut backend = MemoryBackend::new();
    append(&mut open(&backend, 100), b"good").unwrap();
    backend.append(&name_of(START), b"half a frame").unwrap();
    backend.sync(&name_of(START)).unwrap();
    let log = open(&backend, 100);
    backend.crash_with(|_| 0);
    let bytes = backend.content(&name_of(START)).unwrap().len();
    assert_eq!(bytes as u64, log.bytes());
}

#[test]
fn every_flipped_byte_before_a_synced_frame_is_told() {
    for segment_bytes in [100, 10_000] {
        let backend = MemoryBackend::new();
        let log = synced(&backend, segment_bytes);
        // The last frame says that all before it was synced, and nothing says so of itself.
        let marker = log.end() - 32;
        for segment in log.segments() {
            for offset in 0..segment.bytes as usize {
                let copy = backend.fork();
                copy.flip(&name_of(segment.base), offset, 0x10).unwrap();
                let before = copy.content(&name_of(segment.base));
                let result = open_as(&copy, segment_bytes, Damage::Refuse);
                let address = segment.base + (offset.max(32) - 32) as u64;
                if offset >= SEGMENT_HEADER_BYTES && address >= marker {
                    assert_eq!(result.unwrap().1.torn_bytes, 32);
                    continue;
                }
                let missing = corrupt(result);
                assert_eq!(copy.content(&name_of(segment.base)), before, "nothing was changed");
                assert_eq!(missing.len(), 1);
                assert_eq!(missing[0].file, name_of(segment.base));
                if offset < SEGMENT_HEADER_BYTES {
                    assert_eq!((missing[0].from, missing[0].to), (segment.base, segment.end));
                    assert_eq!(missing[0].offset, 0);
                    continue;
                }
                let from = START + (address - START) / 40 * 40;
                let behind = (marker - from) / 40;
                assert_eq!((missing[0].from, missing[0].to), (from, from + 40));
                assert_eq!(missing[0].offset, 32 + from - segment.base);
                assert_eq!(missing[0].frames_behind, behind, "offset {offset}");
            }
        }
    }
}

#[test]
fn damage_in_a_segment_that_is_not_the_last_is_never_torn() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    append(&mut log, b"first").unwrap();
    append(&mut log, b"second").unwrap();
    let bytes = backend.content(&name_of(START)).unwrap();
    replace(&backend, &name_of(START), &bytes[..bytes.len() - 1]);
    let missing = corrupt(open_as(&backend, 0, Damage::Refuse));
    let expected = Missing {
        file: name_of(START),
        offset: 32,
        from: START,
        to: START + 37,
        frames_behind: 1,
        unlisted: 0,
    };
    assert_eq!(missing, [expected]);
}

#[test]
fn damage_before_a_segment_that_was_being_created_is_not_torn() {
    let mut backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    append(&mut log, b"first").unwrap();
    log.sync().unwrap();
    backend.flip(&name_of(START), 66, 1).unwrap();
    backend.create(&name_of(log.end())).unwrap();
    assert_eq!(corrupt(open_as(&backend, 100, Damage::Refuse))[0].from, START);
}

#[test]
fn a_segment_that_is_gone_is_told() {
    let mut backend = MemoryBackend::new();
    let log = synced(&backend, 0);
    let segments: Vec<_> = log.segments().collect();
    backend.remove(&name_of(segments[2].base)).unwrap();
    backend.remove(&name_of(segments[3].base)).unwrap();
    let missing = corrupt(open_as(&backend, 0, Damage::Refuse));
    assert_eq!((missing[0].from, missing[0].to), (segments[2].base, segments[4].base));
    assert_eq!((missing[0].file.as_str(), missing[0].frames_behind), (&*name_of(START + 40), 2));
}

#[test]
fn addresses_before_a_segment_that_was_being_created_are_not_given_out_again() {
    let mut backend = MemoryBackend::new();
    append(&mut open(&backend, 100), b"first").unwrap();
    backend.create(&name_of(8192)).unwrap();
    let lost = (START + 37, 8192);
    for _ in 0..2 {
        let (log, opened) = open_as(&backend, 10_000, Damage::Skip).unwrap();
        assert_eq!(log.end(), 8192);
        assert_eq!((opened.missing[0].from, opened.missing[0].to), lost);
    }
    let (mut log, _) = open_as(&backend, 10_000, Damage::Skip).unwrap();
    append(&mut log, b"second").unwrap();
    let (log, _) = open_as(&backend, 10_000, Damage::Skip).unwrap();
    let (found, missing) = contents_and_missing(&log);
    assert_eq!(found, [(START, b"first".to_vec()), (8192, b"second".to_vec())]);
    assert_eq!(missing, [lost]);
}

#[test]
fn damage_can_be_skipped_and_the_log_goes_on() {
    for segment_bytes in [0, 100, 10_000] {
        let backend = MemoryBackend::new();
        let whole = contents(&synced(&backend, segment_bytes));
        let segment = open(&backend, segment_bytes).segments().nth(1).map_or(START, |s| s.base);
        let offset = if segment_bytes == 10_000 { 32 + 2 * 40 } else { 32 };
        backend.flip(&name_of(segment), offset + 35, 1).unwrap();
        let lost = segment + offset as u64 - 32;
        let (mut log, opened) = open_as(&backend, segment_bytes, Damage::Skip).unwrap();
        assert_eq!(opened.frames, 5);
        assert_eq!((opened.missing[0].from, opened.missing[0].to), (lost, lost + 40));
        append(&mut log, b"more").unwrap();
        log.sync().unwrap();
        let (log, opened) = open_as(&backend, segment_bytes, Damage::Skip).unwrap();
        assert_eq!(opened.missing.len(), 1);
        let (found, missing) = contents_and_missing(&log);
        let mut expected = whole.clone();
        expected.retain(|(address, _)| *address != lost);
        expected.push((START + 5 * 40 + 32, b"more".to_vec()));
        assert_eq!((found, missing), (expected, vec![(lost, lost + 40)]));
    }
}

#[test]
fn a_last_segment_without_anything_good_is_corrupt() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    append(&mut log, b"first").unwrap();
    append(&mut log, b"second").unwrap();
    log.sync().unwrap();
    let last = log.segments().last().unwrap();
    replace(&backend, &name_of(last.base), &vec![0; last.bytes as usize]);
    assert_eq!(corrupt(open_as(&backend, 0, Damage::Refuse)).len(), 1);
    // Its addresses are not given out again.
    let (mut log, opened) = open_as(&backend, 10_000, Damage::Skip).unwrap();
    assert_eq!((log.end(), opened.frames), (last.end, 1));
    append(&mut log, b"third").unwrap();
    let (log, _) = open_as(&backend, 0, Damage::Skip).unwrap();
    let (found, missing) = contents_and_missing(&log);
    assert_eq!(found, [(START, b"first".to_vec()), (last.end, b"third".to_vec())]);
    assert_eq!(missing, [(last.base, last.end)]);
}

#[test]
fn a_segment_that_was_being_created_is_no_loss() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    append(&mut log, b"first").unwrap();
    log.sync().unwrap();
    let one = backend.fork();
    append(&mut log, b"second").unwrap();
    let next = name_of(START + 37);
    let header = backend.content(&next).unwrap()[..SEGMENT_HEADER_BYTES].to_vec();
    for len in 0..=SEGMENT_HEADER_BYTES {
        for whole in [true, false] {
            let copy = one.fork();
            replace(&copy, &next, if whole { &header[..len] } else { &[0; 32][..len] });
            let mut log = open(&copy, 10_000);
            assert_eq!(payloads(&log), [b"first"]);
            append(&mut log, b"second").unwrap();
            assert_eq!(payloads(&log), [&b"first"[..], b"second"]);
            assert_eq!(state(&open(&copy, 10_000)), state(&log));
        }
    }
}

#[test]
fn the_name_of_a_lone_segment_keeps_its_address() {
    let backend = MemoryBackend::new();
    replace(&backend, &name_of(1 << 40), b"DUNL");
    for _ in 0..2 {
        let log = open(&backend, 100);
        assert_eq!((log.oldest(), log.end()), (1 << 40, 1 << 40));
    }
    append(&mut open(&backend, 100), b"a").unwrap();
    assert_eq!(contents(&open(&backend, 100)), [(1 << 40, b"a".to_vec())]);
}

#[test]
fn another_version_is_not_touched() {
    let backend = MemoryBackend::new();
    synced(&backend, 100);
    let name = name_of(START);
    let mut bytes = backend.content(&name).unwrap();
    bytes[8..12].copy_from_slice(&(FORMAT_VERSION + 1).to_le_bytes());
    let crc = crc32c::crc32c(&bytes[..24]);
    bytes[24..28].copy_from_slice(&crc.to_le_bytes());
    replace(&backend, &name, &bytes);
    for damage in [Damage::Refuse, Damage::Skip] {
        let error = open_as(&backend, 100, damage).unwrap_err();
        let expected =
            OpenError::Version { file: name.clone(), version: FORMAT_VERSION + 1, supported: 1 };
        assert_eq!(error, expected);
        assert!(error.to_string().contains("has format version 2, supported is 1"));
    }
    assert_eq!(backend.content(&name).unwrap(), bytes);
}

#[test]
fn a_renamed_segment_is_not_touched() {
    let backend = MemoryBackend::new();
    synced(&backend, 10_000);
    let bytes = backend.content(&name_of(START)).unwrap();
    let moved = MemoryBackend::new();
    replace(&moved, &name_of(8192), &bytes);
    let expected = OpenError::Misnamed { file: name_of(8192), expected: name_of(START) };
    assert_eq!(open_as(&moved, 100, Damage::Skip).unwrap_err(), expected);
    assert_eq!(moved.content(&name_of(8192)).unwrap(), bytes);
}

#[test]
fn a_segment_with_a_damaged_header_is_missing_as_a_whole_and_takes_no_more() {
    for segment_bytes in [100, 10_000] {
        let backend = MemoryBackend::new();
        let log = synced(&backend, segment_bytes);
        let whole = contents(&log);
        let last = log.segments().last().unwrap();
        backend.flip(&name_of(last.base), 13, 1).unwrap();
        let lost = (last.base, last.end);
        let missing = corrupt(open_as(&backend, segment_bytes, Damage::Refuse));
        assert_eq!((missing[0].from, missing[0].to, missing[0].offset), (lost.0, lost.1, 0));
        let bytes = lost.1 - lost.0;
        let expected = format!("the header is damaged, so {bytes} bytes cannot be checked");
        assert!(missing[0].to_string().contains(&expected), "{}", missing[0]);
        assert_eq!(check(&backend).unwrap().missing, missing);

        let (mut log, _) = open_as(&backend, segment_bytes, Damage::Skip).unwrap();
        assert_eq!(log.end(), last.end);
        append(&mut log, b"more").unwrap();
        assert_eq!(log.segments().last().unwrap().base, last.end);
        let (log, opened) = open_as(&backend, segment_bytes, Damage::Skip).unwrap();
        assert_eq!((opened.missing.len(), opened.missing[0].frames_behind), (1, 1));
        let mut expected = whole;
        expected.retain(|(address, _)| *address < last.base);
        expected.push((last.end, b"more".to_vec()));
        assert_eq!(contents_and_missing(&log), (expected, vec![lost]));
    }
}

#[test]
fn a_thousand_missing_parts_are_listed_and_the_rest_is_counted() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 1 << 20);
    let damaged = 1234;
    log.append(&mut frames(START, &vec![b""; 2 * damaged])).unwrap();
    log.sync().unwrap();
    append(&mut log, b"").unwrap();
    for n in 0..damaged {
        backend.flip(&name_of(START), SEGMENT_HEADER_BYTES + 2 * n * 32, 1).unwrap();
    }
    let missing = corrupt(open_as(&backend, 1 << 20, Damage::Refuse));
    assert_eq!(missing.len(), 1000);
    assert!(missing[..999].iter().all(|part| part.unlisted == 0));
    assert_eq!((missing[999].from, missing[999].unlisted), (START + 2 * 999 * 32, 234));
    assert!(missing[999].to_string().ends_with("; 234 more parts are missing"));
    let (log, opened) = open_as(&backend, 1 << 20, Damage::Skip).unwrap();
    assert_eq!((opened.frames as usize, opened.missing), (damaged + 1, missing));
    assert_eq!(contents_and_missing(&log).1.len(), damaged);
}

#[test]
fn frames_inside_a_payload_are_not_taken_for_frames() {
    let other = MemoryBackend::new();
    synced(&other, 10_000);
    let log_in_a_payload = other.content(&name_of(START)).unwrap();
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 10_000);
    append(&mut log, &log_in_a_payload).unwrap();
    // The header of the frame is gone, the payload is not.
    backend.flip(&name_of(START), 32, 0xff).unwrap();
    let (log, opened) = open_as(&backend, 10_000, Damage::Refuse).unwrap();
    assert_eq!((log.end(), opened.frames), (START, 0));
}

#[test]
fn the_next_good_frame_is_found_across_bites() {
    // The search reads 1 MiB at a time; let the next magic lie across its edge, in every way.
    for shift in 0..8_usize {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 64 << 20);
        append(&mut log, &vec![7; (1 << 20) - 32 - shift]).unwrap();
        append(&mut log, b"good").unwrap();
        log.sync().unwrap();
        append(&mut log, b"").unwrap();
        backend.flip(&name_of(START), 40, 1).unwrap();
        let missing = corrupt(open_as(&backend, 64 << 20, Damage::Refuse));
        assert_eq!(missing[0].to - missing[0].from, (1 << 20) - shift as u64);
        assert_eq!(missing[0].frames_behind, 2);
    }
}

#[test]
fn a_length_is_not_believed() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 100);
    append(&mut log, b"good").unwrap();
    let mut bytes = backend.content(&name_of(START)).unwrap();
    bytes[32 + 4..32 + 8].copy_from_slice(&(512_u32 << 20).to_le_bytes());
    replace(&backend, &name_of(START), &bytes);
    let (log, opened) = open_as(&backend, 100, Damage::Refuse).unwrap();
    assert_eq!((log.end(), opened.torn_bytes), (START, 36));
}

#[test]
fn a_check_tells_what_opening_would_find_and_changes_nothing() {
    let mut backend = MemoryBackend::new();
    let log = synced(&backend, 100);
    let whole = check(&backend).unwrap();
    assert_eq!(whole.end, log.end());
    let segments: Vec<_> = whole.segments.iter().map(|checked| checked.segment).collect();
    assert_eq!(segments, log.segments().collect::<Vec<_>>());
    assert_eq!(whole.segments.iter().map(|checked| checked.frames).sum::<u64>(), 6);
    assert_eq!(whole.segments.iter().map(|checked| checked.payload_bytes).sum::<u64>(), 40);
    assert_eq!((whole.torn_bytes, whole.missing), (0, vec![]));

    let last = name_of(segments[segments.len() - 1].base);
    backend.append(&last, b"half a frame").unwrap();
    backend.flip(&name_of(START), 40, 1).unwrap();
    let before: Vec<_> = backend.names().unwrap();
    let torn = check(&backend).unwrap();
    assert_eq!(torn.torn_bytes, 12);
    assert_eq!((torn.missing[0].from, torn.missing[0].to), (START, START + 40));
    assert_eq!(backend.names().unwrap(), before);
    assert!(backend.content(&last).unwrap().ends_with(b"half a frame"));
}

#[test]
fn a_segment_that_is_being_created_is_torn_for_a_check() {
    let mut backend = MemoryBackend::new();
    let log = synced(&backend, 100);
    backend.create(&name_of(log.end())).unwrap();
    backend.append(&name_of(log.end()), b"DUNLNLOG").unwrap();
    let report = check(&backend).unwrap();
    assert_eq!((report.torn_bytes, report.missing), (8, vec![]));
    assert!(backend.content(&name_of(log.end())).is_ok());
}
