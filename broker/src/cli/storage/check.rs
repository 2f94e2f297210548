//! `dunlin storage check`: reads every segment and every record, and says what is wrong.

use std::io::{self, Write};

use dunlin_storage::{CheckedSegment, Entry, FRAME_HEADER_BYTES, Frames};

use super::Outcome;
use super::directory::{DataDirectory, counted};
use crate::store::Snapshot;
use crate::store::record::{CHECKSUM_BYTES, Record, Records, Unreadable, checked_content};

/// Unreadable frames that are named.
const NAMED_MAX: usize = 20;

/// What the frames of a segment have in them.
#[derive(Default)]
struct Contents {
    records: u64,
    /// Addresses of frames with something in them that is no record.
    unreadable: Vec<u64>,
}

/// Fails when anything is damaged. A tail that was not finished is not damage.
pub(super) fn run(directory: &DataDirectory<'_>) -> Outcome<()> {
    let (snapshot, report) = directory.look()?;
    let mut out = io::stdout().lock();
    writeln!(out, "{:<20} {:>12} {:>10} {:>12}", "segment", "bytes", "frames", "records")?;
    let (mut records, mut unreadable) = (0, 0);
    for checked in &report.segments {
        let contents = read_segment(&snapshot, checked)?;
        let CheckedSegment { segment, frames, .. } = checked;
        let name = format!("{:016x}.log", segment.base);
        writeln!(out, "{name:<20} {:>12} {frames:>10} {:>12}", segment.bytes, contents.records)?;
        for address in contents.unreadable.iter().take(NAMED_MAX) {
            let address = *address;
            let offset = segment.bytes - (segment.end - address);
            writeln!(
                out,
                "{name}: the frame at offset {offset} (address {address}) is as it was written, \
                 but has records in it that this version cannot read"
            )?;
        }
        records += contents.records;
        unreadable += contents.unreadable.len() as u64;
    }
    if report.torn_bytes > 0 {
        writeln!(
            out,
            "torn: {} at the end that are no whole write, which is normal after a crash and while \
             a broker runs",
            counted(report.torn_bytes, "byte")
        )?;
    }
    for missing in &report.missing {
        writeln!(out, "damaged: {missing}")?;
    }
    let damaged = report.missing.len() as u64;
    if damaged + unreadable > 0 {
        return Err(format!(
            "the log is damaged: {} missing, {} not readable",
            counted(damaged, "part"),
            counted(unreadable, "frame")
        )
        .into());
    }
    let segments = counted(report.segments.len() as u64, "segment");
    writeln!(out, "intact: {segments}, {}", counted(records, "record"))?;
    Ok(())
}

fn read_segment(snapshot: &Snapshot, checked: &CheckedSegment) -> Outcome<Contents> {
    let mut contents = Contents::default();
    let mut frames = Frames::open(snapshot, checked.segment.base, checked.segment.end)?;
    while let Some(entry) = frames.next()? {
        // What is missing is in the report.
        let Entry::Frame { address, payload } = entry else { continue };
        debug_assert!(address + (FRAME_HEADER_BYTES + payload.len()) as u64 <= checked.segment.end);
        match read_frame(payload) {
            Ok(records) => contents.records += records,
            Err(Unreadable) => contents.unreadable.push(address),
        }
    }
    Ok(contents)
}

/// Counts the records of a frame.
fn read_frame(payload: &[u8]) -> Result<u64, Unreadable> {
    let mut count = 0;
    for record in Records::new(payload) {
        let read_alone = match record? {
            Record::Message(message) => Some((message.position, message.content)),
            Record::QueueMessage(message) => Some((message.position, message.content)),
            Record::QueueChunk { position, bytes, .. } => Some((position, bytes)),
            _ => None,
        };
        if let Some((position, content)) = read_alone {
            // When somebody comes for it.
            let end = position + CHECKSUM_BYTES + content.len();
            checked_content(payload.get(position..end).ok_or(Unreadable)?)?;
        }
        count += 1;
    }
    Ok(count)
}
