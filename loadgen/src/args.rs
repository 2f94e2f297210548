//! The command line: what is wanted, and why it cannot be had.

use std::ffi::OsString;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use dunlin_packets::Version;
use lexopt::prelude::{Long, Short, Value, ValueExt};

use crate::client::Login;
use crate::figures::{sensible, set};
use crate::scenario::{CATALOGUE, Scenario, find};
use crate::stream::Tls;
use crate::swarm::Target;

pub(crate) const HELP: &str = "\
Puts load on an MQTT broker and says what it did with it.

  dunlin-bench run SCENARIO… [options]     runs scenarios one after the other
  dunlin-bench list                        the scenarios and their figures
  dunlin-bench report FILE.json… -o FILE.html
                                           an HTML page of earlier runs
  dunlin-bench table FILE.json…            brokers side by side, medians over the files
  dunlin-bench --version
  dunlin-bench against-send [--subscribers N] [--burst B] [--qos 0|1] [--rounds R] [--seconds S]
                                           CPU of a delivery by target/release/dunlin, against a
                                           process that does nothing but send(); with --silent to
                                           connections on which the receiver has never spoken
Where to:
  -h, --host HOST          broker's address [127.0.0.1]
  -p, --port PORT          [1883; 8883 with TLS]
  -V, --mqtt VERSION       3.1.1 or 5 [3.1.1]
      --tls-ca FILE        TLS, trusting the certificates in FILE
      --tls-insecure       TLS, trusting anybody
  -u, --user NAME          user name, and -P, --password TEXT
      --pid PID            the broker's process: its CPU and memory are measured
      --data-dir DIR       the broker's directory: what is on disk is measured
      --broker NAME        what to call it in reports
Figures of a scenario, each only where it has a meaning (see list):
      --publishers N       --subscribers N       --connections N
      --rate R             messages or connections per second; 0 is as fast as it goes
      --payload BYTES      16 or more
      --qos 0|1|2          --seconds S           --messages N
      --window N           messages of one publisher under way to its slowest subscriber;
                           unacknowledged ones where the subscribers are away
      --seconds-max S      no scenario that goes by time measures for longer (warm-up not counted)
      --connections-max N  no scenario has more: larger ones are scaled down, and say so
Results:
      --json FILE          as JSON
      --html FILE          as a page with plots
      --strict             a scenario fails if anything was lost, came twice or out of order
  -q, --quiet              no live line
Ends with 0 if every scenario came to its end, 1 if one failed, 2 if it was asked for what there is
not. The first signal ends the scenario, which tidies up; results so far are kept.
";

/// What `run` is to do.
#[derive(Debug)]
pub(crate) struct RunArgs {
    pub(crate) target: Target,
    pub(crate) host: String,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) pid: Option<u32>,
    pub(crate) data_dir: Option<PathBuf>,
    pub(crate) broker: String,
    pub(crate) seconds_max: f64,
    pub(crate) connections_max: usize,
    pub(crate) json: Option<String>,
    pub(crate) html: Option<String>,
    pub(crate) strict: bool,
    pub(crate) quiet: bool,
    /// The user says how many connections there are to be.
    pub(crate) is_sized: bool,
}

/// What `against-send` is to do.
#[derive(Clone, Debug)]
pub(crate) struct AgainstSendArgs {
    pub(crate) subscribers: usize,
    pub(crate) burst: usize,
    pub(crate) qos: u8,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// The receivers of the bare sender say nothing before it sends.
    pub(crate) silent: bool,
}

/// Everything that can be asked for.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    Version,
    List,
    Run(Box<RunArgs>),
    Report {
        files: Vec<String>,
        output: String,
    },
    Table(Vec<String>),
    AgainstSend(AgainstSendArgs),
    /// What `against-send` starts beside itself.
    BareSender(AgainstSendArgs),
}

/// Why a command line was refused.
pub(crate) type Refusal = String;

