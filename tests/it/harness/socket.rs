//! The kinds of connection that chatd listens for, as one blocking socket with two handles.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::PATIENCE;

/// A connection over TCP, TLS or a Unix socket. A clone is another handle on the same connection.
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Tls),
}

/// TLS over TCP. The session is locked only while bytes go through it, never while one end waits for the other.
pub struct Tls {
    tcp: TcpStream,
    session: Arc<Mutex<ClientConnection>>,
}

impl Socket {
    /// Connects to `127.0.0.1:PORT` or `unix:PATH`.
    pub fn connect(address: &str) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix("unix:") {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            return Ok(Self::Unix(stream));
        }
        patient(TcpStream::connect(address)?).map(Self::Tcp)
    }

    /// Connects to `127.0.0.1:PORT` from another address of this machine, such as `127.0.3.1`.
    pub fn connect_from(source: IpAddr, address: &str) -> io::Result<Self> {
        use socket2::{Domain, Protocol, Socket, Type};
        let address: SocketAddr = address.parse().map_err(io::Error::other)?;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        // Sources differ, so the system need not find a port that is free for all of them.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
        socket.connect(&address.into())?;
        patient(socket.into()).map(Self::Tcp)
    }

    /// Speaks TLS from here on: does the handshake, and fails as it fails.
    pub fn tls(self, config: &Arc<ClientConfig>) -> io::Result<Self> {
        let Self::Tcp(mut tcp) = self else {
            return Err(io::Error::other("TLS goes over TCP"));
        };
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut tcp)?;
        }
        let session = Arc::new(Mutex::new(session));
        Ok(Self::Tls(Tls { tcp, session }))
    }

    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tls(Tls { tcp, session }) => Ok(Self::Tls(Tls {
                tcp: tcp.try_clone()?,
                session: Arc::clone(session),
            })),
        }
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(how),
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tls(tls) => {
                if how != Shutdown::Read {
                    let mut session = tls.session();
                    session.send_close_notify();
                    tls.send(&mut session)?;
                }
                tls.tcp.shutdown(how)
            }
        }
    }

    /// Has the last handle to go reset the connection, as a crash or a firewall does, instead of ending it.
    pub fn reset_when_dropped(&self) -> io::Result<()> {
        let stream = match self {
            Self::Tcp(tcp) | Self::Tls(Tls { tcp, .. }) => tcp,
            Self::Unix(_) => return Err(io::Error::other("a Unix socket has no reset")),
        };
        socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO))
    }

    /// Has the system take little for a client that does not read.
    pub fn take_little(&self) -> io::Result<()> {
        const BYTES: usize = 4096;
        match self {
            Self::Tcp(tcp) | Self::Tls(Tls { tcp, .. }) => {
                socket2::SockRef::from(tcp).set_recv_buffer_size(BYTES)
            }
            Self::Unix(unix) => socket2::SockRef::from(unix).set_recv_buffer_size(BYTES),
        }
    }

    /// The certificate that the other side presented, if this is TLS.
    pub fn peer_certificate(&self) -> Option<Vec<u8>> {
        let Self::Tls(tls) = self else { return None };
        let session = tls.session();
        let certificate = session.peer_certificates()?.first()?;
        Some(certificate.to_vec())
    }
}

fn patient(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Tls {
    fn session(&self) -> MutexGuard<'_, ClientConnection> {
        self.session.lock().expect("no thread panicked inside TLS")
    }

    fn send(&self, session: &mut ClientConnection) -> io::Result<()> {
        while session.wants_write() {
            session.write_tls(&mut &self.tcp)?;
        }
        Ok(())
    }

    fn receive(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut session = self.session();
        while !bytes.is_empty() {
            session.read_tls(&mut bytes)?;
            let processed = session.process_new_packets();
            self.send(&mut session)?;
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        }
        Ok(())
    }
}

impl Read for Tls {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut arrived = [0; 4096];
        loop {
            match self.session().reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            match self.tcp.read(&mut arrived)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.receive(&arrived[..count])?,
            }
        }
    }
}

impl Write for Tls {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut session = self.session();
        let written = session.writer().write(bytes)?;
        self.send(&mut session)?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send(&mut self.session())
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.flush(),
            Self::Unix(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
