//! The configuration file: TOML, with the line of everything that is wrong in it.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use toml_edit::{Document, Item, TableLike, Value};

use super::field::{Field, Raw};
use super::{Config, ConfigError, ListenerConfig, parse_address, table};

/// Reads the file into `config`.
pub(super) fn apply(config: &mut Config, path: &Path) -> Result<(), ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| ConfigError {
        origin: name.clone(),
        key: String::new(),
        problem: format!("cannot be read: {error}"),
    })?;
    File { name: &name, text: &text }.apply(config)
}

struct File<'a> {
    name: &'a str,
    text: &'a str,
}

impl File<'_> {
    fn apply(&self, config: &mut Config) -> Result<(), ConfigError> {
        let document = Document::parse(self.text)
            .map_err(|error| self.error(error.span(), "", error.message().trim().to_owned()))?;
        for (key, item) in document.iter() {
            match item {
                Item::ArrayOfTables(tables) if key == "listener" => {
                    config.listeners.clear();
                    for table in tables {
                        config.listeners.push(self.listener(table, table.span())?);
                    }
                }
                Item::Table(section) => {
                    for (name, item) in section {
                        self.set(config, &format!("{key}.{name}"), item)?;
                    }
                }
                _ => self.set(config, key, item)?,
            }
        }
        Ok(())
    }

    fn set(&self, config: &mut Config, key: &str, item: &Item) -> Result<(), ConfigError> {
        let error = |problem| self.error(item.span(), key, problem);
        let raw = item.as_value().and_then(to_raw).ok_or_else(|| {
            error("there is no such option, or not with a value of this kind".to_owned())
        })?;
        table::set(config, key, &raw).map_err(error)
    }

    fn listener(
        &self,
        table: &dyn TableLike,
        span: Option<Range<usize>>,
    ) -> Result<ListenerConfig, ConfigError> {
        let mut address = None;
        let mut connections_max = usize::MAX;
        for (name, item) in table.iter() {
            let key = format!("listener.{name}");
            let error = |problem| self.error(item.span(), &key, problem);
            let raw = item.as_value().and_then(to_raw);
            match (name, raw) {
                ("address", Some(Raw::Text(text))) => {
                    address = Some(parse_address(&text).map_err(error)?);
                }
                ("max_connections", Some(raw)) => connections_max.set(&raw).map_err(error)?,
                _ => return Err(error("there is no such option, or not of this kind".to_owned())),
            }
        }
        let address =
            address.ok_or_else(|| self.error(span, "listener.address", "is missing".to_owned()))?;
        Ok(ListenerConfig { connections_max, ..ListenerConfig::new(address) })
    }

    fn error(&self, span: Option<Range<usize>>, key: &str, problem: String) -> ConfigError {
        let origin = match span {
            Some(span) => {
                let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
                let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
                format!("{}:{line}", self.name)
            }
            None => self.name.to_owned(),
        };
        ConfigError { origin, key: key.to_owned(), problem }
    }
}

fn to_raw(value: &Value) -> Option<Raw> {
    match value {
        Value::Boolean(value) => Some(Raw::Bool(*value.value())),
        Value::Integer(value) => Some(Raw::Integer(*value.value())),
        Value::String(value) => Some(Raw::Text(value.value().clone())),
        Value::Array(values) => values.iter().map(to_raw).collect::<Option<_>>().map(Raw::List),
        _ => None,
    }
}

/// The default configuration as a file, each option with its documentation.
#[must_use]
pub fn default_file() -> String {
    let mut config = Config::default();
    let mut text = String::from(
        "# Dunlin's configuration. Every option stands here with its default value.\n\
         # Over this file goes the environment (DUNLIN_LIMITS__MAX_PACKET_SIZE=...), over\n\
         # that the command line (--set limits.max_packet_size=...). Sizes may have a unit:\n\
         # \"16MiB\".\n",
    );
    let mut section = "";
    for spec in table::TABLE {
        let (in_section, name) = spec.key.split_once('.').unwrap_or(("", spec.key));
        if in_section != section {
            section = in_section;
            let _ = write!(text, "\n[{section}]\n");
        }
        text.push('\n');
        for line in spec.doc.lines() {
            let _ = writeln!(text, "# {}", line.trim());
        }
        let value = (spec.field)(&mut config).render();
        // Written out it would say that public listeners are meant to be open.
        let comment = if spec.key == "allow_anonymous" { "# " } else { "" };
        let _ = writeln!(text, "{comment}{name} = {value}");
    }
    text.push_str("\n# Where to listen; without any, on 127.0.0.1:1883 and [::1]:1883.\n");
    for listener in &config.listeners {
        let _ = write!(
            text,
            "\n[[listener]]\naddress = \"{}\"\n# max_connections = 100000\n",
            listener.address
        );
    }
    text
}
