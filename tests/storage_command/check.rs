//! What `dunlin storage check` finds.

use std::io::Write;
use std::path::Path;

use dunlin_storage::{Damage, DiskBackend, Log, LogOptions, set_address};
use serde_json::{Value, json};

use super::{
    done, fresh, lines, of_type, offline_subscriber, publish, refused, segments, start, stop,
};

#[test]
fn a_log_is_intact_while_its_broker_runs_and_after_it_has_ended() {
    let data = fresh("intact");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 200);
    let found = done(&["check"], &data);
    assert!(found.contains("\nintact: "), "{found}");
    stop(broker);
    let found = done(&["check"], &data);
    let rows: Vec<Vec<&str>> = found.lines().map(|row| row.split_whitespace().collect()).collect();
    let paths = segments(&data);
    assert!(paths.len() > 2, "{found}");
    for (row, path) in rows[1..].iter().zip(&paths) {
        assert_eq!(row[0], path.file_name().expect("a name"));
        assert_eq!(row[1], path.metadata().expect("a file").len().to_string());
        assert_ne!(row[3], "0");
    }
    assert!(rows[paths.len() + 1].starts_with(&["intact:"]), "{found}");
}

#[test]
fn a_flipped_byte_is_found_with_its_file_and_what_follows_is_kept() {
    let data = fresh("flipped");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 100);
    stop(broker);
    let path = &segments(&data)[0];
    let mut content = std::fs::read(path).expect("a segment");
    content[20_000] ^= 1;
    std::fs::write(path, content).expect("a segment");
    let found = refused(&["check"], &data);
    let name = path.file_name().expect("a name").to_str().expect("UTF-8");
    assert!(found.contains(&format!("damaged: {name}: ")), "{found}");
    assert!(found.contains("good frames follow"), "{found}");
    assert!(found.contains("the log is damaged: 1 part missing"), "{found}");
    let found = refused(&["export"], &data);
    assert!(found.contains("storage.skip_damage"), "{found}");
    refused(&["compact"], &data);
    let found = done(&["export", "--set", "storage.skip_damage=true"], &data);
    assert_eq!(of_type(&lines(&found), "message").len(), 99, "one frame had one message");
    let stats = done(&["stats", "--json"], &data);
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert_eq!((&stats["missing_parts"], &stats["messages"]), (&json!(1), &json!(99)));
}

#[test]
fn a_tail_that_was_not_written_to_the_end_is_no_damage() {
    let data = fresh("torn");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 3);
    stop(broker);
    let path = segments(&data).pop().expect("a segment");
    let mut file = std::fs::OpenOptions::new().append(true).open(path).expect("a segment");
    file.write_all(b"half a frame").expect("there is room");
    let found = done(&["check"], &data);
    assert!(found.contains("torn: 12 bytes"), "{found}");
    assert!(found.contains("intact: "), "{found}");
    assert_eq!(of_type(&lines(&done(&["export"], &data)), "message").len(), 3);
    assert!(done(&["stats"], &data).contains("messages         3 of 3009 bytes"));
}

#[test]
fn a_newer_format_and_records_of_another_version_are_said_clearly() {
    let data = fresh("newer");
    stop(start(&data));
    let path = &segments(&data)[0];
    let mut content = std::fs::read(path).expect("a segment");
    content[8..12].copy_from_slice(&77_u32.to_le_bytes());
    let crc = crc32c::crc32c(&content[..24]).to_le_bytes();
    content[24..28].copy_from_slice(&crc);
    std::fs::write(path, content).expect("a segment");
    for command in ["check", "stats", "export", "compact"] {
        let found = refused(&[command], &data);
        assert!(found.contains("has format version 77, supported is"), "{found}");
    }

    let data = fresh("record");
    let log = data.join("log");
    std::fs::create_dir_all(&log).expect("a directory");
    let backend = DiskBackend::open(&log).expect("a directory");
    let (mut log, _) =
        Log::open(backend, LogOptions::default(), Damage::Refuse).expect("an empty log");
    let mut frame = vec![0; dunlin_storage::FRAME_HEADER_BYTES];
    frame.extend_from_slice(&[200, 1, 2, 3]);
    set_address(&mut frame, log.end());
    log.append(&mut [frame]).expect("there is room");
    log.sync().expect("it syncs");
    let found = refused(&["check"], &data);
    assert!(found.contains("offset 32"), "{found}");
    assert!(found.contains("1 frame not readable"), "{found}");
    assert!(refused(&["stats"], &data).contains("does not know"));
}

#[test]
fn a_directory_without_a_log_is_said_to_be_one() {
    let data = fresh("nothing");
    for command in ["check", "stats", "export", "compact"] {
        assert!(refused(&[command], &data).contains("there is no log in the data directory"));
    }
    assert!(!data.exists());
    assert!(refused(&["check"], Path::new("")).contains("data_dir is empty"));
}
