//! A server inside the wall: it only ever answers.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread;

use crate::act::READY;

/// Answers until the standard input ends.
///
/// # Errors
/// The kernel's.
pub fn serve(at: SocketAddr, tcp: bool) -> io::Result<()> {
    if tcp {
        let listener = TcpListener::bind(at)?;
        thread::spawn(move || listener.incoming().flatten().for_each(|mut stream| drop(echo(&mut stream))));
    } else {
        let socket = UdpSocket::bind(at)?;
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                // A refused answer is seen by the one who waits for it.
                let _ = socket.send_to(&buffer[..length], from);
            }
        });
    }
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).map(drop)
}

fn echo(stream: &mut (impl Read + Write)) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..length])?;
    }
}
