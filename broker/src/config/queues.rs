//! Queues in the configuration: `partitions=16 mode=stream capture=m/#`.

use dunlin_packets::is_valid_filter;

use crate::queues::address::{QueueName, is_queue_topic};
use crate::queues::settings::{QueueConfig, QueueSettings};
use crate::queues::terms::parse_duration;
use crate::worker::Level;

use super::field::{Field, Raw, integer};

/// Queues that are declared, each as it was written: name, then what is not as by default. The
/// default may come later, from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declarations(Vec<String>);

/// Where a value goes, and what it is written in.
enum Place<'a> {
    Plain(&'a mut dyn Field),
    Bytes(&'a mut u64),
    Millis(&'a mut u64),
    ShortMillis(&'a mut u32),
    Seconds(&'a mut u32),
}

/// What can be said of a queue, beside `capture`, in the order it is written.
const KEYS: [&str; 19] = [
    "partitions",
    "mode",
    "lease",
    "attempts",
    "backoff",
    "backoff_max",
    "member_timeout",
    "serial",
    "compact",
    "messages",
    "bytes",
    "age",
    "full",
    "level",
    "capture_ack",
    "prefetch",
    "groups",
    "group_idle",
    "delayed",
];

fn place<'a>(config: &'a mut QueueConfig, key: &str) -> Option<Place<'a>> {
    let core = &mut config.core;
    Some(match key {
        "partitions" => Place::Plain(&mut core.partitions),
        "mode" => Place::Plain(&mut core.mode),
        "lease" => Place::ShortMillis(&mut core.lease_ms),
        "attempts" => Place::Plain(&mut core.attempts_max),
        "backoff" => Place::ShortMillis(&mut core.backoff_base_ms),
        "backoff_max" => Place::ShortMillis(&mut core.backoff_max_ms),
        "member_timeout" => Place::ShortMillis(&mut core.member_timeout_ms),
        "serial" => Place::Plain(&mut core.is_serial),
        "compact" => Place::Plain(&mut core.is_compacted),
        "messages" => Place::Plain(&mut core.retention.messages_max),
        "bytes" => Place::Bytes(&mut core.retention.bytes_max),
        "age" => Place::Millis(&mut core.retention.age_ms_max),
        "full" => Place::Plain(&mut core.retention.policy),
        "level" => Place::Plain(&mut config.level),
        "capture_ack" => Place::Plain(&mut config.is_capture_acknowledged),
        "prefetch" => Place::Plain(&mut config.prefetch),
        "groups" => Place::Plain(&mut core.limits.groups_max),
        "group_idle" => Place::Seconds(&mut config.group_idle_s),
        "delayed" => Place::Plain(&mut core.limits.delayed_max),
        _ => return None,
    })
}

impl Place<'_> {
    fn set(self, text: &str) -> Result<(), String> {
        let too_long = |_| format!("\"{text}\" is too long");
        match self {
            Self::Plain(field) => field.set(&Raw::from_text(text))?,
            Self::Bytes(bytes) => {
                let number = integer(&Raw::from_text(text))?;
                *bytes = u64::try_from(number).map_err(|_| format!("{number} is below 0"))?;
            }
            Self::Millis(millis) => *millis = duration(text)?,
            Self::ShortMillis(millis) => {
                *millis = u32::try_from(duration(text)?).map_err(too_long)?;
            }
            // Less than a second must not become 0, which is never.
            Self::Seconds(seconds) => {
                *seconds = u32::try_from(duration(text)?.div_ceil(1000)).map_err(too_long)?;
            }
        }
        Ok(())
    }

    fn render(self) -> String {
        match self {
            Self::Plain(field) => field.render().trim_matches('"').to_owned(),
            Self::Bytes(bytes) => {
                in_units(*bytes, &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)], "")
            }
            Self::Millis(millis) => in_time(*millis),
            Self::ShortMillis(millis) => in_time(u64::from(*millis)),
            Self::Seconds(seconds) => in_time(u64::from(*seconds) * 1000),
        }
    }
}

/// Milliseconds. A number without a unit could be meant as anything.
fn duration(text: &str) -> Result<u64, String> {
    let has_unit = text == "0" || !text.ends_with(|last: char| last.is_ascii_digit());
    let millis = parse_duration(text).filter(|_| has_unit);
    millis.ok_or_else(|| format!("\"{text}\" is not a time such as 500ms, 30s, 5m, 2h, 7d or 0"))
}

fn in_time(millis: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    in_units(millis, &units, if millis == 0 { "" } else { "ms" })
}

