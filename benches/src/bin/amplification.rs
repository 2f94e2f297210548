//! `dunlin-amplification`: how many bytes a broker writes to its log for each byte of payload.
//!
//! A publisher sends batches of messages at QoS 1, each when the one before is acknowledged, to a
//! session that is away, and then to one that is there and acknowledges. What the log has grown by
//! is what was written: nothing is cleaned up meanwhile. `device` is what the kernel says it has
//! handed to the disk for it, which is whole pages, some of them again for every sync.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use dunlin::config::{Config, ListenerConfig};
use dunlin::serve::Broker;
use dunlin_benches::WireClient;
use dunlin_packets::{PacketId, QoS};

const TOPIC: &str = "amplification/topic";
/// Messages of each figure, about.
const MESSAGES: usize = 6400;
/// What a payload's byte may take in batches of [`LIMIT_BATCH`] messages of [`LIMIT_PAYLOAD`] bytes.
const LIMIT: f64 = 1.5;
const LIMIT_BATCH: usize = 64;
const LIMIT_PAYLOAD: usize = 1024;

/// Bytes of the files of the log.
fn log_bytes(directory: &Path) -> io::Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(directory.join(dunlin::serve::LOG_DIRECTORY))? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

/// Bytes that this process, and the broker in it, have had written to the device.
fn device_bytes() -> io::Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("write_bytes:"));
    Ok(line.and_then(|line| line.trim().parse().ok()).unwrap_or(0))
}

/// Bytes for each byte of payload.
struct Figures {
    log: f64,
    device: f64,
}

fn measure(
    address: SocketAddr,
    directory: &Path,
    payload: usize,
    batch: usize,
    is_online: bool,
) -> io::Result<Figures> {
    let mut subscriber = WireClient::connect(address, "subscriber", false)?;
    subscriber.subscribe(TOPIC, QoS::AtLeastOnce)?;
    subscriber.subscribed()?;
    let mut subscriber = is_online.then_some(subscriber);
    let mut publisher = WireClient::connect(address, "publisher", true)?;
    let ids: Vec<_> = (1..=batch as u16).map(PacketId::new).collect();
    let payload = vec![b'x'; payload];
    let mut send = || -> io::Result<()> {
        publisher.publish_all(TOPIC, &payload, &ids)?;
        if let Some(subscriber) = &mut subscriber {
            for _ in 0..batch {
                subscriber.delivery()?;
            }
        }
        publisher.acknowledgements(batch)
    };
    // What comes once is not what is asked for.
    send()?;
    let before = (log_bytes(directory)?, device_bytes()?);
    let rounds = MESSAGES.div_ceil(batch);
    for _ in 0..rounds {
        send()?;
    }
    let after = (log_bytes(directory)?, device_bytes()?);
    // Ends the session, and lets go of its messages.
    WireClient::connect(address, "subscriber", true)?;
    let sent = (rounds * batch * payload.len()) as f64;
    Ok(Figures {
        log: (after.0 - before.0) as f64 / sent,
        device: (after.1 - before.1) as f64 / sent,
    })
}

fn run(directory: &Path) -> io::Result<bool> {
    let mut config = Config::default();
    let loopback = "127.0.0.1:0".parse().map_err(io::Error::other)?;
    config.listeners = vec![ListenerConfig::new(loopback)];
    config.data_dir = directory.display().to_string();
    config.storage.clean_min = u64::MAX;
    let broker = Broker::start(&config)?;
    let address = broker.addresses()[0];
    println!("bytes written for each byte of payload");
    println!("payload  in a batch   stored  of device   delivered too  of device");
    let mut is_within = true;
    for payload in [100, LIMIT_PAYLOAD] {
        for batch in [1, 16, LIMIT_BATCH] {
            let stored = measure(address, directory, payload, batch, false)?;
            let delivered = measure(address, directory, payload, batch, true)?;
            println!(
                "{payload:>7}  {batch:>10}   {:>6.2}  {:>9.2}   {:>13.2}  {:>9.2}",
                stored.log, stored.device, delivered.log, delivered.device
            );
            if (payload, batch) == (LIMIT_PAYLOAD, LIMIT_BATCH) {
                is_within = stored.log <= LIMIT;
            }
        }
    }
    broker.stop()?;
    Ok(is_within)
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let (Some(directory), None) = (args.next(), args.next()) else {
        eprintln!("usage: dunlin-amplification NEW-DIRECTORY");
        return ExitCode::from(2);
    };
    let directory = Path::new(&directory);
    if directory.exists() {
        eprintln!("dunlin-amplification: {} is there already", directory.display());
        return ExitCode::from(2);
    }
    let result = run(directory);
    let _ = std::fs::remove_dir_all(directory);
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("dunlin-amplification: more than {LIMIT} for batches of {LIMIT_BATCH}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("dunlin-amplification: {error}");
            ExitCode::FAILURE
        }
    }
}
