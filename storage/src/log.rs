//! The log: frames in, segments on the backend.
//!
//! Only the last segment can hold bytes that are not synced: before the next one begins, the last
//! is synced, and the header and the name of the new one are before a frame goes into it. What is
//! told apart by an error:
//!
//! * No space: the log is as it was, less the frames that found room, and goes on when there is.
//! * Anything else that fails while bytes are written or synced: nobody knows what is on the disk.
//!   The kernel may have dropped what it could not write and report the next sync as good, so
//!   nothing is tried again, and the log refuses everything from then on.

use std::collections::VecDeque;
use std::fmt;

use crate::frame::{FRAME_HEADER_BYTES, address_of, seal, u32_at};
use crate::recovery::{Missing, OpenError, continues, judge, mend, survey};
use crate::scan::Frames;
use crate::segment::{SEGMENT_HEADER_BYTES, SegmentInfo, header_of, name_of};
use crate::{Backend, BackendError, Damage, LogOptions, ReadFile};

/// Frames are gathered up to about so many bytes for one write; larger ones are written alone.
const WRITE_BYTES: usize = 1 << 20;

/// What was found when a log was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Frames in the log.
    pub frames: u64,
    /// Bytes of their payloads.
    pub payload_bytes: u64,
    /// Bytes that were cut off the end: what had not been synced when the power went.
    pub torn_bytes: u64,
    /// With [`Damage::Skip`], what is missing.
    pub missing: Vec<Missing>,
}

/// Why a log did not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogError {
    /// No space is left, on the device or within [`LogOptions::bytes_max`]. [`Log::end`] tells how
    /// far it got; the rest can be tried again.
    Full,
    /// The backend failed. The log refuses everything from now on. After a failed sync the page
    /// cache may show what the disk does not have, so opening it again proves nothing before the
    /// device is looked after.
    Failed(BackendError),
    /// The backend failed earlier.
    Poisoned,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the log is full"),
            Self::Failed(error) => write!(f, "the log failed and takes no more: {error}"),
            Self::Poisoned => f.write_str("the log has failed before and takes no more"),
        }
    }
}

impl std::error::Error for LogError {}

/// An endless stream of frames, of which the oldest can be removed.
#[derive(Debug)]
pub struct Log<B> {
    backend: B,
    options: LogOptions,
    /// Oldest first. The last is written to.
    segments: VecDeque<SegmentInfo>,
    /// Of the last segment; `None` when there is none or its header is damaged.
    secret: Option<u32>,
    /// Sum over the segments.
    bytes: u64,
    end: u64,
    durable: u64,
    /// Frames that are about to be written. Empty between calls.
    gathered: Vec<u8>,
    poisoned: bool,
}

impl<B: Backend> Log<B> {
    /// Opens the log that a backend has, or begins one at address 4096. All frames are read and
    /// checked. A torn tail is cut off, and everything that is left is synced.
    ///
    /// # Errors
    /// See [`OpenError`]. Nothing was changed if it is not `Backend`.
    pub fn open(
        mut backend: B,
        options: LogOptions,
        damage: Damage,
    ) -> Result<(Self, Opened), OpenError> {
        let mut verdict = judge(survey(&backend)?);
        if damage == Damage::Refuse && !verdict.missing.is_empty() {
            return Err(OpenError::Corrupt(verdict.missing));
        }
        mend(&mut backend, &verdict)?;
        let opened = Opened {
            frames: verdict.segments.iter().map(|(_, counts)| counts.frames).sum(),
            payload_bytes: verdict.segments.iter().map(|(_, counts)| counts.payload_bytes).sum(),
            torn_bytes: verdict.torn_bytes,
            missing: std::mem::take(&mut verdict.missing),
        };
        let segments: VecDeque<_> = verdict.segments.iter().map(|(info, _)| *info).collect();
        let log = Self {
            backend,
            options,
            bytes: segments.iter().map(|info| info.bytes).sum(),
            segments,
            secret: verdict.secret,
            end: verdict.end,
            durable: verdict.end,
            gathered: Vec::new(),
            poisoned: false,
        };
        Ok((log, opened))
    }

