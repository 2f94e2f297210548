//! The program as a user runs it: its command line, its configuration, its end.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use dunlin_tests::program::{Running, dunlin};

fn output(args: &[&str]) -> Output {
    Command::new(dunlin()).args(args).output().expect("dunlin runs")
}

fn file(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).expect("a file in the target directory");
    path
}

fn check(name: &str, text: &str) -> String {
    let path = file(name, text);
    let path = path.to_str().expect("a path of UTF-8");
    let output = output(&["check-config", "--config", path]);
    let text = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(text).expect("UTF-8").replace(path, name)
}

#[test]
fn the_default_file_is_a_valid_configuration() {
    let default = output(&["config", "--print-default"]);
    assert!(default.status.success());
    let text = String::from_utf8(default.stdout).expect("UTF-8");
    assert_eq!(check("default.toml", &text), "the configuration is in order\n");
}

#[test]
fn every_option_of_the_default_file_can_be_given_in_the_environment() {
    let text = String::from_utf8(output(&["config", "--print-default"]).stdout).expect("UTF-8");
    let mut section = String::new();
    let mut command = Command::new(dunlin());
    command.arg("check-config");
    for line in text.lines().map(|line| line.trim_start_matches("# allow").trim()) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if let Some((name, value)) =
            line.split_once(" = ").filter(|_| !line.starts_with('#'))
        {
            let value = value.trim_matches(|c| matches!(c, '"' | '[' | ']')).replace("\", \"", ",");
            let name = match section.as_str() {
                "" => name.to_uppercase(),
                "[listener" => continue,
                section => format!("{section}__{name}").to_uppercase(),
            };
            if name.starts_with('_') {
                continue;
            }
            command.env(format!("DUNLIN_{name}"), value);
        }
    }
    let output = command.output().expect("dunlin runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let text = "workers = 2\n\n[limits]\nmax_packet_sise = 100\n";
    let found = check("unknown.toml", text);
    assert_eq!(found, "dunlin: unknown.toml:4: limits.max_packet_sise: there is no such option\n");
}

#[test]
fn a_bad_value_is_named_with_its_line_and_what_would_be_good() {
    let found = check("range.toml", "[limits]\n# too small\nmax_packet_size = 5\n");
    assert_eq!(
        found,
        "dunlin: range.toml:3: limits.max_packet_size: 5 is not between 128 and 268435460\n"
    );
    let found = check("name.toml", "[queue]\nwhen_full = \"panic\"\n");
    assert!(found.contains("name.toml:2: queue.when_full: \"panic\" is not one of"), "{found}");
    let found = check("kind.toml", "workers = \"many\"\n");
    assert!(found.contains("kind.toml:1: workers: \"many\" is not a number"), "{found}");
    let found = check("syntax.toml", "workers = 1\nworkers = \n");
    assert!(found.contains("syntax.toml:2"), "{found}");
    let found = check("listener.toml", "[[listener]]\naddress = \"nowhere\"\n");
    assert!(found.contains("listener.toml:2: listener.address"), "{found}");
    let found = check("versions.toml", "[mqtt]\nversions = []\n");
    assert!(found.contains("versions.toml:2: mqtt.versions: with none"), "{found}");
    let twice = "[[listener]]\naddress = \"127.0.0.1:1883\"\n".repeat(2);
    let found = check("twice.toml", &twice);
    assert!(found.contains("listener.address: 127.0.0.1:1883 is there twice"), "{found}");
}

#[test]
fn a_public_listener_without_authentication_has_to_be_meant() {
    let text = "[[listener]]\naddress = \"0.0.0.0:1883\"\n";
    assert!(check("public.toml", text).contains("write allow_anonymous = true"));
    let text = format!("allow_anonymous = true\n{text}");
    assert_eq!(check("meant.toml", &text), "the configuration is in order\n");
}

