//! Values of options: from text or TOML into the field, and back.

use dunlin_packets::QoS;
use dunlin_queue::OverflowPolicy;
use dunlin_queue::partitioned::{FullPolicy, Mode};
use dunlin_router::Strategy;

use dunlin_packets::is_valid_filter;

use crate::worker::{Level, OverlapPolicy};

/// A value as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    Bool(bool),
    Integer(i64),
    Text(String),
    List(Vec<Self>),
}

impl Raw {
    /// From the environment or the command line: what looks like a number is one.
    pub(super) fn from_text(text: &str) -> Self {
        if let Ok(value) = text.parse() {
            return Self::Bool(value);
        }
        text.parse().map_or_else(|_| Self::Text(text.into()), Self::Integer)
    }

    fn describe(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(value) => value.to_string(),
            Self::Text(text) => format!("\"{text}\""),
            Self::List(_) => "a list".into(),
        }
    }
}

/// A place in the configuration that an option fills.
pub(super) trait Field {
    /// Takes a value of the right type.
    fn set(&mut self, value: &Raw) -> Result<(), String>;
    /// The value as it is written in TOML.
    fn render(&self) -> String;
}

fn wrong(value: &Raw, wanted: &str) -> String {
    format!("{} is not {wanted}", value.describe())
}

/// An integer, or a text with a unit: 64 KiB, 16MiB, 2 GiB.
pub(super) fn integer(value: &Raw) -> Result<i64, String> {
    let text = match value {
        Raw::Integer(number) => return Ok(*number),
        Raw::Text(text) => text.trim(),
        _ => return Err(wrong(value, "a number")),
    };
    let (digits, shift) = [("KiB", 10), ("MiB", 20), ("GiB", 30)]
        .iter()
        .find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)))
        .ok_or_else(|| wrong(value, "a number"))?;
    let number: i64 = digits.trim().parse().map_err(|_| wrong(value, "a number"))?;
    number.checked_mul(1 << shift).ok_or_else(|| wrong(value, "a number that fits"))
}

macro_rules! integer_fields {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn set(&mut self, value: &Raw) -> Result<(), String> {
                let number = integer(value)?;
                *self = Self::try_from(number)
                    .map_err(|_| format!("{number} is not between 0 and {}", Self::MAX))?;
                Ok(())
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

integer_fields!(u16, u32, u64, usize);

impl Field for bool {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let Raw::Bool(value) = value else { return Err(wrong(value, "true or false")) };
        *self = *value;
        Ok(())
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Field for Option<bool> {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        self.insert(false).set(value)
    }

    fn render(&self) -> String {
        self.unwrap_or(true).to_string()
    }
}

impl Field for String {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        *self = match value {
            Raw::Text(text) => text.clone(),
            // From the environment, where a name that looks like a number is one.
            Raw::Integer(number) => number.to_string(),
            _ => return Err(wrong(value, "a text")),
        };
        Ok(())
    }

    fn render(&self) -> String {
        format!("{self:?}")
    }
}

impl Field for QoS {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let bits = u8::try_from(integer(value)?).ok();
        *self = bits.and_then(Self::from_bits).ok_or_else(|| wrong(value, "0, 1 or 2"))?;
        Ok(())
    }

    fn render(&self) -> String {
        (*self as u8).to_string()
    }
}

/// A value with a few names.
trait Named: Sized + Copy + PartialEq + 'static {
    const NAMES: &'static [(&'static str, Self)];
}

impl Named for OverflowPolicy {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("drop-newest", Self::DropNewest),
        ("drop-oldest", Self::DropOldest),
        ("disconnect", Self::Disconnect),
    ];
}

impl Named for OverlapPolicy {
    const NAMES: &'static [(&'static str, Self)] =
        &[("merge", Self::Merge), ("separate", Self::Separate)];
}

