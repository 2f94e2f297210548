//! How a run ends: what it leaves in the broker and on disk, and what it says.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use dunlin_tests::program::Running;

use crate::{bench, file, result};

fn signal(signal: &str, pid: u32) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status();
    assert!(status.expect("there is a kill").success());
}

#[test]
fn retained_messages_are_taken_away_also_when_the_run_is_told_to_end() {
    // There is room for those of one run only.
    let broker = Running::start(&["--workers", "1", "--set", "retained.max_messages=50000"]);
    let port = broker.port().to_string();
    let json = file("told.json");
    let args = ["run", "retained", "fan-in", "-p", &port, "--json", json.to_str().expect("a path")];
    let mut child = Command::new(env!("CARGO_BIN_EXE_dunlin-bench"))
        .args(args)
        .args(["--strict", "--quiet"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    lines.next().expect("a line").expect("text");
    signal("-TERM", child.id());
    assert_eq!(child.wait().expect("it ends").code(), Some(1));
    let run = result(&json);
    assert_eq!(run["outcomes"].as_array().expect("outcomes").len(), 1, "and no other is begun");
    assert_eq!(run["outcomes"][0]["failed"], "told to end");
    for _ in 0..2 {
        let output = bench(&["run", "retained", "-p", &port, "--messages", "50000", "--strict"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && !text.contains("refused"), "{text}");
    }
}

#[test]
fn a_scenario_that_cannot_be_run_does_not_keep_others_from_it() {
    let broker = Running::start(&[]);
    let port = broker.port().to_string();
    let json = file("unfit.json");
    let output = bench(&[
        "run",
        "churn",
        "filters",
        "-p",
        &port,
        "--connections-max",
        "500",
        "--json",
        json.to_str().expect("a path"),
    ]);
    assert_eq!(output.status.code(), Some(1));
    let run = result(&json);
    let failed = run["outcomes"][0]["failed"].as_str().expect("a reason");
    assert!(failed.contains("500 can be had"), "{failed}");
    assert_eq!(run["outcomes"][1]["phases"][1]["account"]["received"], 50_000);
}

#[test]
fn what_cannot_be_had_is_refused_before_anything_is_measured() {
    for (args, reason) in [
        (&["fan-in", "--json", "/nowhere/x.json"][..], "/nowhere/x.json"),
        (&["fan-in", "--html", "/nowhere/x.html"], "/nowhere/x.html"),
        (&["conn-tcp-10k-100", "--connections", "10000000"], "10000000 connections are wanted"),
    ] {
        let output = bench(&[&["run"], args, &["-p", "1"]].concat());
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(text.contains(reason) && output.stdout.is_empty(), "{text}");
    }
}

#[test]
fn a_strict_run_fails_if_something_was_lost() {
    let broker = Running::start(&["--set", "queue.max_messages=20"]);
    let port = broker.port().to_string();
    let args = ["run", "offline", "--subscribers", "2", "--messages", "200", "--window", "1", "-p"];
    let output = bench(&[&args[..], &[&port]].concat());
    assert!(output.status.success());
    let output = bench(&[&args[..], &[&port, "--strict"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAILED: 160 lost"), "{text}");
}

#[test]
fn a_broker_that_does_not_answer_is_charged_for_all_who_were_due() {
    let broker = Running::start(&[]);
    let port = broker.port().to_string();
    let json = file("stopped.json");
    signal("-STOP", broker.pid());
    let args = ["run", "churn", "--connections", "0", "--rate", "100", "--seconds", "2", "--quiet"];
    let output =
        bench(&[&args[..], &["-p", &port, "--json", json.to_str().expect("a path")]].concat());
    assert_eq!(output.status.code(), Some(1));
    let run = result(&json);
    let failed = run["outcomes"][0]["failed"].as_str().expect("a reason");
    assert!(failed.contains("200 of 200 connections were due and got no answer"), "{failed}");
}