#[test]
fn the_command_line_goes_over_the_environment_and_that_over_the_file() {
    let path = file("order.toml", "workers = 1\n[log]\nlevel = \"error\"\nformat = \"json\"\n");
    let mut command = Command::new(dunlin());
    command.args(["check-config", "--config"]).arg(path);
    // A later source is looked at last, so its mistake is the one that is reported.
    command.env("DUNLIN_LOG__LEVEL", "warn").args(["--set", "log.level=loud"]);
    let output = command.output().expect("dunlin runs");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(text.contains("--set log.level: log.level: it has to be one of"), "{text}");
    let output = Command::new(dunlin())
        .arg("check-config")
        .env("DUNLIN_LIMITS__MAX_PAKET_SIZE", "1")
        .output()
        .expect("dunlin runs");
    let text = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(text.contains("environment variable DUNLIN_LIMITS__MAX_PAKET_SIZE"), "{text}");
}

#[test]
fn wrong_commands_are_refused_in_words() {
    for (args, expected) in [
        (&["fly"][..], "there is no command \"fly\""),
        (&["--frobnicate"], "invalid option '--frobnicate'"),
        (&["pub", "-m", "x"], "pub needs a topic"),
        (&["sub", "-t", "a/#/b"], "is not a topic filter"),
    ] {
        let output = output(args);
        let text = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(!output.status.success() && text.contains(expected), "{text}");
    }
    for command in ["pub", "sub", "config", "check-config", "storage", "torture"] {
        let output = output(&[command, "--help"]);
        assert!(output.status.success() && !output.stdout.is_empty(), "{command}");
    }
    let version = output(&["--version"]);
    assert_eq!(version.stdout, format!("dunlin {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
}

#[test]
fn pub_and_sub_try_a_broker_without_another_client() {
    let broker = Running::start(&["--workers", "2"]);
    let port = broker.port().to_string();
    for (version, qos) in [("3", "0"), ("4", "1"), ("5", "2")] {
        let common = ["-p", &port, "-V", version, "-q", qos];
        // Retained, so that it does not matter which of the two is there first.
        let publish = output(&[&["pub", "-t", "a/b", "-m", "hello", "-r"], &common[..]].concat());
        assert!(publish.status.success(), "{}", String::from_utf8_lossy(&publish.stderr));
        let subscribe = output(&[&["sub", "-t", "a/#", "-v", "-c", "1"], &common[..]].concat());
        assert_eq!(String::from_utf8_lossy(&subscribe.stdout), "a/b hello\n");
    }
    let mut lines = Command::new(dunlin())
        .args(["pub", "-t", "lines", "-p", &port, "-q", "1"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("dunlin runs");
    let mut input = lines.stdin.take().expect("a pipe");
    input.write_all(b"one\ntwo\n").expect("it reads");
    drop(input);
    assert!(lines.wait().expect("it ends").success());
}

#[test]
fn sub_settles_what_it_prints_of_a_queue_and_says_why_it_is_refused() {
    let broker = Running::start(&[]);
    let port = broker.port().to_string();
    for payload in ["one", "two"] {
        let args = ["pub", "-t", "$queue/orders/k", "-m", payload, "-q", "1", "-p", &port];
        assert!(output(&args).status.success());
    }
    let args = ["sub", "-t", "$share/g/$queue/orders", "-c", "1", "-p", &port, "-q"];
    for payload in ["one\n", "two\n"] {
        let printed = output(&[&args[..], &["1"]].concat()).stdout;
        assert_eq!(String::from_utf8_lossy(&printed), payload);
    }
    let refused = output(&[&args[..], &["0"]].concat()).stderr;
    let text = String::from_utf8_lossy(&refused);
    assert!(text.contains("a queue is consumed at QoS 1 or 2"), "{text}");
}

#[test]
fn pub_says_what_the_broker_says_of_a_message_it_has_no_room_to_retain() {
    let broker = Running::start(&["--set", "retained.max_messages=0"]);
    let port = broker.port().to_string();
    for (qos, is_success) in [("1", false), ("2", true)] {
        let output = output(&["pub", "-t", "t", "-m", "x", "-r", "-q", qos, "-p", &port]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), is_success, "{text}");
        assert!(text.contains("delivered, but not retained"), "{text}");
    }
}

#[test]
fn a_broker_goes_on_at_sighup() {
    let broker = Running::start(&[]);
    let pid = broker.pid().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("there is a kill").success());
    let _ = broker.log_until("SIGHUP", Duration::from_secs(20));
    let port = broker.port().to_string();
    assert!(output(&["pub", "-t", "t", "-m", "x", "-q", "1", "-p", &port]).status.success());
}

#[test]
fn a_broker_ends_at_sigterm_and_tells_its_clients() {
    let broker = Running::start(&["--set", "mqtt.sys_interval_ms=100"]);
    let mut subscriber = Command::new(dunlin())
        .args(["sub", "-t", "t", "-p", &broker.port().to_string(), "-i", "s"])
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("dunlin runs");
    broker.wait_for_clients(1);
    assert!(broker.terminate().success());
    let text = last_line(&mut subscriber);
    assert!(text.contains("ServerShuttingDown"), "{text}");
}

fn last_line(child: &mut Child) -> String {
    let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let text = lines.map_while(Result::ok).last().unwrap_or_default();
    child.wait().expect("it ends");
    text
}

#[test]
fn two_brokers_do_not_share_a_port_or_a_data_directory() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("data");
    let directory = directory.to_str().expect("a path of UTF-8");
    let first = Running::start(&["--data-dir", directory]);
    let address = format!("127.0.0.1:{}", first.port());
    let second = output(&["--listen", &address, "--data-dir", ""]);
    assert!(String::from_utf8_lossy(&second.stderr).contains("cannot listen on"));
    let third = output(&["--listen", "127.0.0.1:0", "--data-dir", directory]);
    assert!(String::from_utf8_lossy(&third.stderr).contains("another broker uses"));
}

#[test]
fn the_log_names_clients_and_reasons_as_text_and_as_json() {
    for (format, expected) in [("text", "client=\"logged\""), ("json", "\"client\":\"logged\"")] {
        let set = format!("log.format={format}");
        let broker = Running::start(&["--set", "log.level=info", "--set", &set]);
        let port = broker.port().to_string();
        let publish = output(&["pub", "-i", "logged", "-t", "t", "-m", "x", "-p", &port]);
        assert!(publish.status.success());
        let log = broker.log_until("disconnected", Duration::from_secs(20));
        assert!(log.contains("the client disconnected"), "{log}");
        let client = log.contains(expected) || log.contains("client=logged");
        assert!(client, "{log}");
    }
}

#[test]
fn every_figure_is_explained_to_operators() {
    let text = include_str!("../docs/operations.md");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("figures");
    let directory = directory.to_str().expect("a path of UTF-8");
    let broker = Running::start(&["--data-dir", directory, "--set", "mqtt.sys_interval_ms=50"]);
    let port = broker.port().to_string();
    // All of them, several times over.
    let figures = output(&["sub", "-t", "$SYS/broker/#", "-v", "-c", "200", "-p", &port]).stdout;
    let figures = String::from_utf8(figures).expect("UTF-8");
    let names = figures.lines().filter_map(|line| line.strip_prefix("$SYS/broker/"));
    let names: std::collections::BTreeSet<_> =
        names.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name).collect();
    assert!(names.len() > 40, "{names:?}");
    for name in names.iter().filter(|name| !name.starts_with("version")) {
        let name = name.strip_prefix("messages/dropped/").unwrap_or(name);
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn connections_above_the_limits_are_refused() {
    let text = "[[listener]]\naddress = \"127.0.0.1:0\"\nmax_connections = 2\n";
    let path = file("connections.toml", text);
    let path = path.to_str().expect("a path of UTF-8");
    // One worker lets them in in the order in which they come.
    let fast = ["--workers", "1", "--set", "mqtt.sys_interval_ms=50"];
    let broker = Running::start_with(&[&["--config", path, "--data-dir", ""], &fast[..]].concat());
    let connect = || std::net::TcpStream::connect(("127.0.0.1", broker.port())).expect("listens");
    let held = [connect(), connect()];
    let mut third = connect();
    let mut byte = [0];
    let read = std::io::Read::read(&mut third, &mut byte);
    assert!(matches!(read, Ok(0) | Err(_)), "it is closed");
    drop(held);
    let port = broker.port().to_string();
    let args = ["sub", "-t", "$SYS/broker/connections/refused", "-c", "3", "-p", &port];
    // The first may come before the broker has noticed that there is room again, and count too.
    let figures = (0..100).map(|_| String::from_utf8(output(&args).stdout).expect("UTF-8"));
    let mut last = figures.filter_map(|text| text.lines().last().map(str::to_owned));
    assert!(last.any(|figure| figure != "0"), "and counted");
}
