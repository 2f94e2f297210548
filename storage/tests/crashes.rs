//! Anything may happen to a log, at any time: what was synced is there.

#[cfg(test)]
mod rig;

#[cfg(test)]
mod tests {
    use dunlin_storage::{
        Backend, Damage, FRAME_HEADER_BYTES, Log, LogError, LogReader, MemoryBackend, OpenError,
        check,
    };
    use proptest::prelude::*;

    use super::rig::{
        Frame, SEGMENT_HEADER_BYTES, append, contents, contents_and_missing, frames, open, open_as,
    };

    #[derive(Clone, Debug)]
    enum Operation {
        /// Frames with payloads of these lengths.
        Append(Vec<usize>),
        Sync,
        /// A sync, and an empty frame that says so.
        Mark,
        RemoveOldest,
        /// The process is killed: the disk has all that was written.
        Kill,
        /// The power goes.
        Crash(u64),
        /// The power goes in the middle of what follows, after so many changes.
        StopAfter(usize),
        /// So many bytes more fit on the device.
        Room(Option<usize>),
    }

    fn operation() -> impl Strategy<Value = Operation> {
        let bytes = prop_oneof![3 => 0..80_usize, 1 => 500..2000_usize];
        prop_oneof![
            8 => prop::collection::vec(bytes, 1..6).prop_map(Operation::Append),
            3 => Just(Operation::Sync),
            2 => Just(Operation::Mark),
            1 => Just(Operation::RemoveOldest),
            1 => Just(Operation::Kill),
            2 => any::<u64>().prop_map(Operation::Crash),
            2 => (0..12_usize).prop_map(Operation::StopAfter),
            1 => prop::option::of(0..1000_usize).prop_map(Operation::Room),
        ]
    }

    /// A log, and what it may and has to hold.
    struct Model {
        backend: MemoryBackend,
        segment_bytes: u64,
        log: Option<Log<MemoryBackend>>,
        /// In order; those behind the end of the log may have been written.
        frames: Vec<Frame>,
        durable: u64,
        /// What was removed for certain is before this.
        oldest: u64,
        sent: u64,
    }

    impl Model {
        fn new(segment_bytes: u64) -> Self {
            let backend = MemoryBackend::new();
            let log = open(&backend, segment_bytes);
            let (durable, oldest) = (log.durable(), log.oldest());
            let log = Some(log);
            Self { backend, segment_bytes, log, frames: Vec::new(), durable, oldest, sent: 0 }
        }

        fn apply(&mut self, operation: &Operation, seed: u64) {
            match operation {
                Operation::Kill => self.recover(),
                Operation::Crash(seed) => self.crash(*seed),
                Operation::StopAfter(changes) => self.backend.stop_after(*changes),
                Operation::Room(room) => {
                    let bytes = self.log.as_ref().map_or(0, Log::bytes) as usize;
                    self.backend.limit_capacity(room.map(|room| bytes + room));
                }
                change => {
                    let result = self.change(change);
                    match result {
                        // Only the process died of it.
                        Err(LogError::Failed(_)) if seed.is_multiple_of(3) => {
                            self.backend.stop_after(usize::MAX);
                            self.recover();
                        }
                        Err(LogError::Failed(_)) => self.crash(seed),
                        _ => {}
                    }
                }
            }
        }

        fn change(&mut self, operation: &Operation) -> Result<(), LogError> {
            match operation {
                Operation::Append(lengths) => self.append(lengths),
                Operation::Sync => self.sync(),
                Operation::Mark => self.sync().and_then(|()| self.append(&[0])),
                Operation::RemoveOldest => {
                    let log = self.log.as_mut().unwrap();
                    let removed = log.remove_oldest()?;
                    self.oldest = removed.map_or(self.oldest, |segment| segment.end);
                    Ok(())
                }
                _ => Ok(()),
            }
        }

        fn append(&mut self, lengths: &[usize]) -> Result<(), LogError> {
            let log = self.log.as_mut().unwrap();
            let mut payload = |length: &usize| {
                self.sent += 1;
                // Bytes of the magic of a frame among others, and no two payloads alike.
                let pattern = [0xd7, b'D', b'L', b'f', self.sent as u8, (self.sent >> 8) as u8];
                pattern.iter().copied().cycle().take(*length).collect()
            };
            let payloads: Vec<Vec<u8>> = lengths.iter().map(&mut payload).collect();
            let mut sent = frames(log.end(), &payloads);
            let result = log.append(&mut sent);
            let addresses = sent.iter().map(|frame| dunlin_storage::address_of(frame));
            self.frames.extend(addresses.zip(payloads));
            if result != Err(LogError::Full) && result.is_err() {
                return result;
            }
            self.durable = self.durable.max(log.durable());
            self.frames.retain(|(address, _)| *address < log.end());
            result
        }

        fn sync(&mut self) -> Result<(), LogError> {
            let log = self.log.as_mut().unwrap();
            log.sync()?;
            assert_eq!(log.durable(), log.end());
            self.durable = log.end();
            Ok(())
        }

