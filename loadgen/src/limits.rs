//! What the machine allows: open files and ports.

use std::fs;

use rustix::process::{Resource, getrlimit, setrlimit};

/// Files that are open beside the connections.
const OTHER_FILES: usize = 64;

/// Connections this process may have: its limit of open files, raised as far as that goes, and the
/// ports there are for connections from so many own addresses to one.
pub(crate) fn connections_max(addresses: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum {
        limit.current = limit.maximum;
        // Without it, the lower limit is the one that counts.
        let _ = setrlimit(Resource::Nofile, limit);
    }
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    files.saturating_sub(OTHER_FILES).min(ports() * addresses)
}

fn ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut ends = range.split_whitespace().filter_map(|end| end.parse::<usize>().ok());
    match (ends.next(), ends.next()) {
        (Some(first), Some(last)) if last >= first => last - first + 1,
        _ => 28_000,
    }
}