/// In the largest unit that it is a multiple of.
fn in_units(number: u64, units: &[(&str, u64)], smallest: &str) -> String {
    let unit = units.iter().find(|(_, size)| number != 0 && number.is_multiple_of(*size));
    let (unit, size) = unit.copied().unwrap_or((smallest, 1));
    format!("{}{unit}", number / size)
}

/// Reads what is said of a queue over what holds otherwise. Whether it makes sense in all is
/// another question, [`QueueConfig::check`].
fn parse<'a>(
    words: impl Iterator<Item = &'a str>,
    base: &QueueConfig,
) -> Result<QueueConfig, String> {
    let mut config = base.clone();
    let mut seen = Vec::new();
    for word in words {
        let (key, value) =
            word.split_once('=').ok_or_else(|| format!("\"{word}\" is not key=value"))?;
        if key == "capture" {
            config.capture.push(capture(value)?);
            continue;
        }
        let Some(place) = place(&mut config, key) else {
            return Err(format!("\"{key}\" is none of {} and capture", KEYS.join(", ")));
        };
        if seen.contains(&key) {
            return Err(format!("{key} stands there twice"));
        }
        place.set(value).map_err(|problem| format!("{key}: {problem}"))?;
        seen.push(key);
    }
    Ok(config)
}

fn capture(filter: &str) -> Result<String, String> {
    if !is_valid_filter(filter) {
        return Err(format!("capture: \"{filter}\" is not a topic filter"));
    }
    if is_queue_topic(filter.as_bytes()) || filter.starts_with("$share/") {
        return Err(format!("capture: \"{filter}\" is not of ordinary topics"));
    }
    Ok(filter.to_owned())
}

/// Without a level of its own nothing is written.
impl Field for Option<Level> {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        self.insert(Level::default()).set(value)
    }

    fn render(&self) -> String {
        self.map_or_else(String::new, |level| level.render())
    }
}

/// The default for all queues.
impl Field for QueueConfig {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let Raw::Text(text) = value else {
            return Err("it has to be a text such as \"partitions=8 lease=30s\"".into());
        };
        let config = parse(text.split_whitespace(), &Self::default())?;
        if !config.capture.is_empty() {
            return Err("capture is for queues that are declared".into());
        }
        config.check()?;
        *self = config;
        Ok(())
    }

    fn render(&self) -> String {
        let mut copy = self.clone();
        let mut words = Vec::new();
        for key in KEYS {
            let value = place(&mut copy, key).map(Place::render).unwrap_or_default();
            if !value.is_empty() {
                words.push(format!("{key}={value}"));
            }
        }
        words.extend(self.capture.iter().map(|filter| format!("capture={filter}")));
        format!("{:?}", words.join(" "))
    }
}

impl Field for Declarations {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let wrong = || "it has to be a list of texts such as \"orders partitions=16\"".to_owned();
        let texts: Vec<String> = match value {
            Raw::List(list) => list
                .iter()
                .map(|item| match item {
                    Raw::Text(text) => Ok(text.clone()),
                    _ => Err(wrong()),
                })
                .collect::<Result<_, _>>()?,
            // From the environment.
            Raw::Text(text) => text.split(',').map(str::to_owned).collect(),
            Raw::Integer(name) => vec![name.to_string()],
            Raw::Bool(_) => return Err(wrong()),
        };
        let is_blank = |text: &str| text.trim().is_empty();
        let declared = Self(texts.into_iter().filter(|text| !is_blank(text)).collect());
        declared.read(&QueueConfig::default())?;
        *self = declared;
        Ok(())
    }

    fn render(&self) -> String {
        let texts: Vec<_> = self.0.iter().map(|text| format!("{text:?}")).collect();
        format!("[{}]", texts.join(", "))
    }
}

impl Declarations {
    fn read(&self, defaults: &QueueConfig) -> Result<Vec<(String, QueueConfig)>, String> {
        let mut declared: Vec<(String, QueueConfig)> = Vec::new();
        for text in &self.0 {
            let mut words = text.split_whitespace();
            let name = words.next().unwrap_or_default();
            if name.contains('=') {
                return Err(format!("\"{text}\" does not begin with the name of a queue"));
            }
            QueueName::new(name).map_err(|malformed| format!("\"{name}\": {}", malformed.0))?;
            if declared.iter().any(|(other, _)| other == name) {
                return Err(format!("\"{name}\" is declared twice"));
            }
            let config = parse(words, defaults).map_err(|problem| format!("{name}: {problem}"))?;
            declared.push((name.to_owned(), config));
        }
        Ok(declared)
    }

    /// The queues, now that the default is known.
    pub(super) fn resolve(
        &self,
        settings: &QueueSettings,
    ) -> Result<Vec<(String, QueueConfig)>, String> {
        let declared = self.read(&settings.defaults)?;
        for (name, config) in &declared {
            config.check().map_err(|problem| format!("{name}: {problem}"))?;
        }
        if declared.len() > settings.max {
            return Err(format!("{} queues are more than queues.max", declared.len()));
        }
        Ok(declared)
    }
}

