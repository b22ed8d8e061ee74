//! The few commands that steer a server, over a RESP2 client of our own.
//!
//! A Redis client crate would tie this package to one of the clients that it helps to test.

use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs as _},
    path::PathBuf,
    time::Duration,
};

#[cfg(unix)]
use std::os::unix::net::UnixStream;

use crate::{Error, Result};

const PATIENCE: Duration = Duration::from_secs(5);

/// Where a server listens for control commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Where a server listens, and who we say we are.
#[derive(Clone)]
pub(crate) struct Control {
    pub(crate) endpoint: Endpoint,
    pub(crate) user: Option<String>,
    pub(crate) password: Option<String>,
}

/// A reply; an error inside an array is kept as text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Nil,
    Text(String),
    Error(String),
    List(Vec<Self>),
}

impl Control {
    pub(crate) fn new(endpoint: Endpoint, password: Option<String>) -> Self {
        Self { endpoint, user: None, password }
    }

    /// Reads `redis://[[user]:password@]host[:port][/db]`.
    pub(crate) fn parse(url: &str) -> Result<Self, String> {
        let Some(rest) = url.strip_prefix("redis://") else {
            return Err(format!("`{url}` does not begin with redis://"));
        };
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| format!("`{port}` in `{url}` is no port"))?)
            }
            _ => (place, 6379),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let (user, password) = match login {
            Some(login) => match login.split_once(':') {
                Some((user, password)) => (Some(decode(user)), Some(decode(password))),
                None => (Some(decode(login)), None),
            },
            None => (None, None),
        };
        Ok(Self {
            endpoint: Endpoint::Tcp(host.to_owned(), port),
            user: user.filter(|user| !user.is_empty()),
            password,
        })
    }

    /// Sends one command on a connection of its own.
    pub(crate) fn call(&self, args: &[&str]) -> Result<Reply> {
        let name = args.first().copied().unwrap_or("an empty command");
        let reply = self.exchange(args).map_err(|source| Error::NoAnswer {
            command: name.to_owned(),
            address: self.endpoint.to_string(),
            source,
        })?;
        match reply {
            Reply::Error(message) => Err(Error::Refused { command: name.to_owned(), message }),
            other => Ok(other),
        }
    }

    /// Sends one command and renders its reply as text.
    pub(crate) fn text(&self, args: &[&str]) -> Result<String> {
        self.call(args).map(|reply| reply.to_string())
    }

    /// Tells whether the process of this number answers here, and not another that has the port.
    pub(crate) fn answers_as(&self, process: u32) -> bool {
        let line = format!("process_id:{process}");
        self.text(&["INFO", "server"])
            .is_ok_and(|info| info.lines().any(|known| known.trim() == line))
            // INFO is answered while the data are still being read, PING is not.
            && self.call(&["PING"]).is_ok()
    }

    fn exchange(&self, args: &[&str]) -> io::Result<Reply> {
        let mut stream = self.endpoint.connect()?;
        if let Some(password) = &self.password {
            let mut login = vec!["AUTH"];
            login.extend(self.user.as_deref());
            login.push(password);
            if let refused @ Reply::Error(_) = ask(&mut stream, &login)? {
                return Ok(refused);
            }
        }
        ask(&mut stream, args)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Control").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

impl Endpoint {
    fn connect(&self) -> io::Result<BufReader<Box<dyn Stream>>> {
        let stream: Box<dyn Stream> = match self {
            Self::Tcp(host, port) => {
                let address: SocketAddr =
                    (host.as_str(), *port).to_socket_addrs()?.next().ok_or_else(|| {
                        io::Error::new(io::ErrorKind::NotFound, "the host has no address")
                    })?;
                let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Box::new(stream)
            }
        };
        Ok(BufReader::new(stream))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) => write!(formatter, "{host}:{port}"),
            Self::Unix(path) => write!(formatter, "{}", path.display()),
        }
    }
}

