//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;

use dunlin_packets::{QoS, Version};
use lexopt::prelude::{Long, Short, Value, ValueExt};

use super::storage::StorageArgs;
use super::torture::TortureArgs;
use crate::config::Sources;

/// What `--help` prints.
pub(super) const HELP: &str = "\
Dunlin, an MQTT broker.

Usage:
  dunlin [serve] [OPTIONS]             serve
  dunlin check-config [OPTIONS]        check the configuration and exit
  dunlin config --print-default        print a commented configuration file
  dunlin pub -t TOPIC [-m TEXT | -n] [CLIENT OPTIONS]
                                       publish; without -m, each line of standard input
  dunlin sub -t FILTER... [-c COUNT] [-v] [CLIENT OPTIONS]
                                       subscribe and print payloads, -v with topics
  dunlin storage COMMAND [STORAGE OPTIONS]
                                       look at what is kept on disk, save it, tidy it up
  dunlin torture [TORTURE OPTIONS]     kill a broker of its own again and again, and audit that
                                       nothing it acknowledged is lost or doubled
  dunlin --version

Options of serve and check-config, over the environment (DUNLIN_...), over the file:
  --config FILE                        configuration file (TOML)
  --listen ADDR:PORT                   listen there; may be repeated, replaces all listeners
  --workers N                          worker threads; 0 for one per core
  --data-dir DIR                       directory for the broker's files
  --set NAME=VALUE                     any option of the configuration file

Client options:
  -h, --host HOST    [127.0.0.1]       -p, --port PORT       [1883]
  -q, --qos 0|1|2    [0]               -r, --retain          (pub)
  -i, --id ID        [assigned]        -V, --mqtt 3|4|5      [5]
  -u, --user NAME                      -P, --password TEXT
  -k, --keep-alive SECONDS [60]

Storage commands, for the data directory of a broker that runs or does not:
  check                                read everything, and say what is damaged
  stats [--json]                       what is in it, and what it takes
  export [-o FILE]                     all of it, one JSON object a line
  import FILE                          what export wrote, or - for standard input, into a data
                                       directory that has nothing in it; not while a broker runs
  compact [--timeout SECONDS]          give the space back of what is done with; a broker that
                                       runs is asked to, and waited for [600]
Storage options:
  --data-dir DIR, --config FILE, --set NAME=VALUE, as for serve

Torture options:
  --kills N          [20]              --seconds S           instead, or with --kills 0
  --publishers P     [4]               --rate N              [2000] of each per second
  --subscribers S    [4]               --offline O           [2] who come back at the end
  --queue-consumers N                  [2] of each of two groups of a queue; 0 for no queue
  --dir DIR          [temporary]       --seed N              [by the clock]
  --workers N, --set NAME=VALUE        passed to the broker
  --verbose                            its log here, not in DIR.log
";

/// What to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Serve until a signal comes.
    Serve(Sources),
    /// Read the configuration and say what is wrong with it.
    CheckConfig(Sources),
    /// Print the commented default file.
    PrintDefaultConfig,
    /// Publish as a client.
    Publish(PublishArgs),
    /// Subscribe as a client.
    Subscribe(SubscribeArgs),
    /// Look at, save or tidy up what is kept.
    Storage(StorageArgs),
    /// Kill a broker again and again, and audit it.
    Torture(TortureArgs),
    /// Print a text and exit.
    Print(String),
}

/// How `pub` and `sub` connect.
#[derive(Clone, Debug)]
pub(super) struct ClientArgs {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) qos: QoS,
    pub(super) client_id: String,
    pub(super) version: Version,
    pub(super) user_name: Option<String>,
    pub(super) password: Option<String>,
    pub(super) keep_alive_s: u16,
}

/// Arguments of `pub`.
#[derive(Clone, Debug)]
pub struct PublishArgs {
    pub(super) client: ClientArgs,
    pub(super) topic: String,
    /// Without one, lines of standard input.
    pub(super) payload: Option<Vec<u8>>,
    pub(super) retain: bool,
}

/// Arguments of `sub`.
#[derive(Clone, Debug)]
pub struct SubscribeArgs {
    pub(super) client: ClientArgs,
    pub(super) filters: Vec<String>,
    /// Messages to print before leaving; without a count, all.
    pub(super) count: Option<u64>,
    pub(super) with_topics: bool,
}

/// Reads the command line, without the program's name.
///
/// # Errors
/// What is wrong with it, in words for the user.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, lexopt::Error> {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let first = args.first().and_then(|arg| arg.to_str()).unwrap_or("");
    let name = if first.starts_with('-') { String::new() } else { first.to_owned() };
    if !name.is_empty() {
        args.remove(0);
    }
    let mut parser = lexopt::Parser::from_args(args);
    match name.as_str() {
        "" | "serve" => parse_serve(&mut parser, Command::Serve),
        "check-config" => parse_serve(&mut parser, Command::CheckConfig),
        "config" => parse_config(&mut parser),
        "pub" => parse_publish(&mut parser),
        "sub" => parse_subscribe(&mut parser),
        "storage" => parse_storage(&mut parser),
        "torture" => parse_torture(&mut parser),
        "help" => Ok(Command::Print(HELP.into())),
        other => Err(format!("there is no command \"{other}\"; see dunlin --help").into()),
    }
}