#[cfg(test)]
mod tests {
    use dunlin_queue::partitioned::{Config, FullPolicy, Limits, Mode, Retention};

    use super::*;
    use crate::config::Sources;

    const ALL: &str = "partitions=16 mode=stream lease=45s attempts=7 backoff=250ms \
        backoff_max=2m member_timeout=90s serial=false compact=true messages=1000 bytes=3MiB \
        age=36h full=drop-oldest level=interval capture_ack=false prefetch=20 groups=5 \
        group_idle=1h delayed=0";

    fn read(text: &str) -> Result<QueueConfig, String> {
        parse(text.split_whitespace(), &QueueConfig::default())
    }

    fn declared(texts: &[&str]) -> Result<Declarations, String> {
        let texts = texts.iter().map(|text| Raw::Text((*text).into())).collect();
        let mut declarations = Declarations::default();
        declarations.set(&Raw::List(texts)).map(|()| declarations)
    }

    #[test]
    fn everything_can_be_said_of_a_queue() {
        let config = read(&format!("capture=m/# {ALL} capture=+/n")).expect("well formed");
        let retention = Retention {
            messages_max: 1000,
            bytes_max: 3 << 20,
            age_ms_max: 36 * 3600 * 1000,
            policy: FullPolicy::DropOldest,
        };
        let core = Config {
            partitions: 16,
            mode: Mode::Stream,
            lease_ms: 45_000,
            attempts_max: 7,
            backoff_base_ms: 250,
            backoff_max_ms: 120_000,
            member_timeout_ms: 90_000,
            is_serial: false,
            is_compacted: true,
            has_dead_letters: true,
            retention,
            limits: Limits { delayed_max: 0, groups_max: 5, ..Limits::default() },
        };
        let expected = QueueConfig {
            core,
            level: Some(Level::Interval),
            capture: vec!["m/#".into(), "+/n".into()],
            is_capture_acknowledged: false,
            prefetch: 20,
            group_idle_s: 3600,
        };
        assert_eq!(config, expected);
        assert_eq!(config.check(), Ok(()));
        assert!(read("serial=true").expect("well formed").core.is_serial);
    }

    #[test]
    fn a_queue_is_read_as_it_is_written() {
        for text in ["", ALL, "bytes=1025 age=1ms group_idle=61s capture=a", "attempts=0 age=0"] {
            let config = read(text).expect("well formed");
            let rendered = config.render();
            assert_eq!(read(rendered.trim_matches('"')), Ok(config), "{rendered}");
        }
        let all = read(ALL).expect("well formed").render();
        assert_eq!(all.trim_matches('"'), ALL.split_whitespace().collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("partitions", "\"partitions\" is not key=value"),
            ("partition=4", "\"partition\" is none of partitions, mode"),
            ("=", "\"\" is none of"),
            ("lease=1s lease=2s", "lease stands there twice"),
            ("partitions=x", "partitions: \"x\" is not a number"),
            ("partitions=-1", "partitions: -1 is not between 0 and 65535"),
            ("partitions=65536", "partitions: 65536 is not between"),
            ("messages=99999999999999999999", "messages: "),
            ("mode=classic", "mode: \"classic\" is not one of work, stream"),
            ("full=drop-newest", "full: \"drop-newest\" is not one of reject, drop-oldest"),
            ("level=disk", "level: \"disk\" is not one of fsync, interval, memory"),
            ("serial=yes", "serial: \"yes\" is not true or false"),
            ("capture_ack=", "capture_ack: \"\" is not true or false"),
            ("bytes=-1", "bytes: -1 is below 0"),
            ("bytes=9223372036854775807KiB", "bytes: "),
            ("lease=30", "lease: \"30\" is not a time"),
            ("lease=50d", "lease: \"50d\" is too long"),
            ("group_idle=99999999999d", "group_idle: \"99999999999d\" is too long"),
            ("age=99999999999999d", "age: \"99999999999999d\" is not a time"),
            ("capture=", "capture: \"\" is not a topic filter"),
            ("capture=a#", "capture: \"a#\" is not a topic filter"),
            ("capture=$queue/a", "capture: \"$queue/a\" is not of ordinary topics"),
            ("capture=$dlq/a/#", "capture: \"$dlq/a/#\" is not of ordinary"),
            ("capture=$share/g/a", "capture: \"$share/g/a\" is not of ordinary"),
        ];
        for (text, problem) in cases {
            let found = read(text).expect_err(text);
            assert!(found.starts_with(problem), "{text}: {found}");
        }
        assert_eq!(read("group_idle=1ms").expect("well formed").group_idle_s, 1);
    }

