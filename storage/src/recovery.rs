//! What is in a directory of segments, and what that means.
//!
//! [`survey`] reads, [`judge`] decides and is pure, [`mend`] acts on it; [`crate::check`] does
//! without the last. A frame that cannot be read at address `x` is one of two things:
//!
//! * A torn tail: the power went while it was written. Writes that were not synced reach the disk
//!   in any order, so there may be good frames behind it. None of them was written after a sync
//!   that included `x`: none has `durable > x`. Only the last segment can have one, since a segment
//!   is synced before the next begins. The log ends at `x` then, and what is behind is cut off.
//! * Corruption, in any other case: `x` had been synced and is not there now.
//!
//! Where the header of a segment is not as it was, all of the segment is corrupt: the header had
//! been synced before a frame followed, and without its secret no frame can be told from a forged
//! one.
//!
//! What is at the very end with no frame behind it cannot be told from a torn tail. Whoever wants
//! a sync to be remembered appends an empty frame after it.

use std::fmt;

use crate::scan::Scan;
use crate::segment::{
    FORMAT_VERSION, SEGMENT_HEADER_BYTES, SegmentHeader, SegmentInfo, base_of, name_of,
};
use crate::{Backend, BackendError, ReadFile};

/// The address of the first frame of a new log, so that 0 is never one.
pub(crate) const START: u64 = 4096;

/// So many missing parts are listed; the rest is counted.
const MISSING_MAX: usize = 1000;

/// A part of the log that had been synced and is not there, or not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The segment file that has it, or should have.
    pub file: String,
    /// Where in that file, in bytes; 0 when its header is damaged, and so no frame in it can be
    /// checked.
    pub offset: u64,
    /// Address of the first missing byte.
    pub from: u64,
    /// Address behind the last one.
    pub to: u64,
    /// Good frames behind it.
    pub frames_behind: u64,
    /// So many more parts are missing behind this one and are not listed. 0 but in the last of a
    /// list of 1000.
    pub unlisted: u64,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, from, to, frames_behind, unlisted } = self;
        let bytes = to - from;
        if *offset == 0 {
            write!(f, "{file}: the header is damaged, so {bytes} bytes cannot be checked")?;
        } else {
            write!(f, "{file}: {bytes} bytes are missing or damaged at offset {offset}")?;
        }
        write!(f, " (addresses {from} to {to}), {frames_behind} good frames follow")?;
        if *unlisted > 0 {
            write!(f, "; {unlisted} more parts are missing")?;
        }
        Ok(())
    }
}

/// Why a log could not be opened or checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The backend failed.
    Backend {
        /// The file it was about; `None` for the directory.
        file: Option<String>,
        /// How it failed.
        error: BackendError,
    },
    /// A segment is of another version of the format.
    Version {
        /// Its file.
        file: String,
        /// Its version.
        version: u32,
        /// The version that this program reads.
        supported: u32,
    },
    /// A segment file has another segment's name.
    Misnamed {
        /// Its name.
        file: String,
        /// The name it should have.
        expected: String,
    },
    /// Parts of the log that had been synced are not there. Nothing was changed.
    Corrupt(Vec<Missing>),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend { file: Some(file), error } => write!(f, "{file}: {error}"),
            Self::Backend { file: None, error } => write!(f, "the directory of the log: {error}"),
            Self::Version { file, version, supported } => {
                write!(f, "{file}: has format version {version}, supported is {supported}")
            }
            Self::Misnamed { file, expected } => write!(f, "{file}: is the segment {expected}"),
            Self::Corrupt(missing) => {
                f.write_str("the log is corrupt")?;
                missing.iter().try_for_each(|missing| write!(f, "; {missing}"))
            }
        }
    }
}

impl std::error::Error for OpenError {}

impl OpenError {
    pub(crate) fn of(base: u64) -> impl Fn(BackendError) -> Self {
        move |error| Self::Backend { file: Some(name_of(base)), error }
    }

