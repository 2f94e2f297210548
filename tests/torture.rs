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

#[test]
fn without_a_kill_nothing_is_lost_or_doubled() {
    assert_clean(&torture(&["--kills", "0", "--seed", "1"]));
}

#[test]
fn killed_and_started_again_it_has_lost_nothing_it_acknowledged() {
    assert_clean(&torture(&["--kills", "3", "--seed", "1"]));
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