    /// The address of the next frame.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Everything before this address is synced.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The address of the oldest frame; [`Log::end`] when there is none.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.segments.front().map_or(self.end, |oldest| oldest.base)
    }

    /// Bytes of all segment files.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether the backend has failed, so that every change is refused.
    #[must_use]
    pub fn is_poisoned(&self) -> bool {
        self.poisoned
    }

    /// What the segments are on.
    #[must_use]
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The segments, oldest first.
    pub fn segments(&self) -> impl Iterator<Item = SegmentInfo> + '_ {
        self.segments.iter().copied()
    }

    /// The frames of the segment that begins at `base`, as far as they are written now. They can
    /// be read while the log is written.
    ///
    /// # Errors
    /// `NotFound` when there is no such segment, `Failed`.
    pub fn frames(&self, base: u64) -> Result<Frames<B::File>, BackendError> {
        let found = self.segments.binary_search_by_key(&base, |info| info.base);
        let index = found.map_err(|_| BackendError::NotFound)?;
        Frames::open(&self.backend, base, self.segments[index].end)
    }

    /// Appends frames: whole vectors, the first [`FRAME_HEADER_BYTES`] of each for the header,
    /// which is filled in here. They are not durable before [`Log::sync`]. After an error
    /// [`Log::end`] tells which frames went in: those that have lower addresses.
    ///
    /// # Errors
    /// See [`LogError`]. After `Full` the frames that did not go in can be appended again.
    ///
    /// # Panics
    /// When a frame does not have the address where it is going to be
    /// ([`crate::set_address`]), or is too short or too long.
    pub fn append(&mut self, frames: &mut [Vec<u8>]) -> Result<(), LogError> {
        self.check_health()?;
        let mut expected = self.end;
        for frame in &*frames {
            assert!(frame.len() >= FRAME_HEADER_BYTES, "a frame is shorter than its header");
            let found = address_of(frame);
            assert_eq!(found, expected, "a frame was given another address than its place");
            expected += frame.len() as u64;
        }
        for frame in frames {
            let secret = self.prepare(frame.len() as u64)?;
            seal(frame, self.durable, secret);
            if frame.len() >= WRITE_BYTES {
                self.flush()?;
                self.write(frame)?;
                continue;
            }
            self.gathered.extend_from_slice(frame);
            if self.gathered.len() >= WRITE_BYTES {
                self.flush()?;
            }
        }
        self.flush()
    }

    /// Makes everything that was appended durable.
    ///
    /// # Errors
    /// `Failed`, `Poisoned`: nobody knows what is durable beyond [`Log::durable`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.check_health()?;
        if self.durable == self.end {
            return Ok(());
        }
        if let Some(last) = self.segments.back() {
            let synced = self.backend.sync(&name_of(last.base));
            synced.map_err(|error| self.poison(error))?;
        }
        self.durable = self.end;
        Ok(())
    }

    /// Removes the oldest segment, durably, and says which. `None` when only the one that is being
    /// written is left.
    ///
    /// # Errors
    /// `Failed`, `Poisoned`.
    pub fn remove_oldest(&mut self) -> Result<Option<SegmentInfo>, LogError> {
        self.check_health()?;
        if self.segments.len() < 2 {
            return Ok(None);
        }
        let Some(oldest) = self.segments.pop_front() else { return Ok(None) };
        self.bytes -= oldest.bytes;
        let removed = match self.backend.remove(&name_of(oldest.base)) {
            Err(BackendError::NotFound) => Ok(()),
            result => result,
        };
        // One by one, so that no crash leaves a hole among the segments.
        let synced = removed.and_then(|()| self.backend.sync_names());
        synced.map_err(|error| self.poison(error))?;
        Ok(Some(oldest))
    }

    fn check_health(&self) -> Result<(), LogError> {
        if self.poisoned { Err(LogError::Poisoned) } else { Ok(()) }
    }

    fn poison(&mut self, error: BackendError) -> LogError {
        self.poisoned = true;
        LogError::Failed(error)
    }

    /// Makes sure that a frame of so many bytes can follow what is gathered, and returns the secret
    /// of the segment that it goes into.
    fn prepare(&mut self, frame_bytes: u64) -> Result<u32, LogError> {
        let gathered = self.gathered.len() as u64;
        let rolls = self.segments.back().is_none_or(|last| {
            // An empty segment has the name that a new one would have.
            let is_empty = last.base == self.end + gathered;
            let is_large = last.bytes + gathered >= self.options.segment_bytes;
            !continues(last, self.end) || (is_large && !is_empty)
        });
        // Without a secret nothing could be read again.
        let secret = self.secret.filter(|_| !rolls);
        let header_bytes = if secret.is_none() { SEGMENT_HEADER_BYTES } else { 0 };
        let bytes = self.bytes + gathered + header_bytes + frame_bytes;
        if self.options.bytes_max != 0 && bytes > self.options.bytes_max {
            self.flush()?;
            return Err(LogError::Full);
        }
        if let Some(secret) = secret {
            return Ok(secret);
        }
        self.flush()?;
        self.roll()
    }

    /// Begins a new segment and returns its secret. When there is no space for it, everything is as
    /// before.
    fn roll(&mut self) -> Result<u32, LogError> {
        self.sync()?;
        let base = self.end;
        let name = name_of(base);
        match self.create_segment(&name, base) {
            Ok(()) => {}
            Err(BackendError::Full) => {
                let removed = match self.backend.remove(&name) {
                    Err(BackendError::NotFound) => Ok(()),
                    result => result,
                };
                removed.map_err(|error| self.poison(error))?;
                return Err(LogError::Full);
            }
            Err(error) => return Err(self.poison(error)),
        }
        let synced = self.backend.sync(&name).and_then(|()| self.backend.sync_names());
        synced.map_err(|error| self.poison(error))?;
        self.segments.push_back(SegmentInfo { base, end: base, bytes: SEGMENT_HEADER_BYTES });
        self.bytes += SEGMENT_HEADER_BYTES;
        self.secret = Some(self.options.secret);
        Ok(self.options.secret)
    }

    fn create_segment(&mut self, name: &str, base: u64) -> Result<(), BackendError> {
        match self.backend.create(name) {
            // Left from a creation that was cut short.
            Err(BackendError::Exists) => {
                self.backend.remove(name)?;
                self.backend.create(name)?;
            }
            result => result?,
        }
        self.backend.append(name, &header_of(base, self.options.secret))
    }

    /// Writes what is gathered.
    fn flush(&mut self) -> Result<(), LogError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let result = self.write(&gathered);
        gathered.clear();
        self.gathered = gathered;
        result
    }

    /// Writes whole frames to the last segment.
    fn write(&mut self, frames: &[u8]) -> Result<(), LogError> {
        let Some(last) = self.segments.back().copied() else { return Ok(()) };
        match self.backend.append(&name_of(last.base), frames) {
            Ok(()) => {
                self.advance(frames.len() as u64);
                Ok(())
            }
            Err(BackendError::Full) => {
                let kept = self.keep_whole_frames(&last, frames);
                let kept = kept.map_err(|error| self.poison(error))?;
                self.advance(kept);
                Err(LogError::Full)
            }
            Err(error) => Err(self.poison(error)),
        }
    }

    fn advance(&mut self, bytes: u64) {
        self.end += bytes;
        self.bytes += bytes;
        if let Some(last) = self.segments.back_mut() {
            last.end += bytes;
            last.bytes += bytes;
        }
    }

    /// After a write that ran out of space: cuts off the frame that was written in part, and
    /// returns how many bytes of whole ones are there.
    fn keep_whole_frames(
        &mut self,
        last: &SegmentInfo,
        frames: &[u8],
    ) -> Result<u64, BackendError> {
        let name = name_of(last.base);
        let there = self.backend.open(&name)?.bytes()?;
        let written = there.checked_sub(last.bytes).ok_or(BackendError::Failed(None))?;
        let mut kept = 0;
        while let Some(header) = frames.get(kept..kept + FRAME_HEADER_BYTES) {
            let frame_bytes = FRAME_HEADER_BYTES + u32_at(header, 4) as usize;
            if (kept + frame_bytes) as u64 > written {
                break;
            }
            kept += frame_bytes;
        }
        self.backend.truncate(&name, last.bytes + kept as u64)?;
        Ok(kept as u64)
    }
}
