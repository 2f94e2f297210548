//! Listening sockets: one per worker and address, so that the kernel spreads new connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel queues before they are accepted.
const BACKLOG: i32 = 4096;

/// The sockets of one configured listener.
#[derive(Debug)]
pub struct Bound {
    /// The address, with the port the kernel chose if none was given.
    pub address: SocketAddr,
    /// One socket for each worker.
    pub sockets: Vec<TcpListener>,
}

/// Binds `address` once for each worker.
///
/// # Errors
/// Whatever the system says, such as that the port is in use.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Bound> {
    // Without the option to share the port, a port that somebody else has is found taken.
    if address.port() != 0 {
        drop(bind_one(address, false)?);
    }
    let first = bind_one(address, true)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..workers {
        sockets.push(bind_one(address, true)?);
    }
    Ok(Bound { address, sockets })
}

fn bind_one(address: SocketAddr, share_port: bool) -> io::Result<TcpListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if share_port {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}