    #[test]
    fn the_default_makes_sense_and_captures_nothing() {
        let mut config = QueueConfig::default();
        let mut set = |text: &str| {
            let result = config.set(&Raw::Text(text.into()));
            (result, config.core.partitions)
        };
        assert_eq!(set("partitions=4"), (Ok(()), 4));
        assert_eq!(set("compact=true"), (Err("compact is for mode=stream".into()), 4));
        assert_eq!(set("capture=a").1, 4);
        assert_eq!(set(" "), (Ok(()), 8));
        assert!(config.set(&Raw::Integer(8)).is_err());
    }

    #[test]
    fn declared_queues_have_the_default_beside_what_is_said_of_them() {
        let declarations = declared(&["orders partitions=16", " telemetry  lease=1m ", ""]);
        let declarations = declarations.expect("well formed");
        assert_eq!(declarations.render(), "[\"orders partitions=16\", \" telemetry  lease=1m \"]");
        let defaults = read("partitions=4 prefetch=5").expect("well formed");
        let mut settings = QueueSettings { defaults, ..QueueSettings::default() };
        let queues = declarations.resolve(&settings).expect("they make sense");
        let found: Vec<_> = queues
            .iter()
            .map(|(name, config)| (name.as_str(), config.core.partitions, config.prefetch))
            .collect();
        assert_eq!(found, [("orders", 16, 5), ("telemetry", 4, 5)]);
        settings.max = 1;
        let refused = declarations.resolve(&settings).expect_err("too many");
        assert_eq!(refused, "2 queues are more than queues.max");
    }

    #[test]
    fn what_makes_no_sense_with_the_default_is_found_in_the_end() {
        let declarations = declared(&["orders mode=stream"]).expect("well formed");
        let mut settings = QueueSettings::default();
        assert!(declarations.resolve(&settings).is_ok());
        settings.defaults = read("serial=true").expect("well formed");
        let refused = declarations.resolve(&settings).expect_err("serial and stream");
        assert_eq!(refused, "orders: serial is for mode=work");
    }

    #[test]
    fn a_default_from_the_command_line_is_that_of_queues_declared_before() {
        let set = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let sources = Sources {
            environment: vec![set("DUNLIN_QUEUES__DECLARE", "orders lease=1s, meters")],
            flags: vec![set("queues.default", "partitions=3"), set("queues.max", "2")],
            ..Sources::default()
        };
        let queues = crate::config::Config::load(&sources).expect("in order").settings.queues;
        let partitions = queues.declared.iter().map(|(_, config)| config.core.partitions);
        assert_eq!(partitions.collect::<Vec<_>>(), [3, 3]);
        assert_eq!(queues.declared[0].1.core.lease_ms, 1000);
        let flags = vec![set("queues.default", "serial=true")];
        let environment = vec![set("DUNLIN_QUEUES__DECLARE", "orders mode=stream")];
        let sources = Sources { environment, flags, ..Sources::default() };
        let error = crate::config::Config::load(&sources).expect_err("a serial stream");
        assert_eq!(error.to_string(), "queues.declare: orders: serial is for mode=work");
    }

    #[test]
    fn a_queue_is_kept_though_nothing_else_is() {
        let mut config = crate::config::Config::default();
        config.settings.durability.level = Level::Memory;
        assert!(!config.keeps());
        config.settings.queues.defaults.level = Some(Level::Fsync);
        assert!(config.keeps());
        config.data_dir.clear();
        assert!(!config.keeps());
    }

    #[test]
    fn a_declaration_has_a_name_of_its_own() {
        let long = "n".repeat(256);
        for bad in ["partitions=16", "$ack", "$dlq/orders", "a/b", "+", &long, "a partitions"] {
            assert!(declared(&[bad]).is_err(), "{bad}");
        }
        assert_eq!(declared(&["a", "b", "a lease=1s"]), Err("\"a\" is declared twice".into()));
    }

    #[test]
    fn the_environment_separates_declarations_by_commas() {
        let mut declarations = Declarations::default();
        declarations.set(&Raw::from_text("a partitions=2, b")).expect("well formed");
        assert_eq!(declarations.0, ["a partitions=2", " b"]);
        declarations.set(&Raw::from_text("7")).expect("well formed");
        assert_eq!(declarations.0, ["7"]);
        declarations.set(&Raw::from_text("")).expect("well formed");
        assert_eq!(declarations, Declarations::default());
        assert!(declarations.set(&Raw::from_text("true")).is_err());
        assert!(declarations.set(&Raw::List(vec![Raw::Integer(7)])).is_err());
    }
}
