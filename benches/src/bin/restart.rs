//! `dunlin-restart`: how long a broker is away when it is started on what another has left behind.
//!
//! Writes a log with sessions, retained messages and messages that wait, record by record as a
//! broker would; starts `dunlin` on it; and measures from there to the first CONNACK. Then asks some
//! sessions for their messages and subscriptions, so that what was quick is also right.

#![allow(clippy::disallowed_methods)] // it measures times

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use dunlin::serve::LOG_DIRECTORY;
use dunlin::store::record::{MessageRecord, Record, Refs, SessionRecord, put_ref};
use dunlin_benches::{Delivery, WireClient};
use dunlin_packets::{QoS, SubscriptionOptions};
use dunlin_queue::Time;
use dunlin_storage::{
    Damage, DiskBackend, FRAME_HEADER_BYTES, Log, LogOptions, address_of, set_address,
};

const HELP: &str = "\
usage: dunlin-restart [--sessions N] [--retained N] [--queued N] [--payload BYTES] [--online]
                      [--rounds N] [--checks N] [--dir DIR] [--dunlin PROGRAM] [-- OPTION…]

Each a million unless said otherwise, with payloads of 100 bytes. --online: the sessions had
connections when the broker died. What stands behind -- goes to dunlin.
";

/// Records in a frame: about what a busy worker writes in a turn.
const RECORDS_PER_FRAME: usize = 64;
/// Frames handed to the log at a time.
const FRAMES_PER_APPEND: usize = 256;
/// Longest wait for a broker.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Debug)]
struct Args {
    sessions: u64,
    retained: u64,
    queued: u64,
    payload: usize,
    is_online: bool,
    rounds: u32,
    checks: u64,
    directory: PathBuf,
    dunlin: PathBuf,
    options: Vec<OsString>,
}

fn parse() -> Result<Args, String> {
    let beside = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut args = Args {
        sessions: 1_000_000,
        retained: 1_000_000,
        queued: 1_000_000,
        payload: 100,
        is_online: false,
        rounds: 1,
        checks: 20,
        directory: beside.with_file_name(format!("restart-{}", std::process::id())),
        dunlin: beside.with_file_name("dunlin"),
        options: Vec::new(),
    };
    let mut given = std::env::args_os().skip(1);
    while let Some(name) = given.next() {
        let name = name.to_string_lossy().into_owned();
        match name.as_str() {
            "--" => {
                args.options.extend(given);
                break;
            }
            "--online" => {
                args.is_online = true;
                continue;
            }
            "--help" => return Err(HELP.into()),
            _ => {}
        }
        let value = given.next().ok_or_else(|| format!("{name} of what?\n{HELP}"))?;
        let text = value.to_string_lossy();
        let count = || text.parse::<u64>().map_err(|_| format!("{name} {text} is no number"));
        match name.as_str() {
            "--sessions" => args.sessions = count()?,
            "--retained" => args.retained = count()?,
            "--queued" => args.queued = count()?,
            "--payload" => args.payload = count()? as usize,
            "--rounds" => args.rounds = count()? as u32,
            "--checks" => args.checks = count()?,
            "--dir" => args.directory = value.into(),
            "--dunlin" => args.dunlin = value.into(),
            _ => return Err(format!("there is no {name}\n{HELP}")),
        }
    }
    if args.queued > 0 && args.sessions == 0 || args.payload < 8 {
        return Err("messages need sessions to wait for, and 8 bytes for their number".into());
    }
    Ok(args)
}

/// Writes the log.
struct Author {
    log: Log<DiskBackend>,
    frame: Vec<u8>,
    records: usize,
    batch: Vec<Vec<u8>>,
    next: u64,
}

impl Author {
    fn new(directory: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        let backend = DiskBackend::open(directory)?;
        let opened = Log::open(backend, LogOptions::default(), Damage::Refuse);
        let (log, opened) = opened.map_err(io::Error::other)?;
        if opened.frames > 0 {
            return Err(io::Error::other(format!("{} has a log already", directory.display())));
        }
        let next = log.end();
        let frame = vec![0; FRAME_HEADER_BYTES];
        Ok(Self { log, frame, records: 0, batch: Vec::new(), next })
    }

    fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        record.encode(&mut self.frame);
        self.records += 1;
        if self.records == RECORDS_PER_FRAME { self.close_frame() } else { Ok(()) }
    }

    fn close_frame(&mut self) -> io::Result<()> {
        let mut frame = std::mem::replace(&mut self.frame, vec![0; FRAME_HEADER_BYTES]);
        set_address(&mut frame, self.next);
        self.next = address_of(&frame) + frame.len() as u64;
        self.batch.push(frame);
        self.records = 0;
        if self.batch.len() == FRAMES_PER_APPEND { self.append() } else { Ok(()) }
    }

    fn append(&mut self) -> io::Result<()> {
        self.log.append(&mut self.batch).map_err(io::Error::other)?;
        self.batch.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<u64> {
        self.close_frame()?;
        self.append()?;
        self.log.sync().map_err(io::Error::other)?;
        Ok(self.log.bytes())
    }
}

