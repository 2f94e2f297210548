//! The arguments of `dunlin torture`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use lexopt::prelude::{Long, ValueExt};

use crate::config::{Config, Sources};

/// How long the torture goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// Until the broker was killed so often.
    Kills(u32),
    /// Until the first kill after so many seconds.
    Seconds(u32),
    /// So many seconds without a kill.
    Calm(u32),
}

/// Arguments of `torture`.
#[derive(Clone, Debug)]
pub struct TortureArgs {
    pub(super) extent: Extent,
    pub(super) publishers: u16,
    pub(super) subscribers: u16,
    pub(super) offline: u16,
    /// Consumers of each group of the queue; without them there is no queue.
    pub(super) queue_consumers: u16,
    /// Publications per second of each publisher.
    pub(super) rate: u32,
    /// Without one, a temporary directory.
    pub(super) directory: Option<PathBuf>,
    /// Without one, a seed from the clock.
    pub(super) seed: Option<u64>,
    pub(super) verbose: bool,
    /// Arguments of the broker.
    pub(super) broker: Vec<String>,
}

const KILLS_MAX: u32 = 100_000;
const SECONDS_MAX: u32 = 7 * 24 * 3600;
/// Each client is a thread.
const CLIENTS_MAX: u16 = 64;
const RATE_MAX: u32 = 100_000;

impl Default for TortureArgs {
    fn default() -> Self {
        Self {
            extent: Extent::Kills(20),
            publishers: 4,
            subscribers: 4,
            offline: 2,
            queue_consumers: 2,
            rate: 2000,
            directory: None,
            seed: None,
            verbose: false,
            broker: Vec::new(),
        }
    }
}

impl TortureArgs {
    /// Reads them; `None` when help is asked for.
    ///
    /// # Errors
    /// What is wrong with them, in words for the user.
    pub(in crate::cli) fn parse(
        parser: &mut lexopt::Parser,
    ) -> Result<Option<Self>, lexopt::Error> {
        let mut args = Self::default();
        let mut flags = Vec::new();
        let (mut kills, mut seconds) = (None, None);
        while let Some(arg) = parser.next()? {
            let Long(name) = arg else { return Err(arg.unexpected()) };
            let name = name.to_owned();
            match name.as_str() {
                "kills" => kills = Some(number(parser, &name, &(0..=KILLS_MAX))?),
                "seconds" => seconds = Some(number(parser, &name, &(1..=SECONDS_MAX))?),
                "publishers" => args.publishers = number(parser, &name, &(1..=CLIENTS_MAX))?,
                "subscribers" => args.subscribers = number(parser, &name, &(0..=CLIENTS_MAX))?,
                "offline" => args.offline = number(parser, &name, &(0..=CLIENTS_MAX))?,
                "queue-consumers" => {
                    args.queue_consumers = number(parser, &name, &(0..=CLIENTS_MAX))?;
                }
                "rate" => args.rate = number(parser, &name, &(1..=RATE_MAX))?,
                "dir" => args.directory = Some(PathBuf::from(parser.value()?)),
                "seed" => args.seed = Some(number(parser, &name, &(0..=u64::MAX))?),
                "help" => return Ok(None),
                "verbose" => args.verbose = true,
                "workers" => flags.push(("workers".to_owned(), parser.value()?.string()?)),
                "set" => {
                    let text = parser.value()?.string()?;
                    let (key, value) = text.split_once('=').ok_or("--set takes NAME=VALUE")?;
                    flags.push((key.to_owned(), value.to_owned()));
                }
                _ => return Err(format!("invalid option '--{name}'").into()),
            }
        }
        args.extent = match (kills, seconds) {
            (Some(0), Some(seconds)) => Extent::Calm(seconds),
            (Some(_), Some(_)) => return Err("give --kills or --seconds, not both".into()),
            (None, Some(seconds)) => Extent::Seconds(seconds),
            (kills, None) => kills.map_or(args.extent, Extent::Kills),
        };
        if args.subscribers + args.offline == 0 {
            return Err("without --subscribers and --offline there is nothing to audit".into());
        }
        check_flags(&flags)?;
        args.broker = flags
            .into_iter()
            .flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")])
            .collect();
        Ok(Some(args))
    }
}

/// What the broker would refuse is refused here, before anything is started.
fn check_flags(flags: &[(String, String)]) -> Result<(), lexopt::Error> {
    for (key, reason) in [
        ("data_dir", "the broker's data directory is that of --dir"),
        ("mqtt.upgrade_outgoing_qos", "the audit goes by the lower of the two QoS"),
    ] {
        if flags.iter().any(|(set, _)| set == key) {
            return Err(format!("--set {key}: {reason}").into());
        }
    }
    let sources = Sources { flags: flags.to_vec(), ..Sources::default() };
    Config::load(&sources).map_err(|error| error.to_string())?;
    Ok(())
}

fn number<T>(
    parser: &mut lexopt::Parser,
    name: &str,
    range: &RangeInclusive<T>,
) -> Result<T, lexopt::Error>
where
    T: std::str::FromStr<Err: Into<Box<dyn std::error::Error + Send + Sync>>>,
    T: PartialOrd + std::fmt::Display,
{
    let number: T = parser.value()?.parse()?;
    if !range.contains(&number) {
        let (min, max) = (range.start(), range.end());
        return Err(format!("--{name}: {number} is not between {min} and {max}").into());
    }
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<TortureArgs, String> {
        let mut parser = lexopt::Parser::from_args(args.iter().copied());
        let args = TortureArgs::parse(&mut parser).map_err(|error| error.to_string())?;
        Ok(args.expect("no help was asked for"))
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused_with_the_reason() {
        for (args, expected) in [
            (&["--kills", "-1"][..], "-1"),
            (&["--kills", "3", "--seconds", "3"], "not both"),
            (&["--publishers", "0"], "--publishers: 0 is not between 1 and 64"),
            (&["--queue-consumers", "65"], "65 is not between 0 and 64"),
            (&["--subscribers", "0", "--offline", "0"], "nothing to audit"),
            (&["--set", "queue.max_mesages=1"], "queue.max_mesages: there is no such option"),
            (&["--set", "data_dir=/tmp"], "that of --dir"),
            (&["--workers", "many"], "workers"),
            (&["--fast"], "--fast"),
            (&["fast"], "fast"),
        ] {
            let error = parse(args).expect_err("it is refused");
            assert!(error.contains(expected), "{args:?}: {error}");
        }
        let args = parse(&["--seconds", "9", "--seed", "5", "--workers", "2"]).expect("it is fine");
        assert_eq!((args.extent, args.seed), (Extent::Seconds(9), Some(5)));
        assert_eq!(args.broker, ["--set", "workers=2"]);
    }
}
