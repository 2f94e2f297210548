//! The program `dunlin-bench`, as somebody at a terminal uses it.

mod endings;
mod scenarios;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn bench(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_dunlin-bench")).args(args).output().expect("it runs")
}

/// Where a run may leave something.
fn file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("dunlin-bench-{}-{name}", std::process::id()))
}

/// Takes what a run has left.
fn result(json: &Path) -> Value {
    let text = std::fs::read_to_string(json).expect("a result");
    let _ = std::fs::remove_file(json);
    serde_json::from_str(&text).expect("JSON")
}