impl Named for Mode {
    const NAMES: &'static [(&'static str, Self)] =
        &[("work", Self::Work), ("stream", Self::Stream)];
}

impl Named for FullPolicy {
    const NAMES: &'static [(&'static str, Self)] =
        &[("reject", Self::Reject), ("drop-oldest", Self::DropOldest)];
}

impl Named for Level {
    const NAMES: &'static [(&'static str, Self)] =
        &[("fsync", Self::Fsync), ("interval", Self::Interval), ("memory", Self::Memory)];
}

/// Levels by filter: `filter=level`.
impl Field for Vec<(String, Level)> {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let texts: Vec<&str> = match value {
            Raw::List(list) => list
                .iter()
                .map(|item| match item {
                    Raw::Text(text) => Ok(text.as_str()),
                    _ => Err(wrong(item, "a text")),
                })
                .collect::<Result<_, _>>()?,
            Raw::Text(text) => text.split(',').map(str::trim).collect(),
            _ => return Err(wrong(value, "a list of texts such as \"telemetry/#=memory\"")),
        };
        self.clear();
        for text in texts.into_iter().filter(|text| !text.is_empty()) {
            let (filter, name) =
                text.rsplit_once('=').ok_or_else(|| format!("\"{text}\" is not filter=level"))?;
            if !is_valid_filter(filter) {
                return Err(format!("\"{filter}\" is not a topic filter"));
            }
            let mut level = Level::default();
            level.set(&Raw::Text(name.into()))?;
            self.push((filter.into(), level));
        }
        Ok(())
    }

    fn render(&self) -> String {
        let texts = self.iter().map(|(filter, level)| {
            let level = level.render();
            format!("\"{filter}={}\"", level.trim_matches('"'))
        });
        format!("[{}]", texts.collect::<Vec<_>>().join(", "))
    }
}

impl Named for Strategy {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("round-robin", Self::RoundRobin),
        ("random", Self::Random),
        ("sticky", Self::Sticky),
        ("hash-client", Self::HashClient),
        ("hash-topic", Self::HashTopic),
    ];
}

impl<N: Named> Field for N {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let named = match value {
            Raw::Text(text) => Self::NAMES.iter().find(|(name, _)| name == text),
            _ => None,
        };
        let names = || Self::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        *self = named.ok_or_else(|| wrong(value, &format!("one of {}", names())))?.1;
        Ok(())
    }

    fn render(&self) -> String {
        let named = Self::NAMES.iter().find(|(_, value)| value == self);
        format!("\"{}\"", named.map_or("", |(name, _)| name))
    }
}

/// The accepted protocol versions.
const VERSION_NAMES: [&str; 3] = ["3.1", "3.1.1", "5.0"];

impl Field for [bool; 3] {
    fn set(&mut self, value: &Raw) -> Result<(), String> {
        let mut accepted = [false; 3];
        let mut accept = |name: &str| {
            let at = VERSION_NAMES.iter().position(|known| *known == name);
            accepted[at.ok_or_else(|| format!("\"{name}\" is not one of 3.1, 3.1.1, 5.0"))?] = true;
            Ok::<(), String>(())
        };
        match value {
            Raw::List(names) => {
                for name in names {
                    let Raw::Text(name) = name else { return Err(wrong(name, "a version")) };
                    accept(name)?;
                }
            }
            Raw::Text(names) => names.split(',').try_for_each(|name| accept(name.trim()))?,
            _ => return Err(wrong(value, "a list of versions")),
        }
        if accepted == [false; 3] {
            return Err("with none of 3.1, 3.1.1, 5.0 nobody can connect".into());
        }
        *self = accepted;
        Ok(())
    }

    fn render(&self) -> String {
        let accepted = VERSION_NAMES.iter().zip(self).filter(|(_, accepted)| **accepted);
        let names: Vec<_> = accepted.map(|(name, _)| format!("\"{name}\"")).collect();
        format!("[{}]", names.join(", "))
    }
}