    pub(crate) fn of_directory(error: BackendError) -> Self {
        Self::Backend { file: None, error }
    }
}

/// Addresses of a segment where no good frame is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gap {
    from: u64,
    to: u64,
    /// What comes before it in the segment.
    before: Counts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) frames: u64,
    pub(crate) payload_bytes: u64,
}

/// What is in a segment file.
#[derive(Debug)]
pub(crate) struct Survey {
    base: u64,
    file_bytes: u64,
    /// `None` when the header is damaged.
    secret: Option<u32>,
    counts: Counts,
    /// At most one more than there are good frames.
    gaps: Vec<Gap>,
    /// Where the next segment begins, or else where the file ends.
    end: u64,
    /// The largest `durable` of its frames; they grow.
    durable: u64,
}

impl Survey {
    /// The crash came while the segment was created: the header is synced before a frame follows.
    fn is_stub(&self) -> bool {
        self.secret.is_none() && self.file_bytes <= SEGMENT_HEADER_BYTES
    }

    fn missing(&self, gap: Gap, frames_behind: u64) -> Missing {
        let Gap { from, to, .. } = gap;
        let offset = self.secret.map_or(0, |_| SEGMENT_HEADER_BYTES + (from - self.base));
        Missing { file: name_of(self.base), offset, from, to, frames_behind, unlisted: 0 }
    }

    fn info(&self) -> SegmentInfo {
        SegmentInfo { base: self.base, end: self.end, bytes: self.file_bytes }
    }
}

/// The bases of the segments that a backend has, in order.
pub(crate) fn bases<B: Backend>(backend: &B) -> Result<Vec<u64>, BackendError> {
    let mut bases: Vec<u64> = backend.names()?.iter().filter_map(|name| base_of(name)).collect();
    bases.sort_unstable();
    Ok(bases)
}

/// Reads all segments.
pub(crate) fn survey<B: Backend>(backend: &B) -> Result<Vec<Survey>, OpenError> {
    let bases = bases(backend).map_err(OpenError::of_directory)?;
    let next = bases.iter().skip(1).copied().map(Some).chain([None]);
    bases.iter().zip(next).map(|(base, next)| survey_segment(backend, *base, next)).collect()
}

fn survey_segment<B: Backend>(
    backend: &B,
    base: u64,
    next: Option<u64>,
) -> Result<Survey, OpenError> {
    let failed = OpenError::of(base);
    let mut scan = Scan::open(backend, base, next.unwrap_or(u64::MAX)).map_err(&failed)?;
    let file = name_of(base);
    let secret = match scan.segment_header() {
        SegmentHeader::Good { secret } => Some(secret),
        SegmentHeader::Bad => None,
        SegmentHeader::Version(version) => {
            return Err(OpenError::Version { file, version, supported: FORMAT_VERSION });
        }
        SegmentHeader::Base(expected) => {
            return Err(OpenError::Misnamed { file, expected: name_of(expected) });
        }
    };
    let mut survey = Survey {
        base,
        file_bytes: scan.file_bytes(),
        secret,
        counts: Counts::default(),
        gaps: Vec::new(),
        end: next.unwrap_or(scan.limit()),
        durable: 0,
    };
    survey_frames(&mut scan, &mut survey).map_err(&failed)?;
    Ok(survey)
}

fn survey_frames<F: ReadFile>(scan: &mut Scan<F>, survey: &mut Survey) -> Result<(), BackendError> {
    let mut at = survey.base;
    while at < survey.end {
        if let Some(header) = scan.frame_at(at)? {
            survey.counts.frames += 1;
            survey.counts.payload_bytes += u64::from(header.payload_bytes);
            survey.durable = survey.durable.max(header.durable);
            at += header.frame_bytes();
        } else {
            let to = scan.next_good(at + 1)?.unwrap_or(survey.end);
            survey.gaps.push(Gap { from: at, to, before: survey.counts });
            at = to;
        }
    }
    Ok(())
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// The segments as they are once it is done, and what is in them.
    pub(crate) segments: Vec<(SegmentInfo, Counts)>,
    /// The secret of the last one; `None` when there is none or its header is damaged.
    pub(crate) secret: Option<u32>,
    /// The address of the next frame.
    pub(crate) end: u64,
    pub(crate) missing: Vec<Missing>,
    /// Bytes to cut off the last segment.
    pub(crate) torn_bytes: u64,
    /// A segment that was being created, and the length of its file.
    pub(crate) stub: Option<(u64, u64)>,
}

