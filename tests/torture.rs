//! The program against itself: killed at random moments, it keeps what it acknowledged.

use std::process::{Command, Output};

use dunlin_tests::program::dunlin;

fn torture(args: &[&str]) -> Output {
    Command::new(dunlin()).arg("torture").args(args).output().expect("dunlin runs")
}

fn assert_clean(output: &Output) {
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
    assert!(!out.contains("HAS TO BE 0"), "{out}");
}

/// A figure of the report.
fn figure(output: &Output, name: &str) -> Option<u64> {
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[test]
fn without_a_kill_nothing_is_lost_or_doubled() {
    assert_clean(&torture(&["--kills", "0", "--seed", "1"]));
}

#[test]
fn killed_and_started_again_it_has_lost_nothing_it_acknowledged() {
    let output = torture(&["--kills", "3", "--seed", "1"]);
    assert_clean(&output);
    let [delivered, settled, lost] = ["queue: delivered", "queue: settled for good", "queue: lost"]
        .map(|it| figure(&output, it));
    assert!(delivered > Some(0) && settled > Some(0), "{delivered:?} {settled:?}");
    assert_eq!(lost, Some(0));
}

#[test]
fn without_consumers_there_is_no_queue_and_everything_else() {
    let output = torture(&["--kills", "0", "--seed", "1", "--queue-consumers", "0"]);
    assert_clean(&output);
    assert!(figure(&output, "delivered") > Some(0));
    assert_eq!(figure(&output, "queue: delivered"), None);
}

#[test]
fn a_directory_in_use_and_bad_arguments_are_refused_with_the_reason() {
    for (args, expected) in [
        (&["--dir", env!("CARGO_MANIFEST_DIR")][..], "is not empty"),
        (&["--kills", "many"], "many"),
        (&["--set", "no.such=1"], "no.such: there is no such option"),
    ] {
        let output = torture(args);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(expected), "{text}");
    }
}
