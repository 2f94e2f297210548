//! Where everything is in a data directory.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dunlin_storage::CheckReport;
use rustix::process::geteuid;

use super::Outcome;
use crate::config::Config;
use crate::serve::LOG_DIRECTORY;
use crate::store::{Image, Snapshot};

/// A data directory and how it is configured.
pub(super) struct DataDirectory<'a> {
    pub(super) config: &'a Config,
    pub(super) path: PathBuf,
}

/// A log at one moment, and what is in it.
pub(super) struct Kept {
    pub(super) snapshot: Snapshot,
    pub(super) report: CheckReport,
    pub(super) image: Image,
}

impl<'a> DataDirectory<'a> {
    pub(super) fn new(config: &'a Config) -> Outcome<Self> {
        if config.data_dir.is_empty() {
            return Err("data_dir is empty: such a broker keeps nothing".into());
        }
        Ok(Self { config, path: PathBuf::from(&config.data_dir) })
    }

    /// The log.
    pub(super) fn log(&self) -> PathBuf {
        self.path.join(LOG_DIRECTORY)
    }

    /// The segments at this moment.
    pub(super) fn look(&self) -> Outcome<(Snapshot, CheckReport)> {
        let log = self.log();
        if !log.is_dir() {
            return Err(format!("there is no log in the data directory {}", self.shown()).into());
        }
        Ok(Snapshot::take(&log).map_err(|error| in_log(&log, &error))?)
    }

    /// Everything that is kept. What is damaged is named on standard error; `must_be_whole` makes
    /// that the end, unless the configuration says to go on without it.
    pub(super) fn read(&self, must_be_whole: bool) -> Outcome<Kept> {
        let (snapshot, report) = self.look()?;
        for missing in &report.missing {
            eprintln!("dunlin: {missing}");
        }
        if must_be_whole && !report.missing.is_empty() && !self.config.storage.skip_damage {
            return Err("the log is damaged; --set storage.skip_damage=true does without what is \
                        missing"
                .into());
        }
        let image = read_image(&self.log(), &snapshot, &report)?;
        Ok(Kept { snapshot, report, image })
    }

    /// Refuses to make files that the broker, who runs as another user, could not write to.
    ///
    /// # Errors
    /// When the directory belongs to another user than the one that runs this.
    pub(super) fn check_owner(&self) -> Outcome<()> {
        let owner = std::fs::metadata(&self.path)?.uid();
        if owner != geteuid().as_raw() {
            let shown = self.shown();
            return Err(format!("{shown} belongs to the user {owner}: run this as that one").into());
        }
        Ok(())
    }

    pub(super) fn shown(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// What the segments of a snapshot say.
pub(super) fn read_image(log: &Path, snapshot: &Snapshot, report: &CheckReport) -> Outcome<Image> {
    let segments = report.segments.iter().map(|checked| checked.segment);
    Ok(Image::read_segments(snapshot, segments).map_err(|error| in_log(log, &error))?)
}

fn in_log(log: &Path, problem: &dyn std::fmt::Display) -> String {
    format!("{}: {problem}", log.display())
}

/// `1 segment`, `2 segments`.
pub(super) fn counted(count: u64, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}