impl Verdict {
    /// Whether the last segment ends where the log does, so that frames can be appended to it.
    pub(crate) fn continues(&self) -> bool {
        self.segments.last().is_some_and(|(info, _)| continues(info, self.end))
    }
}

/// Whether the file of a segment ends at the address `end`.
pub(crate) fn continues(info: &SegmentInfo, end: u64) -> bool {
    info.bytes == SEGMENT_HEADER_BYTES + (end - info.base)
}

/// Tells torn tails from corruption.
pub(crate) fn judge(mut surveys: Vec<Survey>) -> Verdict {
    let stub = surveys.pop_if(|last| last.is_stub()).map(|stub| (stub.base, stub.file_bytes));
    let mut torn_bytes = 0;
    if stub.is_none()
        && let Some(last) = surveys.last_mut()
    {
        torn_bytes = cut_torn_tail(last);
    }
    let end = stub.map(|(base, _)| base).or(surveys.last().map(|last| last.end)).unwrap_or(START);
    Verdict {
        missing: find_missing(&surveys),
        secret: surveys.last().and_then(|last| last.secret),
        segments: surveys.iter().map(|survey| (survey.info(), survey.counts)).collect(),
        end,
        torn_bytes,
        stub,
    }
}

/// Takes the torn tail off the last segment and says how many bytes it had.
fn cut_torn_tail(last: &mut Survey) -> u64 {
    // A header that was synced is gone, and every frame with it.
    if last.secret.is_none() {
        return 0;
    }
    let durable = last.durable;
    let Some(index) = last.gaps.iter().position(|gap| gap.from >= durable) else { return 0 };
    let gap = last.gaps[index];
    let bytes = SEGMENT_HEADER_BYTES + (gap.from - last.base);
    let torn = last.file_bytes - bytes;
    (last.end, last.file_bytes, last.counts) = (gap.from, bytes, gap.before);
    last.gaps.truncate(index);
    torn
}

fn find_missing(surveys: &[Survey]) -> Vec<Missing> {
    let mut missing: Vec<Missing> = Vec::new();
    let mut frames_behind: u64 = surveys.iter().map(|survey| survey.counts.frames).sum();
    for survey in surveys {
        for gap in &survey.gaps {
            match missing.get_mut(MISSING_MAX - 1) {
                Some(last) => last.unlisted += 1,
                None => missing.push(survey.missing(*gap, frames_behind - gap.before.frames)),
            }
        }
        frames_behind -= survey.counts.frames;
    }
    missing
}

/// Does what a verdict says, and makes durable what is left.
pub(crate) fn mend<B: Backend>(backend: &mut B, verdict: &Verdict) -> Result<(), OpenError> {
    // Where the segment before it does not end there, the name of the stub is all that keeps the
    // addresses before it from being given out again. It is replaced by the next segment.
    if let Some((stub, _)) = verdict.stub
        && verdict.continues()
    {
        backend.remove(&name_of(stub)).map_err(OpenError::of(stub))?;
    }
    if let Some((last, _)) = verdict.segments.last() {
        let name = name_of(last.base);
        if verdict.torn_bytes > 0 {
            backend.truncate(&name, last.bytes).map_err(OpenError::of(last.base))?;
        }
        // What a killed process wrote is in the files but may not be on the disk.
        backend.sync(&name).map_err(OpenError::of(last.base))?;
    }
    backend.sync_names().map_err(OpenError::of_directory)
}
