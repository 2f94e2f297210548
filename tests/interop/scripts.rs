//! Clients in other languages: each script connects, subscribes, publishes at every QoS, checks
//! what comes back, and ends with status 0.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use dunlin_tests::program::Running;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| {
        panic!("{command:?}: {error}: scripts/test.sh installs what is needed")
    });
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

#[test]
fn paho_for_python_works_in_both_versions() {
    let broker = Running::start(&["--workers", "2"]);
    run(Command::new(root().join(".tools/python/bin/python"))
        .arg(root().join("tests/interop/paho_client.py"))
        .arg(broker.port().to_string()));
}

#[test]
fn mqtt_js_works_in_both_versions() {
    let broker = Running::start(&["--workers", "2"]);
    run(Command::new("node")
        .arg(root().join("tests/interop/mqtt_js_client.cjs"))
        .arg(broker.port().to_string())
        .env("NODE_PATH", root().join(".tools/node_modules")));
}

#[test]
fn mosquitto_pub_and_sub_work_in_every_version() {
    let broker = Running::start(&["--workers", "2"]);
    let port = broker.port().to_string();
    for version in ["31", "311", "5"] {
        for qos in ["0", "1", "2"] {
            let topic = format!("{version}/{qos}");
            let subscriber = Command::new("mosquitto_sub")
                .args(["-p", &port, "-V", version, "-q", qos, "-C", "2", "-W", "20", "-v"])
                .args(["-t", &format!("{topic}/#"), "-i", &format!("sub-{version}-{qos}")])
                .stdout(Stdio::piped())
                .spawn()
                .expect("mosquitto_sub: scripts/test.sh installs it");
            // Retained: it does not matter which of the two is there first.
            for name in ["first", "second"] {
                run(Command::new("mosquitto_pub")
                    .args(["-p", &port, "-V", version, "-q", qos, "-r"])
                    .args(["-t", &format!("{topic}/{name}"), "-m", name]));
            }
            let output = subscriber.wait_with_output().expect("it ends");
            let text = String::from_utf8_lossy(&output.stdout);
            let mut lines: Vec<_> = text.lines().collect();
            lines.sort_unstable();
            let expected = ["first", "second"].map(|name| format!("{topic}/{name} {name}"));
            assert_eq!(lines, expected, "version {version}, QoS {qos}");
        }
    }
}

#[test]
fn mosquitto_sub_with_a_persistent_session_gets_what_it_missed() {
    let broker = Running::start(&[]);
    let port = broker.port().to_string();
    let subscribe = |count: &str| {
        let mut command = Command::new("mosquitto_sub");
        command.args(["-p", &port, "-i", "persistent", "-c", "-q", "1", "-t", "p/#"]);
        if count == "0" {
            // Leaves once it has subscribed.
            command.arg("-E");
        } else {
            command.args(["-C", count, "-W", "20"]);
        }
        command
    };
    run(&mut subscribe("0"));
    for number in 0..20 {
        run(Command::new("mosquitto_pub").args([
            "-p",
            &port,
            "-q",
            "1",
            "-t",
            "p/x",
            "-m",
            &number.to_string(),
        ]));
    }
    let text = run(&mut subscribe("20"));
    let expected: String = (0..20).map(|number| format!("{number}\n")).collect();
    assert_eq!(text, expected);
}
