//! Looks at a log and changes nothing.

use crate::recovery::{Missing, OpenError, Verdict, judge, survey};
use crate::{Backend, BackendError, SegmentInfo};

/// Segments come and go and tails are cut while they are looked at, and a listing of a directory is
/// not of one moment. What is really missing is missing the next time too.
const TRIES: usize = 10;

/// A segment that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckedSegment {
    /// Which one.
    pub segment: SegmentInfo,
    /// Good frames in it.
    pub frames: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
}

/// What [`check`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The segments, oldest first, without what is torn.
    pub segments: Vec<CheckedSegment>,
    /// The address behind the last frame.
    pub end: u64,
    /// Bytes at the end that are not a whole frame or follow such: a write that was not finished,
    /// or has not been yet. Opening the log would cut them off.
    pub torn_bytes: u64,
    /// What is corrupt.
    pub missing: Vec<Missing>,
}

/// Reads and checks a whole log, while another process appends to it if need be.
///
/// # Errors
/// As [`crate::Log::open`], but what is corrupt is in the report.
pub fn check<B: Backend>(backend: &B) -> Result<CheckReport, OpenError> {
    let mut verdict = survey(backend).map(judge);
    let mut missed = None;
    for _ in 1..TRIES {
        match &verdict {
            Err(OpenError::Backend { error: BackendError::NotFound, .. }) => {}
            Ok(found) if !found.missing.is_empty() => {
                let ranges: Vec<_> =
                    found.missing.iter().map(|part| (part.from, part.to, part.unlisted)).collect();
                if missed.as_ref() == Some(&ranges) {
                    break;
                }
                missed = Some(ranges);
            }
            _ => break,
        }
        verdict = survey(backend).map(judge);
    }
    verdict.map(report)
}

fn report(verdict: Verdict) -> CheckReport {
    let segments = verdict.segments.iter().map(|(segment, counts)| CheckedSegment {
        segment: *segment,
        frames: counts.frames,
        payload_bytes: counts.payload_bytes,
    });
    CheckReport {
        segments: segments.collect(),
        end: verdict.end,
        torn_bytes: verdict.torn_bytes + verdict.stub.map_or(0, |(_, bytes)| bytes),
        missing: verdict.missing,
    }
}
