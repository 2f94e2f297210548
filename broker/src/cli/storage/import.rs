//! `dunlin storage import`: makes a log of what `export` wrote, where there is none.
//!
//! The log is written beside its place, line by line, read again, and put there when everything is
//! in order. After an error nothing of it is left.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use dunlin_storage::{DiskBackend, PAYLOAD_BYTES_MAX};

use super::Outcome;
use super::directory::{DataDirectory, counted, read_image};
use super::import_queues::QueuesImport;
use super::line::{FORMAT, Header, Line, VERSION};
use super::staged::Staged;
use super::validate::{self, Checked, CheckedMessage};
use crate::cli::lock::{LOCK_FILE, try_lock};
use crate::serve::log_options;
use crate::store::record::{MessageRecord, Refs};
use crate::store::{Deliveries, NewLog, Snapshot, StoredQueue, StoredSession};

/// Bytes of a line. The largest message takes 358 million in base64.
const LINE_BYTES_MAX: u64 = 384 << 20;

pub(super) fn run(directory: &DataDirectory<'_>, file: &Path) -> Outcome<()> {
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(file).map_err(|error| format!("{}: {error}", file.display()))?)
    };
    let is_new = !directory.path.exists();
    std::fs::create_dir_all(&directory.path)
        .map_err(|error| format!("cannot make {}: {error}", directory.shown()))?;
    let imported = import_locked(directory, BufReader::new(input), file);
    if is_new && imported.is_err() {
        let _ = std::fs::remove_file(directory.path.join(LOCK_FILE));
        let _ = std::fs::remove_dir(&directory.path);
    }
    let header = imported?;
    println!(
        "imported {}, {}, {}, {}, {}",
        counted(header.sessions, "session"),
        counted(header.messages, "message"),
        counted(header.retained, "retained message"),
        counted(header.queues, "queue"),
        counted(header.queue_messages, "queue message")
    );
    Ok(())
}

fn import_locked(
    directory: &DataDirectory<'_>,
    input: impl BufRead,
    file: &Path,
) -> Outcome<Header> {
    directory.check_owner()?;
    let Some(_lock) = try_lock(&directory.path)? else {
        return Err(format!("a broker uses the data directory {}", directory.shown()).into());
    };
    refuse_what_is_kept(directory)?;
    let staged = Staged::begin(directory)?;
    let done = fill(directory, &staged, input, file).and_then(|header| {
        staged.put_in_place()?;
        Ok(header)
    });
    if done.is_err() {
        staged.remove()?;
    }
    done
}

/// What is kept there is not to be lost.
fn refuse_what_is_kept(directory: &DataDirectory<'_>) -> Outcome<()> {
    if !directory.log().exists() {
        return Ok(());
    }
    let (snapshot, report) = directory.look()?;
    let image = read_image(&directory.log(), &snapshot, &report)?;
    let is_empty = report.missing.is_empty()
        && image.sessions.is_empty()
        && image.messages.is_empty()
        && image.retained.is_empty()
        && image.queues.is_empty();
    if !is_empty {
        let shown = directory.shown();
        return Err(
            format!("the data directory {shown} has data; import needs an empty one").into()
        );
    }
    Ok(())
}

/// Writes the log and reads it again.
fn fill(
    directory: &DataDirectory<'_>,
    staged: &Staged,
    input: impl BufRead,
    file: &Path,
) -> Outcome<Header> {
    let log = NewLog::begin(staged.backend()?, log_options(directory.config))?;
    let header = Import::new(log).read(input, file)?;
    let (snapshot, report) = Snapshot::take(&staged.path)?;
    let image = read_image(&staged.path, &snapshot, &report)?;
    let lens = [image.sessions.len(), image.messages.len(), image.retained.len()];
    let [sessions, messages, retained] = lens.map(|len| len as u64);
    let queue_messages = image.queues.iter().map(StoredQueue::messages_left).sum();
    let counts = [sessions, messages, retained, image.queues.len() as u64, queue_messages];
    if !report.missing.is_empty() || counts != header.counts() {
        return Err("what was written cannot be read again; the disk may be at fault".into());
    }
    Ok(header)
}

/// A file that is being read.
struct Import {
    log: NewLog<DiskBackend>,
    header: Option<Header>,
    clients: BTreeSet<Box<str>>,
    numbers: BTreeSet<u64>,
    topics: BTreeSet<Box<str>>,
    deliveries: Deliveries,
    /// Messages that sessions wait for, and the first line that says so, until they come.
    wanted: HashMap<u64, u64>,
    messages: BTreeSet<u64>,
    queues: QueuesImport,
}

impl Import {
    fn new(log: NewLog<DiskBackend>) -> Self {
        Self {
            log,
            header: None,
            clients: BTreeSet::new(),
            numbers: BTreeSet::new(),
            topics: BTreeSet::new(),
            deliveries: Deliveries::default(),
            wanted: HashMap::new(),
            messages: BTreeSet::new(),
            queues: QueuesImport::default(),
        }
    }

