//! A log on a real file system.
#![allow(clippy::unwrap_used, reason = "a helper of a test fails as the test does")]

#[cfg(test)]
mod rig;

use std::fs;
use std::path::PathBuf;

use dunlin_storage::{
    Backend, BackendError, Damage, DiskBackend, Log, LogReader, OpenError, ReadFile, check,
};
use rig::{START, append, frames, name_of, options, payloads, state};

/// An empty directory of this test.
fn directory(test: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(test);
    if path.exists() {
        fs::remove_dir_all(&path).unwrap();
    }
    fs::create_dir_all(&path).unwrap();
    path
}

fn open(path: &PathBuf) -> Log<DiskBackend> {
    let backend = DiskBackend::open(path).unwrap();
    Log::open(backend, options(1000), Damage::Refuse).unwrap().0
}

#[test]
fn a_log_on_a_disk_is_the_same_as_in_memory() {
    let path = directory("same");
    fs::write(path.join("dunlin.lock"), "").unwrap();
    let backend = dunlin_storage::MemoryBackend::new();
    let mut expected = rig::open(&backend, 1000);
    let mut log = open(&path);
    let sent: Vec<_> = (0..40_u8).map(|n| vec![n; 7 * usize::from(n)]).collect();
    for chunk in sent.chunks(7) {
        log.append(&mut frames(log.end(), chunk)).unwrap();
        expected.append(&mut frames(expected.end(), chunk)).unwrap();
        log.sync().unwrap();
        expected.sync().unwrap();
    }
    assert_eq!(state(&log), state(&expected));
    for name in backend.names().unwrap() {
        assert_eq!(fs::read(path.join(&name)).unwrap(), backend.content(&name).unwrap());
    }
    drop(log);
    let mut log = open(&path);
    assert_eq!(state(&log), state(&expected));
    assert_eq!(payloads(&log), sent);
    log.remove_oldest().unwrap();
    expected.remove_oldest().unwrap();
    assert_eq!(state(&open(&path)), state(&expected));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_torn_tail_on_a_disk_is_cut_off() {
    let path = directory("torn");
    append(&mut open(&path), b"whole").unwrap();
    let file = path.join(name_of(START));
    let mut bytes = fs::read(&file).unwrap();
    let len = bytes.len();
    bytes.extend_from_slice(b"half a frame");
    fs::write(&file, &bytes).unwrap();
    let backend = DiskBackend::open(&path).unwrap();
    assert_eq!(check(&backend).unwrap().torn_bytes, 12);
    assert_eq!(fs::read(&file).unwrap().len(), len + 12);
    let mut log = open(&path);
    assert_eq!(fs::read(&file).unwrap().len(), len);
    append(&mut log, b"more").unwrap();
    log.sync().unwrap();
    assert_eq!(payloads(&open(&path)), [&b"whole"[..], b"more"]);
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn another_thread_reads_what_is_appended() {
    let path = directory("thread");
    let mut log = open(&path);
    let mut reader = LogReader::new(DiskBackend::open(&path).unwrap(), 2);
    for n in 0..30 {
        let address = log.end();
        append(&mut log, &[n; 100]).unwrap();
        let read = std::thread::spawn(move || {
            let mut payload = [0; 100];
            reader.read(address + 32, &mut payload).map(|()| (reader, payload))
        });
        let (returned, payload) = read.join().unwrap().unwrap();
        assert_eq!(payload, [n; 100]);
        reader = returned;
    }
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_check_beside_a_log_that_goes_on_finds_nothing_wrong() {
    let path = directory("check");
    let mut log = open(&path);
    let writer = std::thread::spawn(move || {
        for n in 0..600_usize {
            append(&mut log, &vec![n as u8; n % 300]).unwrap();
            if n % 50 == 49 {
                log.remove_oldest().unwrap();
            }
        }
    });
    let backend = DiskBackend::open(&path).unwrap();
    while !writer.is_finished() {
        assert_eq!(check(&backend).unwrap().missing, []);
    }
    writer.join().unwrap();
    let report = check(&backend).unwrap();
    assert_eq!((report.torn_bytes, report.missing), (0, vec![]));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_disk_answers_as_a_backend_does() {
    let path = directory("backend");
    let mut backend = DiskBackend::open(&path).unwrap();
    backend.create("a").unwrap();
    assert_eq!(backend.create("a"), Err(BackendError::Exists));
    assert_eq!(backend.append("b", b"x"), Err(BackendError::NotFound));
    backend.append("a", b"12345").unwrap();
    backend.truncate("a", 9).unwrap();
    assert_eq!(backend.open("a").unwrap().bytes(), Ok(5));
    backend.truncate("a", 3).unwrap();
    backend.append("a", b"678").unwrap();
    backend.sync("a").unwrap();
    backend.sync_names().unwrap();
    let file = backend.open("a").unwrap();
    let mut bytes = [0; 6];
    file.read(0, &mut bytes).unwrap();
    assert_eq!((&bytes, file.bytes().unwrap()), (b"123678", 6));
    assert_eq!(ReadFile::read(&file, 1, &mut bytes), Err(BackendError::NotFound));
    assert_eq!(backend.names().unwrap(), ["a"]);
    backend.remove("a").unwrap();
    assert_eq!(backend.remove("a"), Err(BackendError::NotFound));
    assert_eq!(backend.open("a").map(|_| ()), Err(BackendError::NotFound));
    assert!(DiskBackend::open(path.join("missing")).is_err());
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_full_device_is_full() {
    // Every write to it fails as one to a full disk does.
    let path = directory("full");
    std::os::unix::fs::symlink("/dev/full", path.join("full")).unwrap();
    let mut backend = DiskBackend::open(&path).unwrap();
    assert_eq!(backend.append("full", b"x"), Err(BackendError::Full));
    fs::remove_dir_all(path).unwrap();
}

#[test]
fn a_failed_device_is_told_with_the_error_of_the_system() {
    let path = directory("failed");
    fs::create_dir(path.join(name_of(START))).unwrap();
    let backend = DiskBackend::open(&path).unwrap();
    let error = Log::open(backend, options(1000), Damage::Refuse).unwrap_err();
    assert!(matches!(error, OpenError::Backend { error: BackendError::Failed(Some(_)), .. }));
    assert!(error.to_string().contains("Is a directory"), "{error}");
    fs::remove_dir_all(path).unwrap();
}
