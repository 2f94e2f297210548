//! A process seen from outside: its CPU time and its memory, from `/proc`.

use std::fs;
use std::io;

/// Clock ticks per second in `/proc/PID/stat`: a constant of Linux's interface to user space.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process that is being measured.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pid: u32,
}

/// What it has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time of all its threads.
    pub(crate) cpu_s: f64,
    /// Resident memory now.
    pub(crate) rss_bytes: u64,
}

impl Process {
    /// # Errors
    /// When there is no such process.
    pub(crate) fn open(pid: u32) -> io::Result<Self> {
        let process = Self { pid };
        process.usage()?;
        Ok(process)
    }

    pub(crate) fn own() -> Self {
        Self { pid: std::process::id() }
    }

    pub(crate) fn usage(&self) -> io::Result<Usage> {
        Ok(Usage { cpu_s: self.cpu_s()?, rss_bytes: self.rss_bytes()? })
    }

    fn read(&self, file: &str) -> io::Result<String> {
        let path = format!("/proc/{}/{file}", self.pid);
        fs::read_to_string(&path).map_err(|error| io::Error::other(format!("{path}: {error}")))
    }

    /// By the scheduler's own count, which is in nanoseconds, where the kernel keeps one: a phase
    /// of a few milliseconds is less than a tick.
    fn cpu_s(&self) -> io::Result<f64> {
        let scheduled_s = self.scheduled_ns().unwrap_or(0) as f64 / 1e9;
        // Threads that have ended are in the ticks only.
        Ok(self.ticked_s()?.max(scheduled_s))
    }

    /// Nanoseconds on a core, of all threads.
    fn scheduled_ns(&self) -> Option<u64> {
        let mut sum = 0;
        for thread in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            let file = thread.ok()?.path().join("schedstat");
            // A thread that has ended meanwhile has nothing to say.
            let Ok(text) = fs::read_to_string(file) else { continue };
            sum += text.split_whitespace().next()?.parse::<u64>().ok()?;
        }
        (sum > 0).then_some(sum)
    }

    fn ticked_s(&self) -> io::Result<f64> {
        let stat = self.read("stat")?;
        // Behind the name in brackets: user and system time are the 12th and 13th, in ticks.
        let rest = stat.rsplit(')').next().unwrap_or("");
        let ticks = |at: usize| rest.split_whitespace().nth(at)?.parse::<f64>().ok();
        match (ticks(11), ticks(12)) {
            (Some(user), Some(system)) => Ok((user + system) / TICKS_PER_SECOND),
            _ => Err(io::Error::other(format!("/proc/{}/stat says {stat:?}", self.pid))),
        }
    }

    fn rss_bytes(&self) -> io::Result<u64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.unwrap_or(0) << 10)
    }
}
