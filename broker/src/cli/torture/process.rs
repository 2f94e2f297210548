//! The broker as a process that is started and killed.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::shared::{Phase, Shared};

/// How long a start may take, recovery included.
const START_LIMIT_MS: u64 = 60_000;
/// How long a killed process may take to be gone: as long as the kernel takes for its last sync.
const END_LIMIT_MS: u64 = 120_000;
const SLICE_MS: u64 = 10;
/// Bytes at the end of the log that a failed start quotes.
const LOG_TAIL_BYTES: usize = 1000;

/// How the broker is started, again and again.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) executable: PathBuf,
    pub(super) arguments: Vec<OsString>,
    /// Where its standard error goes; `None` for our own.
    pub(super) log: Option<PathBuf>,
    /// The process that runs, 0 for none.
    pid: Arc<AtomicU32>,
}

/// A broker that runs; killed at the latest when it is dropped.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    pid: Arc<AtomicU32>,
    pub(super) port: u16,
    /// From the start of the process until it said where it listens.
    pub(super) start_ms: u64,
}

impl Program {
    pub(super) fn new(executable: PathBuf, arguments: Vec<OsString>, log: Option<PathBuf>) -> Self {
        let pid = Arc::default();
        let program = Self { executable, arguments, log, pid };
        program.kill_at_panic();
        program
    }

    /// In a release build a panic ends the program without dropping anything.
    fn kill_at_panic(&self) {
        let (pid, before) = (Arc::clone(&self.pid), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |info| {
            let pid = pid.swap(0, Ordering::SeqCst) as i32;
            if let Some(pid) = Pid::from_raw(pid) {
                let _ = kill_process(pid, Signal::KILL);
            }
            before(info);
        }));
    }

    /// Starts it, and waits until it listens.
    ///
    /// # Errors
    /// When it does not; its log's last lines are quoted then.
    pub(super) fn start(&self, shared: &Shared, life: u32) -> Result<Running, String> {
        self.try_start(shared, life)
            .map_err(|error| format!("start {life} of the broker failed: {error}{}", self.tail()))
    }

    fn try_start(&self, shared: &Shared, life: u32) -> Result<Running, String> {
        let log = self.open_log(life).map_err(|error| format!("no log: {error}"))?;
        let started = shared.now();
        let mut child = Command::new(&self.executable)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        self.pid.store(child.id(), Ordering::SeqCst);
        let stdout = child.stdout.take();
        let mut running = Running { child, pid: Arc::clone(&self.pid), port: 0, start_ms: 0 };
        // From here on, whatever goes wrong drops, and so kills, what runs.
        let lines = lines_of(stdout.ok_or("no standard output")?);
        running.port = running.wait_for_port(&lines, shared)?;
        running.start_ms = shared.now().millis_since(started);
        Ok(running)
    }

    fn open_log(&self, life: u32) -> std::io::Result<Stdio> {
        let Some(path) = &self.log else { return Ok(Stdio::inherit()) };
        let mut file: File = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, "== start {life}")?;
        Ok(file.into())
    }

    fn tail(&self) -> String {
        let text = self.log.as_ref().and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
        let tail = &text[text.len().saturating_sub(LOG_TAIL_BYTES)..];
        format!("\n{}", String::from_utf8_lossy(tail).trim_end())
    }
}

/// Its lines, read by a thread that ends with it.
fn lines_of(stdout: ChildStdout) -> Receiver<String> {
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Read on when nobody listens, lest a full pipe stop the broker.
            let _ = sender.send(line);
        }
    });
    lines
}

impl Running {
    fn wait_for_port(&self, lines: &Receiver<String>, shared: &Shared) -> Result<u16, String> {
        let end = shared.now().plus_millis(START_LIMIT_MS);
        while shared.now() < end && shared.phase() != Phase::Over {
            match lines.recv_timeout(Duration::from_millis(SLICE_MS)) {
                Ok(line) => {
                    if let Some(address) = line.strip_prefix("listening on ") {
                        let port = address.rsplit(':').next().and_then(|port| port.parse().ok());
                        return port.ok_or_else(|| format!("it listens on {address}"));
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err("it ended at once".into()),
            }
        }
        Err("it does not say where it listens".into())
    }

    /// How it ended, if it did so by itself.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL, and wait until it is gone.
    ///
    /// # Errors
    /// When it is still there after a long time.
    pub(super) fn kill(mut self, shared: &Shared) -> Result<(), String> {
        self.child.kill().map_err(|error| format!("cannot kill the broker: {error}"))?;
        self.pid.store(0, Ordering::SeqCst);
        let end = shared.now().plus_millis(END_LIMIT_MS);
        while shared.now() < end {
            if self.ended().is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Err("the killed broker is not gone".into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `Child` knows whether it was waited for, so no other process is hit.
        let _ = self.child.kill();
        self.pid.store(0, Ordering::SeqCst);
        let _ = self.child.wait();
    }
}
