//! What a sender can put into a payload, and what it cannot.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

#[cfg(test)]
mod rig;

use dunlin_storage::{
    Backend, Damage, FRAME_HEADER_BYTES, Log, LogOptions, MemoryBackend, OpenError, Opened, check,
};
use rig::{
    SEGMENT_HEADER_BYTES, START, append, contents, contents_and_missing, frames, name_of, payloads,
};

const SECRET: u32 = 0x8d21_f00d;

fn open_with(
    backend: &MemoryBackend,
    segment_bytes: u64,
    secret: u32,
    damage: Damage,
) -> Result<(Log<MemoryBackend>, Opened), OpenError> {
    let options = LogOptions { segment_bytes, bytes_max: 0, secret };
    Log::open(backend.clone(), options, damage)
}

fn open(backend: &MemoryBackend, segment_bytes: u64, secret: u32) -> Log<MemoryBackend> {
    open_with(backend, segment_bytes, secret, Damage::Refuse).unwrap().0
}

/// The frame that a log with this secret would have at `address`. It says that everything before
/// it was synced.
fn forged(address: u64, secret: u32, payload: &[u8]) -> Vec<u8> {
    let mut backend = MemoryBackend::new();
    // The name of a segment that was being created is where the log goes on.
    backend.create(&name_of(address)).unwrap();
    append(&mut open(&backend, 1 << 20, secret), payload).unwrap();
    backend.content(&name_of(address)).unwrap()[SEGMENT_HEADER_BYTES..].to_vec()
}

/// Damages the magic of the frame at `address`, in the first segment.
fn damage(backend: &MemoryBackend, address: u64) {
    let offset = SEGMENT_HEADER_BYTES + (address - START) as usize;
    backend.flip(&name_of(START), offset, 0xff).unwrap();
}

#[test]
fn a_forged_frame_does_not_make_a_torn_tail_look_like_corruption() {
    for secret in [0, 1, SECRET ^ 1, SECRET ^ 0x8000_0000, !SECRET, SECRET] {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 10_000, SECRET);
        append(&mut log, &forged(START + 32, secret, b"forged")).unwrap();
        damage(&backend, START);
        let found = open_with(&backend, 10_000, SECRET, Damage::Refuse);
        if secret == SECRET {
            // That the address was guessed well, and only the secret stands in the way.
            assert!(matches!(found, Err(OpenError::Corrupt(_))), "{found:?}");
            continue;
        }
        let (log, opened) = found.unwrap();
        assert_eq!((log.end(), opened.frames, opened.torn_bytes), (START, 0, 70), "{secret:x}");
    }
}

#[test]
fn a_forged_frame_is_not_read_behind_damage() {
    for secret in [0, SECRET ^ 1] {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 10_000, SECRET);
        append(&mut log, &forged(START + 32, secret, b"forged")).unwrap();
        append(&mut log, b"good").unwrap();
        log.sync().unwrap();
        append(&mut log, b"").unwrap();
        damage(&backend, START);
        let (log, opened) = open_with(&backend, 10_000, secret, Damage::Skip).unwrap();
        assert_eq!(opened.missing.len(), 1);
        let (found, missing) = contents_and_missing(&log);
        let good = START + 70;
        assert_eq!(found, [(good, b"good".to_vec()), (good + 36, Vec::new())]);
        assert_eq!(missing, [(START, good)]);
    }
}

#[test]
fn a_forged_frame_cannot_use_the_crc_of_a_later_one() {
    // The forged frame begins in the payload of the first frame and reaches over all of the second,
    // which the same sender sends. The secret comes into its CRC twice: from the beginning, and
    // with the CRC field of the second. Were that the plain CRC, the two would cancel out where the
    // second frame is as long as what lies before its CRC field in the forged one: 32 bytes of
    // header, the rest, and 24.
    for rest in [0, 1, 100] {
        let second_payload = vec![7; 24 + rest];
        let sent = |forged_header: &[u8]| {
            let first = [forged_header, &vec![9; rest]].concat();
            frames(START, &[&first, &second_payload])
        };
        let rehearsal = MemoryBackend::new();
        let mut log = open(&rehearsal, 10_000, 0);
        log.append(&mut sent(&[0; FRAME_HEADER_BYTES])).unwrap();
        let behind_header = SEGMENT_HEADER_BYTES + 2 * FRAME_HEADER_BYTES;
        let covered = rehearsal.content(&name_of(START)).unwrap()[behind_header..].to_vec();
        let frame = forged(START + 32, 0, &covered);

        for secret in [0, SECRET] {
            let backend = MemoryBackend::new();
            let mut log = open(&backend, 10_000, secret);
            log.append(&mut sent(&frame[..FRAME_HEADER_BYTES])).unwrap();
            damage(&backend, START);
            let found = open_with(&backend, 10_000, secret, Damage::Refuse);
            if secret == 0 {
                assert!(matches!(found, Err(OpenError::Corrupt(_))), "{found:?}");
                continue;
            }
            assert_eq!(found.unwrap().0.end(), START, "{rest} bytes between");
        }
    }
}

#[test]
fn every_segment_keeps_the_secret_it_began_with() {
    let backend = MemoryBackend::new();
    let mut sent = Vec::new();
    for secret in [3, 0, SECRET, u32::MAX] {
        // Each goes on in the last segment of the one before it.
        let mut log = open(&backend, 150, secret);
        for n in 0..7_u8 {
            let payload = vec![n; usize::from(n) + 40];
            append(&mut log, &payload).unwrap();
            sent.push(payload);
        }
        assert_eq!(payloads(&log), sent);
    }
    let log = open(&backend, 150, 77);
    assert_eq!(payloads(&log), sent);
    assert_eq!(check(&backend).unwrap().missing, []);
    let secret_of = |base| {
        let bytes = backend.content(&name_of(base)).unwrap();
        u32::from_le_bytes(bytes[12..16].try_into().unwrap())
    };
    let mut secrets: Vec<u32> = log.segments().map(|segment| secret_of(segment.base)).collect();
    assert!(secrets.len() > 8);
    secrets.dedup();
    assert_eq!(secrets, [3, 0, SECRET, u32::MAX]);
}

#[test]
fn frames_that_follow_in_a_segment_have_its_secret() {
    for empty in [true, false] {
        let backend = MemoryBackend::new();
        let mut log = open(&backend, 10_000, 1);
        append(&mut log, b"one").unwrap();
        if empty {
            // Nothing but the header was synced.
            damage(&backend, START);
        }
        drop(log);
        let mut log = open(&backend, 10_000, 2);
        append(&mut log, b"two").unwrap();
        log.sync().unwrap();
        backend.crash_with(|_| 0);
        let log = open(&backend, 10_000, 3);
        assert_eq!((log.segments().count(), contents(&log).len()), (1, 2 - usize::from(empty)));
        assert_eq!(backend.content(&name_of(START)).unwrap()[12..16], [1, 0, 0, 0]);
    }
}
