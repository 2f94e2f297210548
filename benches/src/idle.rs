//! What a connection costs that does nothing.

use std::io;

use dunlin_packets::QoS;

use crate::Args;
use crate::broker::Process;
use crate::fan_out::{connect, subscribe};
use crate::receivers::Receivers;

/// Opens connections with one subscription each and prints the memory the broker took for them.
pub(crate) fn run(args: &Args) -> io::Result<()> {
    let broker = Process::broker()?;
    // The first connection pays for what all share.
    let _first = Receivers::connect(broker.port, 1, |_, stream| connect("first", stream))?;
    let before = broker.resident_bytes()?;
    let _idle = Receivers::connect(broker.port, args.connections, |number, stream| {
        connect(&format!("device-{number}"), stream)?;
        subscribe(&format!("device/{number}/command"), QoS::AtLeastOnce, stream)
    })?;
    let after = broker.resident_bytes()?;
    let each = (after - before) / args.connections as u64;
    println!(
        "{} idle connections with one subscription each: {} -> {} KiB, {each} bytes each",
        args.connections,
        before >> 10,
        after >> 10,
    );
    Ok(())
}
