//! Unix domain sockets.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

use super::{BoxFuture, Link, LinkReader, LinkWriter, Listener, Transport, TransportError};
use crate::address::Address;

/// Connections the kernel completes ahead of `accept`.
const BACKLOG: i32 = 1_024;

/// Only the owner connects; the keys decide about the rest, but a stranger need not even knock.
const SOCKET_MODE: u32 = 0o600;

/// `unix:///path`: a socket file for its owner only, removed when the listener drops.
///
/// A socket file that a killed server left behind is replaced. A live server's is not, and nothing that is not a socket
/// is ever deleted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unix;

impl Transport for Unix {
    fn scheme(&self) -> &str {
        "unix"
    }

    fn connect<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let path = path_of(address)?;
            let unreachable = |source| TransportError::SocketUnreachable { path: path.to_owned(), source };
            let stream = UnixStream::connect(path).await.map_err(unreachable)?;
            Ok(Box::new(UnixLink { stream, peer: address.to_string() }) as Box<dyn Link>)
        })
    }

    fn listen<'a>(&'a self, address: &'a Address) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let (address, path) = (address.clone(), path_of(address)?.to_owned());
            let failed = {
                let address = address.clone();
                move |source| TransportError::Listen { address, source }
            };
            let bound = tokio::task::spawn_blocking(move || bind(&path)).await.map_err(io::Error::other)?;
            let (socket, file) = match bound {
                Ok(bound) => bound,
                Err(error) if error.get_ref().is_some_and(|inner| inner.is::<TransportError>()) => {
                    return Err(error);
                }
                Err(error) => return Err(failed(error).into()),
            };
            let listener = UnixListener::from_std(socket.into()).map_err(failed)?;
            Ok(Box::new(UnixLinks { listener, address, _file: file }) as Box<dyn Listener>)
        })
    }
}

fn path_of(address: &Address) -> Result<&Path, TransportError> {
    address.path().ok_or_else(|| TransportError::WrongScheme { address: address.clone(), transport: "unix" })
}

fn bind(path: &Path) -> io::Result<(Socket, SocketFile)> {
    let _lock = lock_directory(path);
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(TransportError::NotASocket { path: path.to_owned() }.into());
        }
        Ok(_) if somebody_answers(path)? => {
            return Err(TransportError::SocketInUse { path: path.to_owned() }.into());
        }
        Ok(_) => match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => tracing::debug!(path = %path.display(), "replaced a socket file that nobody answered at"),
        },
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let file = SocketFile::new(path)?;
    // Nobody connects before `listen`, so the mode is right from the first connection on, whatever the umask.
    fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
    socket.listen(BACKLOG)?;
    Ok((socket, file))
}

/// Two servers that start at once must not both find the same stale file: the second would delete the first one's
/// socket. Where the directory cannot be locked, that race is all that is lost.
fn lock_directory(path: &Path) -> Option<File> {
    let directory = File::open(path.parent()?).ok()?;
    for _ in 0..50 {
        if directory.try_lock().is_ok() {
            return Some(directory);
        }
        thread::sleep(Duration::from_millis(10));
    }
    None
}

fn somebody_answers(path: &Path) -> io::Result<bool> {
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            // A full backlog is an answer, and so is a socket of another type or another user.
            _ => Ok(true),
        },
    }
}

/// Removes the socket file on drop, unless the path has come to hold another file.
struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl SocketFile {
    fn new(path: &Path) -> io::Result<Self> {
        let found = fs::symlink_metadata(path)?;
        Ok(Self { path: path.to_owned(), device: found.dev(), inode: found.ino() })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Ok(found) = fs::symlink_metadata(&self.path)
            && (found.dev(), found.ino()) == (self.device, self.inode)
        {
            let _ = fs::remove_file(&self.path);
        }
    }
}

struct UnixLink {
    stream: UnixStream,
    peer: String,
}

impl Link for UnixLink {
    fn split(self: Box<Self>) -> (LinkReader, LinkWriter) {
        let (reader, writer) = self.stream.into_split();
        (Box::new(reader), Box::new(writer))
    }

    fn peer_address(&self) -> String {
        self.peer.clone()
    }
}

struct UnixLinks {
    listener: UnixListener,
    address: Address,
    _file: SocketFile,
}

impl Listener for UnixLinks {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Box<dyn Link>>> {
        Box::pin(async move {
            let (stream, _unnamed) = self.listener.accept().await?;
            let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
            let peer = match process {
                Some(process) => format!("{} (process {process})", self.address),
                None => self.address.to_string(),
            };
            Ok(Box::new(UnixLink { stream, peer }) as Box<dyn Link>)
        })
    }

    fn local_addresses(&self) -> Vec<Address> {
        vec![self.address.clone()]
    }
}
