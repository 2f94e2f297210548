//! The program, small, against a broker of its own: what a user sees of each scenario.

use dunlin_tests::program::Running;
use serde_json::Value;

use crate::{bench, file, result};

/// Runs a scenario with options and returns its outcome.
fn run(broker: &Running, name: &str, options: &str) -> Value {
    let json = file(&format!("{name}-{}.json", options.len()));
    let port = broker.port().to_string();
    let path = json.to_str().expect("a path");
    let mut args = vec!["run", name, "--port", &port, "--json", path, "--quiet"];
    args.extend(options.split_whitespace());
    let output = bench(&args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    result(&json)["outcomes"][0].clone()
}

/// Asserts that all that was due came, once and in order, and returns how much that was.
fn all_arrived(phase: &Value) -> u64 {
    let account = &phase["account"];
    for what in ["lost", "duplicated", "out_of_order", "foreign"] {
        assert_eq!(account[what], 0, "{what}: {phase}");
    }
    account["received"].as_u64().expect("a count")
}

#[test]
fn messages_arrive_in_every_shape_and_at_every_qos() {
    let broker = Running::start(&[]);
    for (name, options) in [
        ("flood-fan-out", "--subscribers 20 --seconds 0.2"),
        ("flood-fan-out-q1", "--subscribers 20 --seconds 0.2 --mqtt 5"),
        ("flood-pairs", "--publishers 5 --subscribers 5 --seconds 0.2"),
        ("flood-pairs-q2", "--publishers 5 --subscribers 5 --seconds 0.2"),
        ("fan-in", "--publishers 10 --seconds 0.2 --payload 1000"),
        ("flood-shared", "--publishers 10 --subscribers 3 --seconds 0.2"),
    ] {
        let outcome = run(&broker, name, options);
        assert!(all_arrived(&outcome["phases"][0]) > 0, "{name}");
    }
}

#[test]
fn an_open_loop_keeps_its_rate_and_measures_every_delivery() {
    let broker = Running::start(&[]);
    let options = "--publishers 4 --subscribers 4 --rate 400 --seconds 0.5";
    let outcome = run(&broker, "latency-pairs", options);
    let phase = &outcome["phases"][0];
    all_arrived(phase);
    let count = phase["count"].as_u64().expect("a count");
    assert!((150..=250).contains(&count), "{count} in half a second at 400 per second");
    assert_eq!(phase["latency"]["count"], 200, "every message of the half second is measured");
    let latency = |name: &str| phase["latency"][name].as_f64().expect("a time");
    assert!(latency("p50_us") <= latency("p99_us") && latency("p99_us") <= latency("max_us"));
}

#[test]
fn connections_come_stay_and_go() {
    let broker = Running::start(&[]);
    let outcome = run(&broker, "conn-tcp-10k-100", "--connections 30 --rate 500");
    assert_eq!(outcome["phases"][0]["count"], 30);
    let outcome = run(&broker, "idle", "--connections 30");
    assert_eq!(outcome["phases"][0]["latency"]["count"], 30);
    let outcome = run(&broker, "churn", "--connections 10 --rate 200 --seconds 0.5");
    assert!(outcome["phases"][0]["count"].as_u64().expect("a count") > 50);
    let options = "--publishers 3 --subscribers 3 --rate 100 --connections 40";
    let outcome = run(&broker, "burst", options);
    all_arrived(&outcome["phases"][0]);
    assert!(outcome["phases"][1]["count"].as_u64().expect("a count") >= 38);
    let latency = outcome["phases"][1]["latency"]["p50_us"].as_f64().expect("a time");
    assert!(latency > 1.0, "{latency} us is no time to connect in");
}

#[test]
fn what_was_stored_is_fetched_and_nothing_is_left_behind() {
    let broker = Running::start(&[]);
    let outcome = run(&broker, "offline", "--subscribers 5 --messages 100");
    assert_eq!(all_arrived(&outcome["phases"][1]), 100);
    let outcome = run(&broker, "retained", "--messages 150");
    assert_eq!(all_arrived(&outcome["phases"][1]), 150);
    let outcome = run(&broker, "filters", "--messages 250");
    assert_eq!(outcome["phases"][0]["count"], 250);
    assert_eq!(all_arrived(&outcome["phases"][1]), 250);
}

#[test]
fn what_publishers_store_for_sessions_that_are_away_comes_in_order() {
    let broker = Running::start(&["--set", "limits.receive_maximum=10"]);
    for options in [
        "--publishers 3 --subscribers 5 --messages 100 --window 20",
        "--publishers 5 --subscribers 3 --messages 101 --window 1",
        // More than the Receive Maximum: the broker would end the connection.
        "--publishers 2 --subscribers 2 --messages 2000 --window 100 --mqtt 5",
    ] {
        let outcome = run(&broker, "durable-offline", options);
        let stored = &outcome["phases"][0];
        assert_eq!(stored["latency"]["count"], stored["count"], "every acknowledgement has a time");
        assert_eq!(stored["count"], all_arrived(&outcome["phases"][1]), "{options}");
    }
    let options = "--publishers 2 --subscribers 30 --messages 40";
    let outcome = run(&broker, "durable-fan-out", options);
    assert_eq!(outcome["phases"][0]["count"], 1200, "deliveries are counted");
    assert_eq!(all_arrived(&outcome["phases"][1]), 1200);
}

#[test]
fn a_steady_rate_is_followed_to_its_acknowledgements_and_on_disk() {
    let directory = file("data");
    let path = directory.to_str().expect("a path");
    let broker = Running::start(&["--data-dir", path]);
    let options =
        format!("--publishers 4 --subscribers 4 --rate 400 --seconds 1 --mqtt 5 --data-dir {path}");
    let outcome = run(&broker, "durable-steady", &options);
    let (messages, acknowledged) = (&outcome["phases"][0], &outcome["phases"][1]);
    assert!(all_arrived(messages) >= 400);
    assert_eq!(messages["latency"]["count"], 400);
    assert_eq!(acknowledged["latency"]["count"], 400, "{acknowledged}");
    assert!(acknowledged["notes"][1].as_str().expect("a note").contains("of the first"));
    let bytes = |name: &str| messages["disk"][name].as_u64().expect("bytes");
    // What a message and its end take, at least, of those that were measured.
    assert!(bytes("max_bytes") >= bytes("before_bytes") + 400 * 100, "{}", messages["disk"]);
    drop(broker);
    let _ = std::fs::remove_dir_all(directory);
}

#[test]
fn a_scenario_that_does_not_fit_is_scaled_and_says_so() {
    let broker = Running::start(&[]);
    let outcome = run(&broker, "p2p-1K-1K-1K-1K", "--connections-max 100 --seconds-max 0.3");
    let scaled = outcome["scaled"].as_str().expect("it says so");
    assert!(scaled.contains("5.0 %") && scaled.contains("2000"), "{scaled}");
    assert_eq!(outcome["params"]["publishers"], 50);
    assert_eq!(outcome["params"]["rate"], 50.0);
    all_arrived(&outcome["phases"][0]);
}

#[test]
fn runs_become_a_page_and_a_table() {
    let broker = Running::start(&[]);
    let (json, html) = (file("page.json"), file("page.html"));
    let (json_path, html_path) = (json.to_str().expect("a path"), html.to_str().expect("a path"));
    let port = broker.port().to_string();
    let pid = broker.pid().to_string();
    let output = bench(&[
        "run",
        "fan-in",
        "-p",
        &port,
        "--pid",
        &pid,
        "--broker",
        "mine",
        "--publishers",
        "3",
        "--seconds",
        "0.6",
        "--json",
        json_path,
    ]);
    assert!(output.status.success());
    let output = bench(&["report", json_path, "-o", html_path]);
    assert!(output.status.success());
    let page = std::fs::read_to_string(&html).expect("a page");
    assert!(page.contains("fan-in") && page.contains("mine"));
    assert_eq!(page.matches("<svg").count(), 3, "latency, throughput and memory");
    let output = bench(&["table", json_path]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("fan-in (messages)") && text.contains("mine"), "{text}");
    assert!(text.contains("publishers 3, subscribers 1"), "{text}");
    let _ = (std::fs::remove_file(json), std::fs::remove_file(html));
}

#[test]
fn a_broker_that_is_not_there_is_a_failure_with_its_reason() {
    // A port that was free a moment ago.
    let broker = Running::start(&[]);
    let port = broker.port().to_string();
    drop(broker);
    let output = bench(&["run", "fan-in", "-p", &port, "--seconds", "0.1"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("FAILED") && text.contains("refused"), "{text}");
    let output = bench(&["run", "fan-in", "--pid", "4194305"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("4194305"));
}

#[test]
fn a_broker_that_loses_messages_is_found_out() {
    // One that may keep 20 messages of the 100 for each session that is away.
    let broker = Running::start(&["--set", "queue.max_messages=20"]);
    let outcome = run(&broker, "offline", "--subscribers 2 --messages 200 --window 1");
    let account = &outcome["phases"][1]["account"];
    assert_eq!((&account["received"], &account["lost"]), (&40.into(), &160.into()), "{account}");
}

#[test]
fn a_delivery_is_held_against_system_calls_and_its_acknowledgement_against_theirs() {
    for (kind, columns) in [(&["--qos", "0"][..], 3), (&["--qos", "1"], 4), (&["--silent"], 3)] {
        let options = ["--subscribers", "10", "--burst", "3", "--rounds", "1", "--seconds", "0.02"];
        let output = bench(&[&["against-send"], kind, &options[..]].concat());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{text}");
        let figures = text.lines().nth(2).unwrap_or_default().split_whitespace();
        assert_eq!(figures.filter(|figure| figure.parse::<f64>().is_ok()).count(), columns);
        assert!(text.contains("median ratio"), "{text}");
    }
}