        fn crash(&mut self, seed: u64) {
            // An earlier log may have got further than its caller was told.
            self.durable = self.durable.max(self.log.take().map_or(0, |log| log.durable()));
            self.backend.crash(seed);
            // A crash while recovering from the crash, a few times.
            for round in 0..seed % 4 {
                self.backend.stop_after((seed.rotate_left(round as u32) % 5) as usize);
                let _ = open_as(&self.backend, self.segment_bytes, Damage::Refuse);
                self.backend.crash(seed ^ round);
            }
            self.recover();
        }

        fn recover(&mut self) {
            drop(self.log.take());
            let report = check(&self.backend).unwrap();
            let opened = open_as(&self.backend, self.segment_bytes, Damage::Refuse);
            let (log, opened) = match opened {
                Ok(opened) => opened,
                // The power was to go some time, and went.
                Err(OpenError::Backend { .. }) => {
                    self.backend.crash(7);
                    open_as(&self.backend, self.segment_bytes, Damage::Refuse).unwrap()
                }
                Err(error) => panic!("{error}"),
            };
            assert_eq!(report.missing, []);
            assert!(log.end() >= self.durable, "{} synced, {} there", self.durable, log.end());
            assert!(log.oldest() >= self.oldest);
            let found = contents(&log);
            assert_eq!(opened.frames as usize, found.len());
            let first = self.frames.partition_point(|(address, _)| *address < log.oldest());
            self.frames.drain(..first);
            self.frames.truncate(found.len());
            assert_eq!(found, self.frames);
            (self.durable, self.oldest) = (log.durable(), log.oldest());
            assert_eq!(self.durable, log.end());
            self.log = Some(log);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn a_recovered_log_is_a_prefix_with_all_that_was_synced(
            segment_bytes in prop_oneof![Just(0_u64), 100..3000_u64],
            operations in prop::collection::vec((operation(), any::<u64>()), 1..60),
        ) {
            let mut model = Model::new(segment_bytes);
            for (operation, seed) in &operations {
                model.apply(operation, *seed);
            }
            model.recover();
            model.crash(1);
        }

        #[test]
        fn a_flipped_byte_is_never_lost_silently(
            segment_bytes in prop_oneof![Just(0_u64), 100..3000_u64],
            operations in prop::collection::vec((operation(), any::<u64>()), 1..30),
            place in any::<prop::sample::Index>(),
            mask in 1..=255_u8,
        ) {
            let mut model = Model::new(segment_bytes);
            for (operation, seed) in &operations {
                model.apply(operation, *seed);
            }
            model.crash(3);
            let mut log = model.log.take().unwrap();
            append(&mut log, b"the last before the marker").unwrap();
            log.sync().unwrap();
            let durable = log.durable();
            append(&mut log, b"").unwrap();
            let whole = contents(&log);

            let places: Vec<_> = log
                .segments()
                .flat_map(|segment| {
                    let end = durable.clamp(segment.base, segment.end);
                    let bytes = SEGMENT_HEADER_BYTES as u64 + end - segment.base;
                    (0..bytes).map(move |offset| (segment, offset))
                })
                .collect();
            let (segment, offset) = places[place.index(places.len())];
            let name = super::rig::name_of(segment.base);
            model.backend.flip(&name, offset as usize, mask).unwrap();

            let refused = open_as(&model.backend, segment_bytes, Damage::Refuse).map(|_| ());
            prop_assert!(matches!(refused, Err(OpenError::Corrupt(_))), "{refused:?}");
            let (log, opened) = open_as(&model.backend, segment_bytes, Damage::Skip).unwrap();
            let (found, missing) = contents_and_missing(&log);
            let address = segment.base.max((segment.base + offset).saturating_sub(32));
            let is_lost = |(start, payload): &&Frame| {
                let end = start + (FRAME_HEADER_BYTES + payload.len()) as u64;
                let is_in_segment = (segment.base..segment.end).contains(start);
                if offset < 32 { is_in_segment } else { (*start..end).contains(&address) }
            };
            let kept: Vec<Frame> = whole.iter().filter(|frame| !is_lost(frame)).cloned().collect();
            prop_assert_eq!(found, kept);
            prop_assert_eq!(opened.missing.len(), 1);
            prop_assert_eq!(missing.len(), 1);
        }

        #[test]
        fn a_reader_finds_every_payload(
            lengths in prop::collection::vec(0..300_usize, 1..40),
            segment_bytes in 0..1000_u64,
            files_max in 0..4_usize,
        ) {
            let backend = MemoryBackend::new();
            let mut log = open(&backend, segment_bytes);
            let mut reader = LogReader::new(backend, files_max);
            for length in lengths {
                append(&mut log, &vec![length as u8; length]).unwrap();
                for (address, payload) in contents(&log) {
                    let mut found = vec![0; payload.len()];
                    reader.read(address + FRAME_HEADER_BYTES as u64, &mut found).unwrap();
                    prop_assert_eq!(found, payload);
                }
            }
            prop_assert!(log.backend().names().unwrap().len() == log.segments().count());
        }
    }
}
