//! A broker process, or any other, to look at from outside.

use std::io::{self, BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A child process that says `listening on ADDRESS` first and ends with this value.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) child: Child,
    pub(crate) port: u16,
}

impl Process {
    /// Starts a program that lies beside this one.
    pub(crate) fn start(name: &str, args: &[&str]) -> io::Result<Self> {
        let path = std::env::current_exe()?.with_file_name(name);
        let mut child = Command::new(&path)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| io::Error::other(format!("{}: {error}", path.display())))?;
        let mut line = String::new();
        let stdout = child.stdout.as_mut().ok_or_else(|| io::Error::other("no pipe"))?;
        BufReader::new(stdout).read_line(&mut line)?;
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.ok_or_else(|| io::Error::other(format!("{name} said {line:?}")))?;
        Ok(Self { child, port })
    }

    /// The broker, with one worker.
    pub(crate) fn broker() -> io::Result<Self> {
        Self::start("dunlin", &["--listen", "127.0.0.1:0", "--workers", "1"])
    }

    /// CPU seconds so far, user and system.
    pub(crate) fn cpu_s(&self) -> io::Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name in brackets: user and system time are the 12th and 13th, in ticks.
        let rest = stat.rsplit(')').next().unwrap_or("");
        let field = |at: usize| rest.split_whitespace().nth(at).and_then(|t| t.parse::<f64>().ok());
        match (field(11), field(12)) {
            (Some(user), Some(system)) => Ok((user + system) / 100.0),
            _ => Err(io::Error::other("cannot read /proc/PID/stat")),
        }
    }

    /// Resident memory in bytes.
    pub(crate) fn resident_bytes(&self) -> io::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| io::Error::other("cannot read /proc/PID/status"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
