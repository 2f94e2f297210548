//! `dunlin storage compact`.

use std::process::{Command, Stdio};

use dunlin_tests::program::dunlin;

use super::{
    bytes, consume, done, fresh, offline_subscriber, publish, publish_large, refused, settled,
    something_of_everything, start, stop, text_of,
};

#[test]
fn compacting_without_a_broker_leaves_what_is_alive_and_nothing_else() {
    let data = fresh("compact");
    let broker = start(&data);
    something_of_everything(&broker);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 300);
    assert_eq!(consume(&broker, "s", 290), (1..=290).collect::<Vec<_>>());
    stop(broker);
    // What an attempt that was cut short has left.
    std::fs::create_dir_all(data.join("log.new")).expect("a directory");
    std::fs::write(data.join("log.new/0000000000001000.log"), "half").expect("a file");
    let (before, export) = (bytes(&data), done(&["export"], &data));
    let said = done(&["compact"], &data);
    let after = bytes(&data);
    assert_eq!(said, format!("{before} bytes before, {after} bytes after\n"));
    assert!(after < before / 2, "{said}");
    assert!(!data.join("log.new").exists());
    assert_eq!(done(&["export"], &data), export);
    assert!(done(&["check"], &data).contains("intact"));
    done(&["compact"], &data);
    assert_eq!(bytes(&data), after, "there is nothing more to win");
    let broker = start(&data);
    assert_eq!(consume(&broker, "s", 10), (291..=300).collect::<Vec<_>>());
    stop(broker);
}

#[test]
fn a_broker_that_runs_is_asked_to_compact_and_loses_nothing() {
    let data = fresh("running");
    let broker = start(&data);
    something_of_everything(&broker);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 300);
    assert_eq!(consume(&broker, "s", 290), (1..=290).collect::<Vec<_>>());
    let (before, export) = (bytes(&data), done(&["export"], &data));
    done(&["compact"], &data);
    assert!(bytes(&data) < before / 2, "{} of {before}", bytes(&data));
    assert_eq!(settled(&done(&["export"], &data)), settled(&export));
    assert!(refused(&["compact", "--timeout", "0"], &data).contains("after 0 s"));
    publish(&broker, 301, 5);
    assert_eq!(consume(&broker, "s", 15), (291..=305).collect::<Vec<_>>());
    stop(broker);
}

#[test]
fn what_is_read_while_a_broker_compacts_is_all_that_is_kept() {
    let data = fresh("meanwhile");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    publish(&broker, 1, 200);
    let kept = settled(&done(&["export"], &data));
    for _ in 0..2 {
        let mut compact = Command::new(dunlin())
            .args(["storage", "compact", "--data-dir", text_of(&data)])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("dunlin runs");
        let mut is_done = false;
        while !is_done {
            is_done = compact.try_wait().expect("a child").is_some();
            assert!(settled(&done(&["export"], &data)) == kept);
            assert!(done(&["check"], &data).contains("intact"));
        }
        assert!(compact.wait().expect("it ends").success());
    }
    stop(broker);
}

#[test]
fn numbers_of_messages_that_are_done_with_are_not_used_again_after_compacting() {
    let data = fresh("numbers");
    let broker = start(&data);
    offline_subscriber(&broker, "s");
    // It fills a segment, so that what is done with it goes into the next.
    publish_large(&broker, 1, 1, 70_000);
    assert_eq!(consume(&broker, "s", 1), [1]);
    // The message goes, and that it is done with stays.
    done(&["compact"], &data);
    stop(broker);
    let broker = start(&data);
    publish(&broker, 2, 3);
    stop(broker);
    let broker = start(&data);
    assert_eq!(consume(&broker, "s", 3), [2, 3, 4]);
    stop(broker);
}
