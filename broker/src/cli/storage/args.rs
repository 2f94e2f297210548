//! The arguments of `dunlin storage`.

use std::path::PathBuf;

use lexopt::prelude::{Long, Short, Value, ValueExt};

use crate::config::Sources;

/// How long a broker may take to compact, unless the command line says otherwise.
const TIMEOUT_S: u32 = 600;

/// Arguments of `storage`.
#[derive(Clone, Debug)]
pub struct StorageArgs {
    pub(in crate::cli) task: Task,
    /// Where the configuration comes from, and so the data directory.
    pub(in crate::cli) sources: Sources,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Task {
    Check,
    Stats {
        json: bool,
    },
    /// To standard output without a file.
    Export {
        file: Option<PathBuf>,
    },
    Import {
        file: PathBuf,
    },
    Compact {
        timeout_s: u32,
    },
}

impl StorageArgs {
    /// Reads them; `None` when help is asked for.
    ///
    /// # Errors
    /// What is wrong with them, in words for the user.
    pub(in crate::cli) fn parse(
        parser: &mut lexopt::Parser,
    ) -> Result<Option<Self>, lexopt::Error> {
        let command = match parser.next()? {
            Some(Value(command)) => command.string()?,
            Some(Long("help")) => return Ok(None),
            Some(other) => return Err(other.unexpected()),
            None => return Err("storage takes check, stats, export, import or compact".into()),
        };
        let mut sources = Sources::default();
        let (mut json, mut file, mut timeout_s) = (false, None, TIMEOUT_S);
        while let Some(arg) = parser.next()? {
            match (command.as_str(), arg) {
                (_, Long("config")) => sources.file = Some(PathBuf::from(parser.value()?)),
                (_, Long("data-dir")) => {
                    sources.flags.push(("data_dir".into(), parser.value()?.string()?));
                }
                (_, Long("set")) => {
                    let text = parser.value()?.string()?;
                    let (key, value) = text.split_once('=').ok_or("--set takes NAME=VALUE")?;
                    sources.flags.push((key.to_owned(), value.to_owned()));
                }
                (_, Long("help")) => return Ok(None),
                ("stats", Long("json")) => json = true,
                ("export", Short('o') | Long("output")) => {
                    file = Some(PathBuf::from(parser.value()?));
                }
                ("import", Value(path)) if file.is_none() => file = Some(PathBuf::from(path)),
                ("compact", Long("timeout")) => timeout_s = parser.value()?.parse()?,
                (_, other) => return Err(other.unexpected()),
            }
        }
        let task = match command.as_str() {
            "check" => Task::Check,
            "stats" => Task::Stats { json },
            "export" => Task::Export { file },
            "import" => Task::Import { file: file.ok_or("import needs a file, or - for a pipe")? },
            "compact" => Task::Compact { timeout_s },
            other => return Err(format!("there is no command storage {other}").into()),
        };
        Ok(Some(Self { task, sources }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<StorageArgs, String> {
        let mut parser = lexopt::Parser::from_args(args.iter().copied());
        let args = StorageArgs::parse(&mut parser).map_err(|error| error.to_string())?;
        Ok(args.expect("no help was asked for"))
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused_with_the_reason() {
        for (args, expected) in [
            (&[][..], "storage takes check"),
            (&["--json"], "--json"),
            (&["burn"], "no command storage burn"),
            (&["check", "--json"], "--json"),
            (&["check", "file"], "file"),
            (&["import"], "import needs a file"),
            (&["import", "a", "b"], "b"),
            (&["compact", "--timeout", "soon"], "soon"),
            (&["stats", "--set", "data_dir"], "NAME=VALUE"),
        ] {
            let error = parse(args).expect_err("it is refused");
            assert!(error.contains(expected), "{args:?}: {error}");
        }
        let args = parse(&["import", "-", "--data-dir", "here"]).expect("it is fine");
        assert_eq!(args.task, Task::Import { file: "-".into() });
        assert_eq!(args.sources.flags, [("data_dir".to_owned(), "here".to_owned())]);
        let args = parse(&["compact"]).expect("it is fine");
        assert_eq!(args.task, Task::Compact { timeout_s: TIMEOUT_S });
    }
}