fn parse_serve(
    parser: &mut lexopt::Parser,
    command: fn(Sources) -> Command,
) -> Result<Command, lexopt::Error> {
    let mut sources = Sources::default();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("config") => sources.file = Some(PathBuf::from(parser.value()?)),
            Long("listen") => sources.listen.push(parser.value()?.string()?),
            Long("workers") => set(&mut sources, "workers", parser.value()?.string()?),
            Long("data-dir") => set(&mut sources, "data_dir", parser.value()?.string()?),
            Long("set") => {
                let text = parser.value()?.string()?;
                let (key, value) = text.split_once('=').ok_or("--set takes NAME=VALUE")?;
                set(&mut sources, key, value.to_owned());
            }
            Long("version") | Short('V') => {
                return Ok(Command::Print(
                    concat!("dunlin ", env!("CARGO_PKG_VERSION"), "\n").into(),
                ));
            }
            Long("help") => return Ok(Command::Print(HELP.into())),
            other => return Err(other.unexpected()),
        }
    }
    Ok(command(sources))
}

fn parse_storage(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let args = StorageArgs::parse(parser)?;
    Ok(args.map_or_else(|| Command::Print(HELP.into()), Command::Storage))
}

fn parse_torture(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let args = TortureArgs::parse(parser)?;
    Ok(args.map_or_else(|| Command::Print(HELP.into()), Command::Torture))
}

fn set(sources: &mut Sources, key: &str, value: String) {
    sources.flags.push((key.to_owned(), value));
}

fn parse_config(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    match parser.next()? {
        Some(Long("help")) => Ok(Command::Print(HELP.into())),
        Some(Long("print-default")) => Ok(Command::PrintDefaultConfig),
        Some(other) => Err(other.unexpected()),
        None => Err("config takes --print-default".into()),
    }
}

impl ClientArgs {
    fn new() -> Self {
        Self {
            host: "127.0.0.1".into(),
            port: 1883,
            qos: QoS::AtMostOnce,
            client_id: String::new(),
            version: Version::V5,
            user_name: None,
            password: None,
            keep_alive_s: 60,
        }
    }

    /// Takes an option that every client has. `false` if it is none of them.
    fn take(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
        match name {
            "h" | "host" => self.host = parser.value()?.string()?,
            "p" | "port" => self.port = parser.value()?.parse()?,
            "q" | "qos" => {
                let bits = parser.value()?.parse()?;
                self.qos = QoS::from_bits(bits).ok_or("the QoS is 0, 1 or 2")?;
            }
            "i" | "id" => self.client_id = parser.value()?.string()?,
            "u" | "user" => self.user_name = Some(parser.value()?.string()?),
            "P" | "password" => self.password = Some(parser.value()?.string()?),
            "k" | "keep-alive" => self.keep_alive_s = parser.value()?.parse()?,
            "V" | "mqtt" => {
                self.version = match parser.value()?.string()?.as_str() {
                    "3" | "3.1" => Version::V3,
                    "4" | "3.1.1" => Version::V4,
                    "5" | "5.0" => Version::V5,
                    _ => return Err("the version is 3, 4 or 5".into()),
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn name_of(arg: &lexopt::Arg<'_>) -> Result<String, lexopt::Error> {
    match arg {
        Short(letter) => Ok(letter.to_string()),
        Long(name) => Ok((*name).to_owned()),
        Value(value) => Err(format!("unexpected argument {value:?}").into()),
    }
}

fn parse_publish(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut client = ClientArgs::new();
    let (mut topic, mut payload, mut retain) = (None, None, false);
    while let Some(arg) = parser.next()? {
        let name = name_of(&arg)?;
        match name.as_str() {
            "help" => return Ok(Command::Print(HELP.into())),
            "t" | "topic" => topic = Some(parser.value()?.string()?),
            "m" | "message" => payload = Some(parser.value()?.string()?.into_bytes()),
            "n" | "null" => payload = Some(Vec::new()),
            "r" | "retain" => retain = true,
            name if client.take(name, parser)? => {}
            name => return Err(format!("unexpected option {name}").into()),
        }
    }
    let topic = topic.ok_or("pub needs a topic: -t TOPIC")?;
    if !dunlin_packets::is_valid_topic(&topic) {
        return Err(format!("\"{topic}\" is not a topic name").into());
    }
    Ok(Command::Publish(PublishArgs { client, topic, payload, retain }))
}

fn parse_subscribe(parser: &mut lexopt::Parser) -> Result<Command, lexopt::Error> {
    let mut client = ClientArgs::new();
    let (mut filters, mut count, mut with_topics) = (Vec::new(), None, false);
    while let Some(arg) = parser.next()? {
        let name = name_of(&arg)?;
        match name.as_str() {
            "help" => return Ok(Command::Print(HELP.into())),
            "t" | "topic" => filters.push(parser.value()?.string()?),
            "c" | "count" => count = Some(parser.value()?.parse()?),
            "v" | "verbose" => with_topics = true,
            name if client.take(name, parser)? => {}
            name => return Err(format!("unexpected option {name}").into()),
        }
    }
    if filters.is_empty() {
        return Err("sub needs a filter: -t FILTER".into());
    }
    if let Some(bad) = filters.iter().find(|filter| !dunlin_packets::is_valid_filter(filter)) {
        return Err(format!("\"{bad}\" is not a topic filter").into());
    }
    Ok(Command::Subscribe(SubscribeArgs { client, filters, count, with_topics }))
}
