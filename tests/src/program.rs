//! The program, started on a port of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// The program that was built with these tests.
///
/// # Panics
/// When it was not built: `cargo build` first, or `cargo test --workspace`.
#[must_use]
pub fn dunlin() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has a path");
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    path.push("dunlin");
    assert!(path.exists(), "{} is not there: cargo build first", path.display());
    path
}

/// A broker that runs until it is dropped.
#[derive(Debug)]
pub struct Running {
    child: Child,
    port: u16,
    log: Receiver<String>,
}

impl Running {
    /// Starts a broker on a free port of 127.0.0.1.
    #[must_use]
    pub fn start(args: &[&str]) -> Self {
        let mut all = vec!["--listen", "127.0.0.1:0"];
        if !args.contains(&"--data-dir") {
            // Everything in memory.
            all.extend(["--data-dir", ""]);
        }
        all.extend(args);
        Self::start_with(&all)
    }

    /// Starts a broker with just these arguments.
    ///
    /// # Panics
    /// When it does not say where it listens.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        let mut child = Command::new(dunlin())
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("dunlin starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut line).expect("it says where it listens");
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let Some(port) = port else {
            let mut text = String::new();
            let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut text));
            panic!("dunlin did not start: {line}{text}");
        };
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, port, log }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where it listens on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Everything logged up to a line with `text`.
    ///
    /// # Panics
    /// When no such line comes in time.
    #[must_use]
    pub fn log_until(&self, text: &str, timeout: Duration) -> String {
        let mut log = String::new();
        loop {
            let line = self.log.recv_timeout(timeout);
            let line = line.unwrap_or_else(|_| panic!("no line with {text} in: {log}"));
            log.push_str(&line);
            log.push('\n');
            if line.contains(text) {
                return log;
            }
        }
    }

    /// Waits until so many other clients are online, by taking a client's place in the queue of
    /// connections and looking at `$SYS`.
    ///
    /// # Panics
    /// When they do not come.
    pub fn wait_for_clients(&self, count: u32) {
        for _ in 0..200 {
            let output = Command::new(dunlin())
                .args(["sub", "-t", "$SYS/broker/clients/connected", "-c", "1"])
                .args(["-p", &self.port.to_string()])
                .output()
                .expect("dunlin runs");
            let online = String::from_utf8_lossy(&output.stdout).trim().parse::<u32>();
            if online.is_ok_and(|online| online >= count) {
                return;
            }
            // The figure is a second old at most.
            let _ = TcpStream::connect(("127.0.0.1", self.port));
            std::thread::park_timeout(Duration::from_millis(50));
        }
        panic!("{count} clients have not come");
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Panics
    /// When there is no `kill`.
    #[must_use]
    pub fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").arg(pid).status().expect("there is a kill");
        assert!(killed.success());
        self.child.wait().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