impl Reply {
    pub(crate) fn list(self) -> Vec<Self> {
        match self {
            Self::List(items) => items,
            Self::Nil => Vec::new(),
            other => vec![other],
        }
    }
}

/// As `redis-cli` prints it into a pipe: one line for each element.
impl fmt::Display for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => Ok(()),
            Self::Text(text) | Self::Error(text) => formatter.write_str(text),
            Self::List(items) => {
                for (place, item) in items.iter().enumerate() {
                    if place != 0 {
                        formatter.write_str("\n")?;
                    }
                    item.fmt(formatter)?;
                }
                Ok(())
            }
        }
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn ask(stream: &mut BufReader<Box<dyn Stream>>, args: &[&str]) -> io::Result<Reply> {
    let mut request = format!("*{}\r\n", args.len());
    for arg in args {
        request.push_str(&format!("${}\r\n{arg}\r\n", arg.len()));
    }
    stream.get_mut().write_all(request.as_bytes())?;
    read(stream, 0)
}

fn read(stream: &mut impl BufRead, depth: usize) -> io::Result<Reply> {
    let odd = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    if 16 < depth {
        return Err(odd("the reply is nested too deeply".to_owned()));
    }
    let mut line = String::new();
    if stream.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
    }
    let line = line.trim_end_matches(['\r', '\n']);
    let mut letters = line.chars();
    let kind = letters.next();
    let rest = letters.as_str();
    let length = || rest.parse::<i64>().map_err(|_| odd(format!("`{line}` has no length")));
    match kind {
        Some('+' | ':') => Ok(Reply::Text(rest.to_owned())),
        Some('-') => Ok(Reply::Error(rest.to_owned())),
        Some('$') => match usize::try_from(length()?) {
            Ok(length) => {
                let mut bytes = vec![0; length.saturating_add(2)];
                stream.read_exact(&mut bytes)?;
                bytes.truncate(length);
                Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Err(_) => Ok(Reply::Nil),
        },
        Some('*') => match usize::try_from(length()?) {
            Ok(length) => (0..length)
                .map(|_| read(stream, depth + 1))
                .collect::<io::Result<_>>()
                .map(Reply::List),
            Err(_) => Ok(Reply::Nil),
        },
        _ => Err(odd(format!("`{line}` is no RESP2 reply"))),
    }
}

/// Undoes percent-encoding; what is not well encoded stays as it is.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, code.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let plain = Control::parse("redis://127.0.0.1:7000/0").unwrap();
        assert_eq!(plain.endpoint, Endpoint::Tcp("127.0.0.1".to_owned(), 7000));
        assert_eq!(plain.password, None);

        let login = Control::parse("redis://:p%40ss@db.example").unwrap();
        assert_eq!(login.endpoint, Endpoint::Tcp("db.example".to_owned(), 6379));
        assert_eq!((login.user.as_deref(), login.password.as_deref()), (None, Some("p@ss")));

        let six = Control::parse("redis://me:word@[::1]:7001").unwrap();
        assert_eq!(six.endpoint, Endpoint::Tcp("::1".to_owned(), 7001));
        assert_eq!(six.user.as_deref(), Some("me"));

        assert!(Control::parse("rediss://127.0.0.1").is_err());
        assert!(Control::parse("redis://127.0.0.1:many").is_err());
    }

    #[test]
    fn replies_are_read() {
        let bytes = b"*4\r\n+OK\r\n:7\r\n$3\r\nabc\r\n*1\r\n$-1\r\n";
        let reply = read(&mut io::Cursor::new(bytes), 0).unwrap();
        assert_eq!(reply.to_string(), "OK\n7\nabc\n");
        assert!(read(&mut io::Cursor::new(b"?\r\n"), 0).is_err());
        assert!(read(&mut io::Cursor::new(b""), 0).is_err());
        assert!(read(&mut io::Cursor::new(b"$9\r\nabc\r\n"), 0).is_err());
    }
}
