//! Is a connection accepted?

use std::io;
use std::io::ErrorKind;
use std::net::SocketAddr;

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use tokio::net::{TcpSocket, TcpStream};

use super::target::Target;
use super::{TimeLimit, words};

/// A connection that ends with a reset when it is dropped, or why there is none, in words.
pub async fn connect(target: Target, limit: TimeLimit) -> Result<TcpStream, String> {
    let socket = socket(target).map_err(|error| target.unopened(&error))?;
    limit
        .within("connect timed out after", socket.connect(target.address))
        .await?
        .map_err(|error| unconnected(&error))
}

fn socket(target: Target) -> io::Result<TcpSocket> {
    let socket = match target.address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    // Why not an orderly close: at the head of the module above.
    socket.set_zero_linger()?;
    target.mark(&socket)?;
    if target.source.is_some() {
        // The port is chosen when it is known who is asked: otherwise each would be used once among all of them.
        setsockopt(&socket, IpBindAddressNoPort, &true)?;
        socket.bind(target.own_end())?;
    }
    Ok(socket)
}

fn unconnected(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connect refused".to_owned(),
        ErrorKind::ConnectionReset => "connect reset".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        _ => format!("connect failed: {}", words(error)),
    }
}

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    #[test]
    fn every_way_not_to_be_connected_has_its_words() {
        let told = [
            Errno::ECONNREFUSED,
            Errno::ECONNRESET,
            Errno::EHOSTUNREACH,
            Errno::ENETUNREACH,
            Errno::EADDRNOTAVAIL,
            Errno::EPERM,
        ]
        .map(|errno| unconnected(&io::Error::from(errno)));
        assert_eq!(
            told,
            [
                "connect refused",
                "connect reset",
                "host unreachable",
                "network unreachable",
                "connect failed: cannot assign requested address",
                "connect failed: operation not permitted",
            ]
        );
    }
}
