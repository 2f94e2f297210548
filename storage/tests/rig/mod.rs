//! Opens logs in memory, appends frames and reads them back.
#![allow(dead_code, reason = "no test uses all of it")]

use dunlin_storage::{
    Backend, Damage, Entry, FRAME_HEADER_BYTES, Log, LogError, LogOptions, MemoryBackend,
    OpenError, Opened, SegmentInfo, set_address,
};

/// Where a segment file begins its frames.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 32;
/// The address of the first frame of a new log.
pub(crate) const START: u64 = 4096;

/// The secret of the logs here, unless a test is about it.
pub(crate) const SECRET: u32 = 0x5ec7_e700;

/// A frame's address and payload.
pub(crate) type Frame = (u64, Vec<u8>);

pub(crate) fn options(segment_bytes: u64) -> LogOptions {
    LogOptions { segment_bytes, bytes_max: 0, secret: SECRET }
}

pub(crate) fn open_as(
    backend: &MemoryBackend,
    segment_bytes: u64,
    damage: Damage,
) -> Result<(Log<MemoryBackend>, Opened), OpenError> {
    Log::open(backend.clone(), options(segment_bytes), damage)
}

/// Opens a log that is expected to be whole.
pub(crate) fn open(backend: &MemoryBackend, segment_bytes: u64) -> Log<MemoryBackend> {
    open_as(backend, segment_bytes, Damage::Refuse).unwrap().0
}

/// Frames for the end of a log, with these payloads.
pub(crate) fn frames<P: AsRef<[u8]>>(end: u64, payloads: &[P]) -> Vec<Vec<u8>> {
    let mut address = end;
    let frame = |payload: &P| {
        let mut frame = vec![0; FRAME_HEADER_BYTES];
        frame.extend_from_slice(payload.as_ref());
        set_address(&mut frame, address);
        address += frame.len() as u64;
        frame
    };
    payloads.iter().map(frame).collect()
}

pub(crate) fn append<B: Backend>(log: &mut Log<B>, payload: &[u8]) -> Result<(), LogError> {
    log.append(&mut frames(log.end(), &[payload]))
}

/// All frames of a log; panics if it has a gap.
pub(crate) fn contents<B: Backend>(log: &Log<B>) -> Vec<Frame> {
    let (frames, missing) = contents_and_missing(log);
    assert_eq!(missing, []);
    let mut expected = log.oldest();
    for (address, payload) in &frames {
        assert_eq!(*address, expected);
        expected += (FRAME_HEADER_BYTES + payload.len()) as u64;
    }
    assert_eq!(expected, log.end());
    frames
}

/// All frames of a log, and the address ranges of its segments where there is none.
pub(crate) fn contents_and_missing<B: Backend>(log: &Log<B>) -> (Vec<Frame>, Vec<(u64, u64)>) {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for info in log.segments() {
        let mut frames = log.frames(info.base).unwrap();
        while let Some(entry) = frames.next().unwrap() {
            match entry {
                Entry::Frame { address, payload } => found.push((address, payload.to_vec())),
                Entry::Missing { from, to } => missing.push((from, to)),
            }
        }
    }
    (found, missing)
}

pub(crate) fn payloads<B: Backend>(log: &Log<B>) -> Vec<Vec<u8>> {
    contents(log).into_iter().map(|(_, payload)| payload).collect()
}

pub(crate) fn name_of(base: u64) -> String {
    format!("{base:016x}.log")
}

/// What a log says of itself.
pub(crate) fn state<B: Backend>(log: &Log<B>) -> (u64, u64, u64, Vec<SegmentInfo>) {
    (log.oldest(), log.end(), log.bytes(), log.segments().collect::<Vec<_>>())
}
