//! `dunlin storage export` and `import`.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use dunlin_tests::Subscribing;
use dunlin_tests::program::dunlin;
use serde_json::{Value, json};

use super::{
    Client, done, fresh, lines, of_type, persistent, refused, settled, something_of_everything,
    start, stop, text_of, written,
};

#[test]
fn export_and_import_and_export_give_the_same_and_the_queues_are_delivered() {
    let (data, copy) = (fresh("original"), fresh("copy"));
    let broker = start(&data);
    something_of_everything(&broker);
    let running = done(&["export"], &data);
    stop(broker);
    let file = data.join("export.jsonl");
    done(&["export", "-o", text_of(&file)], &data);
    let export = std::fs::read_to_string(&file).expect("a file");
    assert_eq!(settled(&running), settled(&export));
    assert_eq!(std::fs::read_dir(&data).expect("a directory").count(), 3, "nothing is left over");

    let all = lines(&export);
    let header = json!({
        "type": "header", "format": "dunlin-export", "version": 2, "sessions": 3, "messages": 5,
        "retained": 2, "queues": 0, "queue_messages": 0, "hash_keys": all[0]["hash_keys"],
    });
    assert_eq!(all[0], header);
    let sessions = of_type(&all, "session");
    let of_client = |id: &str| -> &Value {
        sessions.iter().find(|session| session["client_id"] == id).expect("a session")
    };
    assert_eq!(of_client("pub")["received"], json!([1, 3, 4, 5, 6]));
    assert_eq!(
        of_client("will")["will"]["properties"],
        json!([
            {"will_delay_interval": 600}, {"user_property": ["why", "not"]},
        ])
    );
    let subscriber = of_client("sub");
    assert_eq!(subscriber["subscriptions"].as_array().map(Vec::len), Some(3));
    assert_eq!(subscriber["in_flight"][0]["delivery"], Value::Null);
    assert_eq!(subscriber["in_flight"][1]["packet_id"], 2);
    assert_eq!(subscriber["queue"].as_array().map(Vec::len), Some(4));
    assert_eq!(subscriber["queue"][0]["identifiers"], json!([7, 9]));
    let message = of_type(&all, "message")[1];
    assert_eq!(message["payload_base64"], "AwD/");
    assert_eq!(message["properties"][0], json!({"content_type": "bytes"}));
    assert_eq!(of_type(&all, "retained")[1]["properties"], json!([{"response_topic": "r"}]));

    let said = done(&["import", text_of(&file)], &copy);
    assert_eq!(
        said,
        "imported 3 sessions, 5 messages, 2 retained messages, 0 queues, 0 queue messages\n"
    );
    assert_eq!(done(&["export"], &copy), export);
    assert!(done(&["check"], &copy).contains("intact"));

    let broker = start(&copy);
    let mut subscriber = Client::connect(&broker, &persistent("sub"));
    let mut got: Vec<String> = (0..6).map(|_| subscriber.next()).collect();
    got.sort_by_key(|text| !text.starts_with("PUBREL"));
    assert_eq!(got[0], "PUBREL 1");
    assert!(got[1].starts_with("PUBLISH t/ä \"\\u{2}\\0\u{fffd}\" q2 id=2 dup ["), "{got:?}");
    for (number, text) in got.iter().enumerate().skip(2) {
        assert!(text.starts_with(&format!("PUBLISH t/ä \"\\u{{{}}}", number + 1)), "{got:?}");
        assert!(text.contains("UserProperty(\"n\", \"1\"), UserProperty(\"n\", \"2\")"), "{text}");
        assert!(text.contains("SubscriptionIdentifier(7), SubscriptionIdentifier(9)"), "{text}");
    }
    subscriber.send(Subscribing::to("kept/#", 1).v5());
    let retained: BTreeSet<String> = (0..3)
        .map(|_| subscriber.next())
        .filter(|text| text.starts_with("PUBLISH"))
        .map(|text| text[.."PUBLISH kept/a".len()].to_owned())
        .collect();
    assert_eq!(retained.into_iter().collect::<Vec<_>>(), ["PUBLISH kept/a", "PUBLISH kept/b"]);
    subscriber.leave();
    stop(broker);
}