/// Options of the `run` command as they are read.
#[derive(Debug, Default)]
struct Draft {
    names: Vec<String>,
    host: Option<String>,
    port: Option<u16>,
    version: Option<String>,
    tls_ca: Option<String>,
    tls_insecure: bool,
    login: Login,
    pid: Option<u32>,
    data_dir: Option<PathBuf>,
    broker: Option<String>,
    figures: Vec<(&'static str, f64)>,
    seconds_max: Option<f64>,
    connections_max: Option<usize>,
    json: Option<String>,
    html: Option<String>,
    strict: bool,
    quiet: bool,
}

const FIGURES: &[&str] = &[
    "publishers",
    "subscribers",
    "connections",
    "rate",
    "payload",
    "qos",
    "seconds",
    "messages",
    "window",
];

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, Refusal> {
    let mut parser = lexopt::Parser::from_args(args);
    let first = parser.next().map_err(|error| error.to_string())?;
    let command = match first {
        None | Some(Long("help")) => return Ok(Command::Help),
        Some(Long("version")) => return Ok(Command::Version),
        Some(Value(value)) => value.string().map_err(|error| error.to_string())?,
        Some(other) => return Err(other.unexpected().to_string()),
    };
    match command.as_str() {
        "help" | "version" | "list" => {
            if let Some(more) = parser.next().map_err(|error| error.to_string())? {
                return Err(more.unexpected().to_string());
            }
            Ok(match command.as_str() {
                "help" => Command::Help,
                "version" => Command::Version,
                _ => Command::List,
            })
        }
        "run" => run(parser),
        "report" | "table" => files(&command, parser),
        "against-send" => against_send(parser).map(Command::AgainstSend),
        "bare-sender" => against_send(parser).map(Command::BareSender),
        other => Err(format!("there is no command {other:?}; dunlin-bench --help names them")),
    }
}

fn run(mut parser: lexopt::Parser) -> Result<Command, Refusal> {
    let mut draft = Draft::default();
    read(&mut parser, &mut draft).map_err(|error| error.to_string())?;
    Ok(Command::Run(Box::new(draft.check()?)))
}

fn read(parser: &mut lexopt::Parser, draft: &mut Draft) -> Result<(), lexopt::Error> {
    while let Some(arg) = parser.next()? {
        match arg {
            Value(name) => draft.names.push(name.string()?),
            Short('h') | Long("host") => draft.host = Some(parser.value()?.string()?),
            Short('p') | Long("port") => draft.port = Some(parser.value()?.parse()?),
            Short('V') | Long("mqtt") => draft.version = Some(parser.value()?.string()?),
            Long("tls-ca") => draft.tls_ca = Some(parser.value()?.string()?),
            Long("tls-insecure") => draft.tls_insecure = true,
            Short('u') | Long("user") => draft.login.user_name = Some(parser.value()?.string()?),
            Short('P') | Long("password") => {
                draft.login.password = Some(parser.value()?.string()?);
            }
            Long("pid") => draft.pid = Some(parser.value()?.parse()?),
            Long("data-dir") => draft.data_dir = Some(parser.value()?.into()),
            Long("broker") => draft.broker = Some(parser.value()?.string()?),
            Long("seconds-max") => draft.seconds_max = Some(parser.value()?.parse()?),
            Long("connections-max") => draft.connections_max = Some(parser.value()?.parse()?),
            Long("json") => draft.json = Some(parser.value()?.string()?),
            Long("html") => draft.html = Some(parser.value()?.string()?),
            Long("strict") => draft.strict = true,
            Short('q') | Long("quiet") => draft.quiet = true,
            Long(name) => {
                let Some(figure) = FIGURES.iter().find(|figure| **figure == name) else {
                    return Err(Long(name).unexpected());
                };
                draft.figures.push((figure, parser.value()?.parse()?));
            }
            other @ Short(_) => return Err(other.unexpected()),
        }
    }
    Ok(())
}

impl Draft {
    fn check(self) -> Result<RunArgs, Refusal> {
        if self.names.is_empty() {
            return Err("run what? dunlin-bench list names the scenarios, `all` is all".into());
        }
        let mut scenarios = Vec::new();
        for name in &self.names {
            if name == "all" {
                scenarios.extend_from_slice(CATALOGUE);
                continue;
            }
            let found = find(name).ok_or_else(|| {
                format!("there is no scenario {name:?}; dunlin-bench list names them")
            })?;
            scenarios.push(found);
        }
        for scenario in &mut scenarios {
            for &(figure, value) in &self.figures {
                set(scenario, figure, value)?;
            }
            sensible(scenario)?;
        }
        let seconds_max = self.seconds_max.unwrap_or(f64::INFINITY);
        if seconds_max.is_nan() || seconds_max <= 0.0 {
            return Err("--seconds-max has to be more than 0".into());
        }
        if let Some(dir) = self.data_dir.as_deref().filter(|dir| !dir.is_dir()) {
            return Err(format!("--data-dir {}: there is no such directory", dir.display()));
        }
        if self.port == Some(0) {
            return Err("--port is between 1 and 65,535".into());
        }
        let counts = ["publishers", "subscribers", "connections"];
        let is_sized = self.figures.iter().any(|(figure, _)| counts.contains(figure));
        let with_tls = self.tls_insecure || self.tls_ca.is_some();
        let host = self.host.unwrap_or_else(|| "127.0.0.1".into());
        let port = self.port.unwrap_or(if with_tls { 8883 } else { 1883 });
        let tls = match with_tls {
            true => {
                Some(Tls::new(self.tls_ca.as_deref(), &host).map_err(|error| error.to_string())?)
            }
            false => None,
        };
        let version = match self.version.as_deref() {
            None | Some("3.1.1" | "4") => Version::V4,
            Some("5" | "5.0") => Version::V5,
            Some(other) => return Err(format!("--mqtt {other}: only 3.1.1 and 5 are spoken")),
        };
        let target = Target { address: resolve(&host, port)?, version, tls, login: self.login };
        Ok(RunArgs {
            target,
            host,
            scenarios,
            pid: self.pid,
            data_dir: self.data_dir,
            broker: self.broker.unwrap_or_else(|| "broker".into()),
            seconds_max,
            connections_max: self.connections_max.unwrap_or(usize::MAX),
            json: self.json,
            html: self.html,
            strict: self.strict,
            quiet: self.quiet,
            is_sized,
        })
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Refusal> {
    let mut addresses =
        (host, port).to_socket_addrs().map_err(|error| format!("{host} is no address: {error}"))?;
    addresses.next().ok_or_else(|| format!("{host} has no address"))
}

fn files(command: &str, mut parser: lexopt::Parser) -> Result<Command, Refusal> {
    let (mut files, mut output) = (Vec::new(), None);
    while let Some(arg) = parser.next().map_err(|error| error.to_string())? {
        let text = |value: OsString| value.string().map_err(|error| error.to_string());
        match arg {
            Value(file) => files.push(text(file)?),
            Short('o') | Long("output") if command == "report" => {
                output = Some(text(parser.value().map_err(|error| error.to_string())?)?);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    if files.is_empty() {
        return Err(format!("{command} needs the JSON files of runs"));
    }
    if command == "table" {
        return Ok(Command::Table(files));
    }
    let output = output.ok_or("report needs -o FILE.html")?;
    Ok(Command::Report { files, output })
}

fn against_send(mut parser: lexopt::Parser) -> Result<AgainstSendArgs, Refusal> {
    let mut args = AgainstSendArgs {
        subscribers: 1000,
        burst: 1,
        qos: 0,
        rounds: 3,
        seconds: 3.0,
        silent: false,
    };
    let mut read = || -> Result<(), lexopt::Error> {
        while let Some(arg) = parser.next()? {
            match arg {
                Long("subscribers") => args.subscribers = parser.value()?.parse()?,
                Long("burst") => args.burst = parser.value()?.parse()?,
                Long("qos") => args.qos = parser.value()?.parse()?,
                Long("rounds") => args.rounds = parser.value()?.parse()?,
                Long("seconds") => args.seconds = parser.value()?.parse()?,
                Long("silent") => args.silent = true,
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    };
    read().map_err(|error| error.to_string())?;
    if args.subscribers == 0 || args.burst == 0 || args.rounds == 0 {
        return Err("against-send: every figure has to be more than 0".into());
    }
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err("against-send: --seconds is more than 0, and an hour at most".into());
    }
    if args.qos > 1 {
        return Err("against-send: QoS is 0 or 1".into());
    }
    // More than a socket's buffers hold, and both would wait for us instead of working.
    if args.burst > 512 {
        return Err("against-send: --burst is 512 at most".into());
    }
    Ok(args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &str) -> String {
        parse(line.split_whitespace().map(OsString::from)).expect_err("refused")
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_reason() {
        for (line, reason) in [
            ("run", "run what?"),
            ("run nothing", "no scenario"),
            ("run churn --qos 1", "churn has no --qos"),
            ("run flood-pairs --qos 3", "QoS is 0, 1 or 2"),
            ("run flood-pairs --payload 8", "16 bytes"),
            ("run flood-pairs --publishers 5", "as many of both"),
            ("run flood-pairs --window 70000", "--window"),
            ("run flood-pairs --seconds 0", "--seconds"),
            ("run flood-pairs --publishers 1.5", "whole numbers"),
            ("run durable-steady --rate 0", "--rate"),
            ("run durable-steady --publishers 5", "as many of both"),
            ("run fan-in --mqtt 3", "only 3.1.1 and 5"),
            ("run fan-in --rate nan", "out of range"),
            ("run fan-in --port 0", "--port"),
            ("run fan-in --data-dir /nowhere", "no such directory"),
            ("run fan-in --publishers 5000 --subscribers 5000", "lower --window"),
            ("against-send --burst 0", "more than 0"),
            ("against-send --seconds nan", "--seconds"),
            ("against-send --seconds inf", "--seconds"),
            ("list extra", "unexpected"),
            ("against-send --qos 2", "0 or 1"),
            ("report x.json", "-o FILE.html"),
            ("dance", "no command"),
        ] {
            let text = refusal(line);
            assert!(text.contains(reason), "{line}: {text}");
        }
    }

    #[test]
    fn it_aims_at_loopback_unless_told_otherwise() {
        let command = parse(["run", "fan-in"].map(OsString::from)).expect("accepted");
        let Command::Run(args) = command else { panic!("{command:?}") };
        assert_eq!(args.target.address.to_string(), "127.0.0.1:1883");
    }
}