/// Names are not in the order in which they came.
fn name(number: u64) -> u64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn client_id(session: u64) -> String {
    format!("{:016x}", name(session))
}

fn filter(session: u64, which: char) -> String {
    format!("restart/{:016x}/{which}", name(session))
}

fn retained_topic(number: u64) -> String {
    format!("retained/{:016x}", name(number))
}

/// Begins with its number.
fn payload(number: u64, bytes: usize) -> Vec<u8> {
    let mut payload = vec![b'x'; bytes];
    payload[..8].copy_from_slice(&number.to_le_bytes());
    payload
}

fn write_log(args: &Args, directory: &Path) -> io::Result<u64> {
    let mut author = Author::new(directory)?;
    author.write(&Record::Keys([1, 2, 3, 4]))?;
    let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..SubscriptionOptions::default() };
    for session in 0..args.sessions {
        let sid = session + 1;
        author.write(&Record::Session(SessionRecord {
            sid,
            client_id: &client_id(session),
            expiry_s: u32::MAX,
            expires_at: Time::NEVER,
            is_online: args.is_online,
            will_at: Time::NEVER,
            will: None,
        }))?;
        for which in ['a', 'b'] {
            let filter = &filter(session, which);
            author.write(&Record::Subscribed { sid, filter, options, identifier: 0 })?;
        }
    }
    let (mut content, mut refs) = (Vec::new(), Vec::new());
    for number in 0..args.retained + args.queued {
        let is_retained = number < args.retained;
        let waiting = number.saturating_sub(args.retained);
        let session = waiting % args.sessions.max(1);
        let topic = if is_retained { retained_topic(number) } else { filter(session, 'a') };
        content.clear();
        content.extend_from_slice(topic.as_bytes());
        let body = if is_retained { number } else { waiting };
        content.extend_from_slice(&payload(body, args.payload));
        refs.clear();
        if !is_retained {
            put_ref(session + 1, QoS::AtLeastOnce, false, &[], &mut refs);
        }
        author.write(&Record::Message(MessageRecord {
            id: number + 1,
            qos: QoS::AtLeastOnce,
            retain: is_retained,
            is_retained,
            expires_at: Time::NEVER,
            received: 0,
            publisher: 0,
            topic_len: topic.len() as u32,
            properties_len: 0,
            content: &content,
            refs: Refs::new(&refs),
            position: 0,
        }))?;
    }
    author.finish()
}

/// A broker; killed when it is dropped.
struct Broker {
    child: Child,
    address: SocketAddr,
    /// When it had read the log, with the seconds of CPU until then.
    has_read: Receiver<(Instant, f64)>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has used.
struct Usage {
    user_s: f64,
    system_s: f64,
    rss_mib: f64,
    rss_max_mib: f64,
    /// CPU of the first thread, which reads the log, and of the worker that used most, which comes
    /// behind it.
    chain_s: f64,
}

/// Seconds on a core of a process's threads, which nobody shortens who takes the core away: the
/// first, and the most that a worker has used.
fn chain_s(pid: u32) -> io::Result<f64> {
    let (mut first, mut worker) = (0.0, 0.0_f64);
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        let Ok(times) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
        let name = std::fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
        let on_core = times.split_whitespace().next().and_then(|time| time.parse::<f64>().ok());
        let seconds = on_core.unwrap_or(0.0) / 1e9;
        if thread.file_name() == *pid.to_string() {
            first = seconds;
        } else if name.starts_with("worker") {
            worker = worker.max(seconds);
        }
    }
    Ok(first + worker)
}

impl Broker {
    fn start(args: &Args) -> io::Result<Self> {
        // Free a moment ago.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let mut child = Command::new(&args.dunlin)
            .args(["--listen", &address.to_string(), "--data-dir"])
            .arg(&args.directory)
            .args(["--set", &format!("retained.max_messages={}", args.retained + 1000)])
            .args(["--set", "retained.max_bytes=64GiB"])
            // It says when it has read the log.
            .args(["--set", "log.level=info"])
            .args(&args.options)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let (sender, has_read) = channel();
        let (pid, stderr) = (child.id(), child.stderr.take());
        std::thread::spawn(move || {
            let lines = stderr.map(BufReader::new).into_iter().flat_map(BufRead::lines);
            for line in lines.map_while(Result::ok) {
                if line.contains("recovered") {
                    let cpu_s = usage_of(pid).map_or(0.0, |usage| usage.user_s + usage.system_s);
                    let _ = sender.send((Instant::now(), cpu_s));
                } else if !line.contains(" INFO ") {
                    eprintln!("{line}");
                }
            }
        });
        Ok(Self { child, address, has_read })
    }