/// An export of one session that waits for one message.
fn small_export() -> Vec<Value> {
    vec![
        json!({
            "type": "header", "format": "dunlin-export", "version": 1,
            "sessions": 1, "messages": 1, "retained": 1, "hash_keys": null,
        }),
        json!({
            "type": "session", "number": 1, "client_id": "c", "expiry_s": 60, "online": false,
            "expires_at_ms": null, "will_at_ms": null,
            "will": {
                "topic": "w", "qos": 0, "retain": false, "delay_s": 0,
                "properties": null, "properties_base64": "", "payload_base64": "",
            },
            "subscriptions": [{
                "filter": "a/#", "qos": 1, "no_local": false, "retain_as_published": false,
                "retain_handling": 0, "identifier": null,
            }],
            "received": [], "in_flight": [{"packet_id": 5, "delivery": null}],
            "queue": [{"message": 4, "qos": 1, "retain": false, "identifiers": []}],
        }),
        json!({
            "type": "message", "number": 4, "topic": "a/b", "qos": 1, "retain": false,
            "received_at_ms": 1_700_000_000_000_u64, "expires_at_ms": null, "properties": null,
            "properties_base64": "", "payload_base64": "aGVsbG8=",
        }),
        json!({
            "type": "retained", "number": 5, "topic": "kept", "qos": 1,
            "publisher": "0000000000000001", "expires_at_ms": null, "properties": [],
            "properties_base64": "", "payload_base64": "",
        }),
    ]
}