    /// Writes all lines, or says in which one the mistake is.
    fn read(mut self, mut input: impl BufRead, file: &Path) -> Outcome<Header> {
        let (mut line, mut number) = (Vec::new(), 0);
        let at = |number: u64, problem: &str| format!("{}:{number}: {problem}", file.display());
        loop {
            number += 1;
            line.clear();
            (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
            if line.is_empty() {
                break;
            }
            if line.last() != Some(&b'\n') && line.len() as u64 == LINE_BYTES_MAX {
                return Err(at(number, "the line is too long").into());
            }
            let taken = parse(&line, number).and_then(|line| self.take(&line, number));
            taken.map_err(|problem| at(number, &problem))?;
        }
        self.queues.end(&mut self.log)?;
        let Some(header) = self.header else { return Err(at(1, "the file is empty").into()) };
        // The lowest message, so that the same file has the same error.
        if let Some(id) = self.deliveries.left() {
            let line = self.wanted.get(&id).copied().unwrap_or(number);
            return Err(at(line, &format!("message {id} is in no line")).into());
        }
        let lens = [self.clients.len(), self.messages.len(), self.topics.len()];
        let [sessions, messages, retained] = lens.map(|len| len as u64);
        let found = [sessions, messages, retained, self.queues.queues(), self.queues.messages];
        let names = ["session", "message", "retained message", "queue", "queue message"];
        for ((expected, found), name) in header.counts().into_iter().zip(found).zip(names) {
            if expected != found {
                let expected = counted(expected, name);
                let problem = format!("the header says {expected}, and there are {found}");
                return Err(at(number, &problem).into());
            }
        }
        self.log.finish()?;
        Ok(header)
    }

    fn take(&mut self, line: &Line, number: u64) -> Checked<()> {
        if self.header.is_some() == matches!(line, Line::Header(_)) {
            return Err("the header is the first line, and only that".into());
        }
        match line {
            Line::Header(header) => self.header(header),
            Line::Session(line) => self.session(&validate::session(line)?, number),
            Line::Message(line) => self.message(&validate::message(line)?),
            Line::Retained(line) => {
                let retained = validate::retained(line)?;
                if !self.topics.insert(retained.topic().into()) {
                    return Err("the topic has had its retained message".into());
                }
                self.log.retained(&retained).map_err(|error| error.to_string())
            }
            Line::Queue(line) => {
                if !self.numbers.insert(line.number) {
                    let number = line.number;
                    return Err(format!("there is a session or a queue with the number {number}"));
                }
                self.queues.queue(line, &mut self.log)
            }
            Line::QueueMessage(line) => self.queues.message(line, &mut self.log),
        }
    }

    fn header(&mut self, header: &Header) -> Checked<()> {
        if let Some(keys) = &header.hash_keys {
            let keys = validate::hash_keys(keys)?;
            self.log.keys(keys).map_err(|error| error.to_string())?;
        }
        self.header = Some(header.clone());
        Ok(())
    }

    fn session(&mut self, session: &StoredSession, number: u64) -> Checked<()> {
        if !self.messages.is_empty() {
            return Err("sessions come before messages".into());
        }
        if !self.numbers.insert(session.sid) {
            let number = session.sid;
            return Err(format!("there is a session or a queue with the number {number}"));
        }
        if !self.clients.insert(session.client_id.clone()) {
            return Err("there is another session of this client".into());
        }
        let in_flight = session.in_flight.iter().filter_map(|(_, delivery)| delivery.as_ref());
        for delivery in in_flight.chain(&session.queue) {
            self.wanted.entry(delivery.id).or_insert(number);
        }
        self.deliveries.add(session);
        self.log.session(session).map_err(|error| error.to_string())
    }

    fn message(&mut self, message: &CheckedMessage) -> Checked<()> {
        let CheckedMessage { id, qos, retain, expires_at, received, ref content } = *message;
        if !self.messages.insert(id) {
            return Err(format!("there is another message with the number {id}"));
        }
        let refs = self.deliveries.take(id);
        let refs = refs.ok_or_else(|| format!("no session waits for message {id}"))?;
        self.wanted.remove(&id);
        // A frame has a header and a few numbers beside.
        if content.bytes.len() + refs.len() + (1 << 10) > PAYLOAD_BYTES_MAX {
            return Err(format!("too many sessions wait for message {id}"));
        }
        let record = MessageRecord {
            id,
            qos,
            retain,
            is_retained: false,
            expires_at,
            received,
            publisher: 0,
            topic_len: content.topic_len,
            properties_len: content.properties_len,
            content: &content.bytes,
            refs: Refs::new(&refs),
            position: 0,
        };
        self.log.message(&record).map_err(|error| error.to_string())
    }
}

/// The first line is looked at before it is understood: it may be another version's.
fn parse(line: &[u8], number: u64) -> Checked<Line> {
    if number == 1 {
        let value: serde_json::Value = serde_json::from_slice(line).map_err(json_error)?;
        if value["type"] != "header" || value["format"] != FORMAT {
            return Err("this is not what dunlin storage export writes".into());
        }
        let version = &value["version"];
        if !(1..=VERSION).any(|known| *version == known) {
            return Err(format!("the export has version {version}, supported is {VERSION}"));
        }
    }
    serde_json::from_slice(line).map_err(json_error)
}

/// Without the line, which is 1 in each of them.
#[expect(clippy::needless_pass_by_value, reason = "it is an argument of map_err")]
fn json_error(error: serde_json::Error) -> String {
    let text = error.to_string();
    let problem = text.rsplit_once(" at line ").map_or(text.as_str(), |(problem, _)| problem);
    match error.column() {
        0 => problem.to_owned(),
        column => format!("{problem}, at column {column}"),
    }
}