    /// Connects as soon as there is somebody who answers.
    fn first_client(&mut self) -> io::Result<WireClient> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("dunlin has ended: {status}")));
            }
            match WireClient::connect(self.address, "restart-first", true) {
                // Not there yet; or not any more, which the next look at it tells.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::ConnectionRefused
                            | ErrorKind::ConnectionReset
                            | ErrorKind::UnexpectedEof
                    ) => {}
                result => return result,
            }
            if started.elapsed() > PATIENCE {
                return Err(io::Error::other("dunlin does not listen"));
            }
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }
}

fn usage_of(pid: u32) -> io::Result<Usage> {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    let (stat, status) = (read("stat")?, read("status")?);
    // Behind the name in brackets, in ticks of 10 ms.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|ticks| ticks.parse::<f64>().ok());
    let mebibytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kib.unwrap_or(0.0) / 1024.0
    };
    Ok(Usage {
        user_s: ticks(11).unwrap_or(0.0) / 100.0,
        system_s: ticks(12).unwrap_or(0.0) / 100.0,
        rss_mib: mebibytes("VmRSS:"),
        rss_max_mib: mebibytes("VmHWM:"),
        chain_s: chain_s(pid)?,
    })
}

/// A session has its messages, in order, and its subscriptions.
fn check_session(args: &Args, address: SocketAddr, session: u64) -> io::Result<()> {
    let expect = |what: &str, found: &dyn std::fmt::Debug, is_right: bool| {
        if is_right {
            return Ok(());
        }
        Err(io::Error::other(format!("session {session}: {what}: {found:?}")))
    };
    let mut client = WireClient::connect(address, &client_id(session), false)?;
    expect("session present", &client.session_present, client.session_present)?;
    let mut waiting = session;
    while waiting < args.queued {
        let found = client.delivery()?;
        let wanted = Delivery { topic: filter(session, 'a'), number: waiting, retain: false };
        expect("its message", &found, found == wanted)?;
        waiting += args.sessions;
    }
    for which in ['a', 'b'] {
        client.publish(&filter(session, which), &payload(session, 8), None)?;
        let found = client.delivery()?;
        let wanted = Delivery { topic: filter(session, which), number: session, retain: false };
        expect("its subscription", &found, found == wanted)?;
    }
    if args.retained > 0 {
        let number = session % args.retained;
        client.subscribe(&retained_topic(number), QoS::AtMostOnce)?;
        let found = client.delivery()?;
        let wanted = Delivery { topic: retained_topic(number), number, retain: true };
        expect("a retained message", &found, found == wanted)?;
    }
    Ok(())
}

fn run(args: &Args) -> io::Result<()> {
    println!(
        "{} sessions with 2 subscriptions each{}, {} retained messages, {} that wait, of {} bytes",
        args.sessions,
        if args.is_online { ", online" } else { "" },
        args.retained,
        args.queued,
        args.payload
    );
    let log = args.directory.join(LOG_DIRECTORY);
    let started = Instant::now();
    let bytes = write_log(args, &log)?;
    let written_s = started.elapsed().as_secs_f64();
    println!("the log has {:.1} MiB, written in {written_s:.1} s", bytes as f64 / 1048576.0);
    for round in 1..=args.rounds {
        let started = Instant::now();
        let mut broker = Broker::start(args)?;
        let client = broker.first_client()?;
        let seconds = started.elapsed().as_secs_f64();
        let usage = usage_of(broker.child.id())?;
        println!(
            "round {round}: {seconds:.2} s to the first CONNACK; CPU {:.2} s ({:.2} user, {:.2} \
             system), {:.2} s of it one behind the other; RSS {:.0} MiB, at most {:.0} MiB",
            usage.user_s + usage.system_s,
            usage.user_s,
            usage.system_s,
            usage.chain_s,
            usage.rss_mib,
            usage.rss_max_mib
        );
        if let Ok((at, cpu_s)) = broker.has_read.try_recv() {
            let reading_s = at.duration_since(started).as_secs_f64();
            println!("         the log was read after {reading_s:.2} s and {cpu_s:.2} s of CPU");
        }
        drop(client);
        if round == args.rounds && args.sessions > 0 {
            // A sequence that looks random and is the same every time.
            let mut state = 42u64;
            for _ in 0..args.checks {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                check_session(args, broker.address, (state >> 33) % args.sessions)?;
            }
            println!("{} sessions have their messages and subscriptions", args.checks);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let args = match parse() {
        Ok(args) => args,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    let existed = args.directory.exists();
    let result = run(&args);
    if !existed {
        let _ = std::fs::remove_dir_all(&args.directory);
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dunlin-restart: {error}");
            ExitCode::FAILURE
        }
    }
}
