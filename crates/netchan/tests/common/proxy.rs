//! A man in the middle: it passes a TCP connection on, records it, and does to it what a test asks for.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use netchan::address::Address;
use netchan::{Server, Ticket};
use parking_lot::Mutex;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What happens to one direction, counted from the first byte of the connection.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    None,
    /// The connection closes after so many bytes.
    Cut(usize),
    /// It is reset after so many bytes.
    Reset(usize),
    /// The lowest bit of this byte is flipped.
    Flip(usize),
    /// Nothing passes after so many bytes.
    Stall(usize),
    /// Every byte is written by itself.
    Slices,
    /// Every read is passed on so much later.
    Delay(Duration),
}

/// What is done to every connection at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Run,
    Stall,
    Cut,
    /// Connections of an earlier generation than this are reset.
    Fence(usize),
}

#[derive(Default)]
struct Record {
    /// What the client sent, and what the server sent.
    bytes: [Mutex<Vec<u8>>; 2],
    connections: AtomicUsize,
    /// Only this connection meets the faults; without, every one.
    faulty: Option<usize>,
}

pub struct Proxy {
    address: SocketAddr,
    record: Arc<Record>,
    mode: watch::Sender<Mode>,
    task: tokio::task::JoinHandle<()>,
}

enum End {
    Cut,
    Reset,
}

impl Proxy {
    /// In front of a server; `up` befalls what clients send, `down` what they receive.
    pub async fn start(server: &Server, up: Fault, down: Fault) -> Self {
        Self::start_recording(server, up, down, Record::default()).await
    }

    /// The same, but the faults befall the first connection only.
    pub async fn start_with_one_fault(server: &Server, up: Fault, down: Fault) -> Self {
        Self::start_with_fault_at(server, up, down, 0).await
    }

    /// The same, but the faults befall one connection only, counted from 0.
    pub async fn start_with_fault_at(server: &Server, up: Fault, down: Fault, connection: usize) -> Self {
        let record = Record { faulty: Some(connection), ..Record::default() };
        Self::start_recording(server, up, down, record).await
    }

    async fn start_recording(server: &Server, up: Fault, down: Fault, record: Record) -> Self {
        let (host, port) = server.addresses()[0].host_port().unwrap();
        let target: SocketAddr = format!("{host}:{port}").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let record = Arc::new(record);
        let mode = watch::Sender::new(Mode::Run);
        let task = tokio::spawn(accept(listener, target, [up, down], Arc::clone(&record), mode.subscribe()));
        Self { address, record, mode, task }
    }

    /// The server's ticket by way of the proxy.
    pub fn ticket(&self, server: &Server) -> Ticket {
        server.ticket().with_addresses(vec![Address::from(self.address)]).unwrap()
    }

    pub fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    /// Resets the connections there are, and passes later ones on.
    pub fn cut_now(&self) {
        self.mode.send_replace(Mode::Fence(self.connections()));
    }

    pub fn stall(&self) {
        self.mode.send_replace(Mode::Stall);
    }

    pub fn resume(&self) {
        self.mode.send_replace(Mode::Run);
    }

    /// Everything that clients sent so far.
    pub fn sent_up(&self) -> Vec<u8> {
        self.record.bytes[0].lock().clone()
    }

    /// Everything that they received so far.
    pub fn sent_down(&self) -> Vec<u8> {
        self.record.bytes[1].lock().clone()
    }

    pub fn connections(&self) -> usize {
        self.record.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: SocketAddr,
    faults: [Fault; 2],
    record: Arc<Record>,
    mode: watch::Receiver<Mode>,
) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (near, _) = listener.accept().await.unwrap();
        let number = record.connections.fetch_add(1, Ordering::SeqCst);
        let meets = record.faulty.is_none_or(|faulty| faulty == number);
        let faults = if meets { faults } else { [Fault::None; 2] };
        connections.spawn(carry(near, target, faults, number, Arc::clone(&record), mode.clone()));
    }
}

async fn carry(
    mut near: TcpStream,
    target: SocketAddr,
    faults: [Fault; 2],
    number: usize,
    record: Arc<Record>,
    mode: watch::Receiver<Mode>,
) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    near.set_nodelay(true).unwrap();
    far.set_nodelay(true).unwrap();
    let ended = {
        let (near_reader, near_writer) = near.split();
        let (far_reader, far_writer) = far.split();
        let up = pass(near_reader, far_writer, faults[0], number, &record.bytes[0], mode.clone());
        let down = pass(far_reader, near_writer, faults[1], number, &record.bytes[1], mode);
        tokio::try_join!(up, down)
    };
    if let Err(End::Reset) = ended {
        for stream in [&near, &far] {
            _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

async fn pass(
    mut reader: tokio::net::tcp::ReadHalf<'_>,
    mut writer: tokio::net::tcp::WriteHalf<'_>,
    fault: Fault,
    number: usize,
    record: &Mutex<Vec<u8>>,
    mut mode: watch::Receiver<Mode>,
) -> Result<(), End> {
    let mut buffer = vec![0; 16 * 1_024];
    let mut passed = 0;
    loop {
        let read = tokio::select! {
            ended = mode.wait_for(|mode| *mode == Mode::Cut || matches!(mode, Mode::Fence(from) if number < *from)) => {
                return Err(if matches!(ended.as_deref(), Ok(Mode::Fence(_))) { End::Reset } else { End::Cut });
            }
            read = reader.read(&mut buffer) => read,
        };
        let Ok(count @ 1..) = read else {
            _ = writer.shutdown().await;
            return Ok(());
        };
        let stalled = mode.wait_for(|mode| *mode != Mode::Stall).await.map(|mode| *mode);
        if !matches!(stalled, Ok(Mode::Run | Mode::Fence(_))) {
            return Err(End::Cut);
        }
        record.lock().extend_from_slice(&buffer[..count]);
        let end = passed + count;
        let mut limit = count;
        match fault {
            Fault::Cut(at) | Fault::Reset(at) | Fault::Stall(at) if at < end => limit = at - passed,
            Fault::Flip(at) if (passed..end).contains(&at) => buffer[at - passed] ^= 1,
            Fault::Delay(time) => tokio::time::sleep(time).await,
            _ => {}
        }
        let bytes = &buffer[..limit];
        let slice = if matches!(fault, Fault::Slices) { 1 } else { bytes.len().max(1) };
        for bytes in bytes.chunks(slice) {
            if writer.write_all(bytes).await.is_err() {
                return Err(End::Cut);
            }
        }
        passed = end;
        match fault {
            Fault::Cut(at) if at < end => return Err(End::Cut),
            Fault::Reset(at) if at < end => return Err(End::Reset),
            Fault::Stall(at) if at < end => {
                _ = mode.wait_for(|mode| *mode == Mode::Cut).await;
                return Err(End::Cut);
            }
            _ => {}
        }
    }
}
