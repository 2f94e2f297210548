//! Reads by address beside a log that goes on.

#[cfg(test)]
mod rig;

use dunlin_storage::{LogReader, MemoryBackend, ReadError};
use rig::{START, append, open};

fn read(reader: &mut LogReader<MemoryBackend>, address: u64) -> Result<Vec<u8>, ReadError> {
    let mut payload = vec![0; 60];
    reader.read(address + 32, &mut payload).map(|()| payload)
}

#[test]
fn a_reader_sees_what_is_written_when_it_is_written() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 200);
    let mut reader = LogReader::new(backend, 2);
    assert_eq!(read(&mut reader, START), Err(ReadError::NotFound));
    let mut addresses = Vec::new();
    for n in 0..20 {
        let address = log.end();
        assert_eq!(read(&mut reader, address), Err(ReadError::NotFound));
        append(&mut log, &[n; 60]).unwrap();
        assert_eq!(read(&mut reader, address), Ok(vec![n; 60]));
        addresses.push(address);
    }
    assert!(log.segments().count() > 4);
    for (n, address) in addresses.into_iter().enumerate().rev() {
        assert_eq!(read(&mut reader, address), Ok(vec![n as u8; 60]));
    }
}

#[test]
fn bytes_of_two_segments_are_not_read_at_once() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    append(&mut log, &[1; 60]).unwrap();
    append(&mut log, &[2; 60]).unwrap();
    let mut reader = LogReader::new(backend, 2);
    assert_eq!(reader.read(START, &mut [0; 92]), Ok(()));
    assert_eq!(reader.read(START, &mut [0; 93]), Err(ReadError::NotFound));
    assert_eq!(reader.read(START - 1, &mut [0]), Err(ReadError::NotFound));
    assert_eq!(reader.read(0, &mut [0]), Err(ReadError::NotFound));
    assert_eq!(reader.read(u64::MAX, &mut [0]), Err(ReadError::NotFound));
}

#[test]
fn a_removed_segment_is_not_found_and_the_others_are() {
    let backend = MemoryBackend::new();
    let mut log = open(&backend, 0);
    for n in 0..4 {
        append(&mut log, &[n; 60]).unwrap();
    }
    let mut reader = LogReader::new(backend, 8);
    assert_eq!(read(&mut reader, START), Ok(vec![0; 60]));
    log.remove_oldest().unwrap();
    assert_eq!(read(&mut reader, START), Err(ReadError::NotFound));
    assert_eq!(read(&mut reader, START + 92), Ok(vec![1; 60]));
    log.remove_oldest().unwrap();
    reader.forget_before(log.oldest());
    assert_eq!(read(&mut reader, START + 92), Err(ReadError::NotFound));
    assert_eq!(read(&mut reader, START + 2 * 92), Ok(vec![2; 60]));
}
