//! The UDP socket, and what the kernel did not grant it.

use crate::QuicError;
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

/// The UDP socket of the door, bound: the port is taken, and nobody is answered yet.
#[derive(Debug)]
pub struct QuicSocket {
    pub(crate) socket: UdpSocket,
    local_address: SocketAddr,
    advice: Vec<String>,
}

impl QuicSocket {
    /// Binds `address` and asks the kernel for two buffers of `buffer_bytes` each, see [`crate::QuicConfig`].
    ///
    /// # Errors
    ///
    /// The address can't be listened on.
    pub fn bind(address: SocketAddr, buffer_bytes: usize) -> Result<QuicSocket, QuicError> {
        let socket = bind_socket(address).map_err(|source| QuicError::Bind { address, source })?;
        ask_for_buffers(&socket, buffer_bytes);
        let socket = UdpSocket::from(socket);
        let local_address = socket.local_addr().map_err(failed("name the address of"))?;
        let granted = read_back(&socket).map_err(failed("inspect"))?;
        tracing::debug!(%local_address, asked_bytes = buffer_bytes, ?granted, "UDP socket");
        Ok(QuicSocket { socket, local_address, advice: advice(buffer_bytes, granted) })
    }

    /// The address that is listened on, with the port that the kernel chose if it was left to choose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// What the kernel did not grant and what to do about it, in sentences for a person. Empty when all is well.
    pub fn advice(&self) -> &[String] {
        &self.advice
    }
}

/// What the kernel granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Granted {
    receive_bytes: usize,
    send_bytes: usize,
    has_segmentation_offload: bool,
}

fn bind_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // `[::]` should reach IPv4 clients too, whatever the machine's default. Where that can't be had, IPv6 alone will do.
        if let Err(error) = socket.set_only_v6(false) {
            tracing::debug!(%error, "the socket serves IPv6 alone");
        }
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Asks past the machine's limit first, which takes the capability `CAP_NET_ADMIN`, then within it. A refusal shows in what is read
/// back.
fn ask_for_buffers(socket: &Socket, buffer_bytes: usize) {
    if sockopt::set_socket_recv_buffer_size_force(socket, buffer_bytes).is_err() {
        let _ = sockopt::set_socket_recv_buffer_size(socket, buffer_bytes);
    }
    if sockopt::set_socket_send_buffer_size_force(socket, buffer_bytes).is_err() {
        let _ = sockopt::set_socket_send_buffer_size(socket, buffer_bytes);
    }
}

fn read_back(socket: &UdpSocket) -> io::Result<Granted> {
    let segments = quinn_udp::UdpSocketState::new(socket.into())?.max_gso_segments();
    Ok(Granted {
        // Linux doubles what it grants, to account for its own bookkeeping (socket(7)).
        receive_bytes: sockopt::socket_recv_buffer_size(socket)? / 2,
        send_bytes: sockopt::socket_send_buffer_size(socket)? / 2,
        has_segmentation_offload: segments > 1,
    })
}

fn advice(asked_bytes: usize, granted: Granted) -> Vec<String> {
    let mut advice = Vec::new();
    let buffers = [("receive", granted.receive_bytes, "rmem_max"), ("send", granted.send_bytes, "wmem_max")];
    for (direction, granted_bytes, setting) in buffers {
        if granted_bytes < asked_bytes {
            advice.push(format!(
                "the kernel granted {} bytes of UDP {direction} buffer where {} were asked for: throughput will suffer from lost \
                 packets; raise the limit with `sysctl -w net.core.{setting}={asked_bytes}` and restart the broker",
                grouped(granted_bytes),
                grouped(asked_bytes),
            ));
        }
    }
    if !granted.has_segmentation_offload {
        advice.push(
            "the kernel offers no UDP segmentation offload (GSO), which takes Linux 4.18 or newer: expect about a quarter of the \
             throughput"
                .to_owned(),
        );
    }
    advice
}

/// `4194304` as `4,194,304`.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn failed(operation: &'static str) -> impl Fn(io::Error) -> QuicError {
    move |source| QuicError::Socket { operation, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_the_numbers_and_the_command() {
        let granted = Granted { receive_bytes: 212_992, send_bytes: 16 << 20, has_segmentation_offload: true };
        let advice = advice(16 << 20, granted);
        assert_eq!(
            advice,
            ["the kernel granted 212,992 bytes of UDP receive buffer where 16,777,216 were asked for: throughput will suffer from \
              lost packets; raise the limit with `sysctl -w net.core.rmem_max=16777216` and restart the broker"]
        );
    }

    #[test]
    fn nothing_is_advised_where_everything_was_granted() {
        let granted = Granted { receive_bytes: 1 << 20, send_bytes: 2 << 20, has_segmentation_offload: true };
        assert_eq!(advice(1 << 20, granted), Vec::<String>::new());
    }

    #[test]
    fn a_missing_offload_is_told() {
        let granted = Granted { receive_bytes: 1, send_bytes: 1, has_segmentation_offload: false };
        assert_eq!(advice(1, granted).len(), 1);
    }

    #[test]
    fn a_taken_port_is_an_error_that_says_so() {
        let first = QuicSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1 << 16).expect("any port");
        let error = QuicSocket::bind(first.local_address, 1 << 16).expect_err("the same port");
        assert!(matches!(error, QuicError::Bind { .. }), "{error:?}");
        assert!(error.hint().is_some_and(|hint| hint.starts_with("the port is taken")), "{error:?}");
    }

    #[test]
    fn an_address_of_another_machine_is_an_error_that_says_so() {
        // 192.0.2.0/24 is for documentation (RFC 5737).
        let error = QuicSocket::bind(SocketAddr::from(([192, 0, 2, 1], 0)), 1 << 16).expect_err("not ours");
        assert!(error.hint().is_some_and(|hint| hint.contains("not an address of this machine")), "{error:?}");
    }

    #[test]
    fn asked_bytes_that_are_in_the_limits_are_granted() {
        let bound = QuicSocket::bind(SocketAddr::from(([127, 0, 0, 1], 0)), 1 << 16).expect("any port");
        assert!(!bound.advice.iter().any(|sentence| sentence.contains("buffer")), "{:?}", bound.advice);
    }
}