#[test]
fn a_wrong_line_is_named_and_nothing_is_left_of_the_import() {
    type Change = fn(&mut Vec<Value>);
    let cases: &[(&str, u32, Change, &str)] = &[
        ("version", 1, |all| all[0]["version"] = json!(3), "has version 3, supported is 2"),
        ("format", 1, |all| all[0]["format"] = json!("tar"), "not what dunlin storage export"),
        ("header", 1, |all| drop(all.remove(0)), "not what dunlin storage export"),
        ("keys", 1, |all| all[0]["hash_keys"] = json!(["1", "2", "3", "4"]), "hexadecimal"),
        ("unknown", 2, |all| all[1]["colour"] = json!("red"), "unknown field `colour`"),
        ("kind", 2, |all| all[1]["type"] = json!("sesion"), "unknown variant `sesion`"),
        ("type", 2, |all| all[1]["number"] = json!("1"), "invalid type"),
        ("zero", 2, |all| all[1]["number"] = json!(0), "the number 0 is not between"),
        ("client", 2, |all| all[1]["client_id"] = json!(""), "client identifier"),
        ("nul", 2, |all| all[1]["client_id"] = json!("a\0b"), "U+0000"),
        ("filter", 2, |all| all[1]["subscriptions"][0]["filter"] = json!("a/#/b"), "topic filter"),
        ("qos", 2, |all| all[1]["subscriptions"][0]["qos"] = json!(3), "above 2"),
        ("handling", 2, |all| all[1]["subscriptions"][0]["retain_handling"] = json!(16), "above 2"),
        ("identifier", 2, |all| all[1]["subscriptions"][0]["identifier"] = json!(0), "between 1"),
        ("will", 2, |all| all[1]["will"]["topic"] = json!("+"), "will: \"+\" is not a topic"),
        ("packet", 2, |all| all[1]["received"] = json!([0]), "packet identifier is 0"),
        ("twice", 2, |all| all[1]["received"] = json!([3, 3]), "there twice"),
        (
            "order",
            2,
            |all| {
                let mut first = all[1]["queue"][0].clone();
                first["message"] = json!(9);
                all[1]["queue"].as_array_mut().expect("a list").insert(0, first);
            },
            "not in the order",
        ),
        ("q0", 2, |all| all[1]["queue"][0]["qos"] = json!(0), "QoS 0"),
        ("missing", 2, |all| all[1]["queue"][0]["message"] = json!(3), "no session waits"),
        (
            "lost",
            2,
            |all| {
                all.remove(2);
                all[0]["messages"] = json!(0);
            },
            "message 4 is in no line",
        ),
        ("topic", 3, |all| all[2]["topic"] = json!("a/+"), "\"a/+\" is not a topic name"),
        ("long", 3, |all| all[2]["topic"] = json!("x".repeat(65_536)), "is not a topic name"),
        ("base64", 3, |all| all[2]["payload_base64"] = json!("%"), "payload_base64"),
        ("properties", 3, |all| all[2]["properties_base64"] = json!("/w=="), "properties_base64: "),
        ("expiry", 3, |all| all[2]["properties_base64"] = json!("AgAAAAE="), "expires_at_ms"),
        ("alias", 3, |all| all[2]["properties_base64"] = json!("IwAB"), "cannot have"),
        (
            "described",
            3,
            |all| {
                all[2]["properties"] = json!([{"content_type": "x"}]);
            },
            "not what properties_base64 is",
        ),
        ("again", 4, |all| all.insert(3, all[2].clone()), "another message with the number 4"),
        ("late", 5, |all| all.push(json!(all[1])), "sessions come before messages"),
        ("topics", 5, |all| all.push(json!(all[3])), "has had its retained message"),
        ("publisher", 4, |all| all[3]["publisher"] = json!("x"), "publisher: "),
        (
            "clients",
            3,
            |all| {
                let mut other = all[1].clone();
                other["number"] = json!(2);
                all.insert(2, other);
            },
            "another session of this client",
        ),
        ("short", 4, |all| drop(all.pop()), "the header says 1 retained message, and there are 0"),
    ];
    for (name, line, change, expected) in cases {
        let mut all = small_export();
        change(&mut all);
        let (data, file) = (fresh("refused"), written("refused.jsonl", &all));
        let found = refused(&["import", text_of(&file)], &data);
        assert!(found.contains(expected), "{name}: {found}");
        // Who waits for what is only known at the end, or where it does not come.
        let line = if *name == "missing" { 3 } else { *line };
        assert!(found.contains(&format!("refused.jsonl:{line}: ")), "{name}: {found}");
        assert!(!data.exists(), "{name}: something is left");
    }
    let data = fresh("refused");
    std::fs::create_dir_all(&data).expect("a directory");
    let file = fresh("json.jsonl");
    std::fs::write(&file, "{\"type\":\n").expect("a file");
    let found = refused(&["import", text_of(&file)], &data);
    assert!(found.contains("json.jsonl:1: EOF while parsing"), "{found}");
    std::fs::write(&file, b"\xff\n").expect("a file");
    assert!(refused(&["import", text_of(&file)], &data).contains("json.jsonl:1: "));
    std::fs::write(&file, "").expect("a file");
    assert!(refused(&["import", text_of(&file)], &data).contains("the file is empty"));
    assert!(!data.join("log").exists() && !data.join("log.new").exists());
    assert!(refused(&["import", "/no/such/file"], &data).contains("/no/such/file"));
}

#[test]
fn import_takes_a_pipe_and_a_directory_in_which_nothing_is_kept_and_no_other() {
    let data = fresh("used");
    let file = written("used.jsonl", &small_export());
    let broker = start(&data);
    let found = refused(&["import", text_of(&file)], &data);
    assert!(found.contains("a broker uses the data directory"), "{found}");
    stop(broker);
    // A broker was there, and kept nothing.
    let mut import = Command::new(dunlin())
        .args(["storage", "import", "-", "--data-dir"])
        .arg(&data)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("dunlin runs");
    let content = std::fs::read(&file).expect("a file");
    import.stdin.take().expect("a pipe").write_all(&content).expect("it reads");
    assert!(import.wait().expect("it ends").success());
    let export = done(&["export"], &data);
    assert_eq!(lines(&export).len(), 4);
    let found = refused(&["import", text_of(&file)], &data);
    assert!(found.contains("has data"), "{found}");
    assert_eq!(done(&["export"], &data), export);
}
