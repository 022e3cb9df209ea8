//! A client made by hand: a valid handshake, then whatever a test wants to say.

use netchan::Server;
use netchan_proto::crypto::{
    ClientHandshake, ClientSettings, Established, Handshake, HandshakeError, Hello, LocalKey, Peek,
    ResumeFrom, SealBuf, ServerTrust,
};
use netchan_proto::id::{ChannelId, Direction};
use netchan_proto::wire::{DataHeader, Frame, Open, OpenFlow, Purpose, Reader};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::within;

/// A client's side of one connection.
pub struct Raw {
    pub stream: TcpStream,
    pub established: Established,
    /// What has been read and not opened.
    input: Vec<u8>,
    next_id: u32,
    /// Whether it answers whoever asks if it is there.
    pub answers: bool,
}

pub fn address(server: &Server) -> String {
    let (host, port) = server.addresses()[0].host_port().unwrap();
    format!("{host}:{port}")
}

/// Brings a client with that key through its handshake, and no further.
pub async fn raw(server: &Server, key: u8, resume: Option<ResumeFrom>) -> Result<Raw, HandshakeError> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).unwrap();
    let settings = ClientSettings {
        key: LocalKey::from_seed([key; 32]).unwrap(),
        server: ServerTrust::Pinned(server.ticket().server_pin()),
        secret: server.ticket().access_secret().cloned(),
        hello: Hello {
            version: 1,
            agent: "by hand".to_owned(),
            aes_hardware: true,
            message_bytes_max: 1 << 20,
            resume: None,
        },
        resume,
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let mut client = ClientHandshake::new(settings, now, salt)?;
    let mut stream = TcpStream::connect(address(server)).await.unwrap();
    let mut input = Vec::new();
    loop {
        while let Some(bytes) = client.poll_output() {
            stream.write_all(&bytes).await.unwrap();
        }
        if let Some(established) = client.poll_established() {
            return Ok(Raw { stream, established, input, next_id: 1, answers: true });
        }
        let taken = client.handle_input(&input)?;
        input.drain(..taken);
        if taken == 0 && within("an answer", stream.read_buf(&mut input)).await.unwrap_or(0) == 0 {
            return Err(client.handle_end());
        }
    }
}

impl Raw {
    /// A record of its own.
    pub async fn say(&mut self, frame: &Frame) {
        self.say_all(&frame.to_vec()).await;
    }

    /// A record of these frames.
    pub async fn say_all(&mut self, frames: &[u8]) {
        let mut record = SealBuf::new(frames.len() + 256);
        let sealer = &mut self.established.keys.sealer;
        sealer.seal(ChannelId::CONTROL, frames, &[], 0, &mut record).unwrap();
        self.stream.write_all(record.filled()).await.unwrap();
    }

    /// Reads until the server has answered that ping.
    pub async fn until_pong(&mut self, nonce: u64) {
        let mut input = std::mem::take(&mut self.input);
        loop {
            while let Ok(Peek::Record { record_len, plaintext_len, .. }) =
                self.established.keys.opener.peek(&input)
            {
                let mut plain = vec![0; plaintext_len];
                self.established.keys.opener.open(&input[..record_len], &mut plain).unwrap();
                input.drain(..record_len);
                let mut frames = Reader::new(&plain);
                while !frames.is_empty() {
                    if Frame::read(&mut frames).unwrap() == Some(Frame::Pong { nonce }) {
                        return;
                    }
                }
            }
            assert!(self.stream.read_buf(&mut input).await.unwrap() > 0, "the server hung up");
        }
    }

    /// Opens a hosted channel, as far as it is this end's to do; the answer is heard later.
    pub async fn open(&mut self, name: &str, label: &str, flow: OpenFlow, purpose: Purpose) -> ChannelId {
        let id = ChannelId(self.next_id);
        self.next_id += 2;
        let open = Open {
            id,
            name: name.to_owned(),
            label: label.to_owned(),
            codec: "postcard/1".to_owned(),
            fingerprint: None,
            flow,
            purpose,
            capacity: 0,
            limit_bytes: 0,
        };
        let open = Frame::Open(open);
        let keys = &mut self.established.keys;
        let secrets = keys.own_chain.step(&open.to_vec());
        match flow {
            OpenFlow::OpenerSends => {
                keys.sealer.add_channel(id, secrets.secret(Direction::FromClient)).unwrap();
            }
            OpenFlow::OpenerReceives => {
                keys.opener.add_channel(id, secrets.secret(Direction::FromServer)).unwrap();
            }
        }
        self.say(&open).await;
        id
    }

    /// Values, or a part of one.
    pub async fn data(&mut self, id: ChannelId, header: &DataHeader, body: &[u8]) -> std::io::Result<()> {
        let mut record = SealBuf::new(body.len() + 256);
        let sealer = &mut self.established.keys.sealer;
        sealer.seal(id, body, header.trailer().as_slice(), 0, &mut record).unwrap();
        self.stream.write_all(record.filled()).await
    }

    /// Reads until `done` says so of a frame, answering pings. Values are passed over. `None` once the server has hung up.
    pub async fn hear(&mut self, done: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        within("what the server has to say", self.hear_all(done)).await
    }

    async fn hear_all(&mut self, mut done: impl FnMut(&Frame) -> bool) -> Option<Frame> {
        loop {
            while let Ok(Peek::Record { channel, record_len, plaintext_len, .. }) =
                self.established.keys.opener.peek(&self.input)
            {
                let mut plain = vec![0; plaintext_len];
                self.established.keys.opener.open(&self.input[..record_len], &mut plain).unwrap();
                self.input.drain(..record_len);
                if channel != ChannelId::CONTROL {
                    continue;
                }
                let mut frames = Reader::new(&plain);
                let mut found = None;
                while !frames.is_empty() {
                    let Some(frame) = Frame::read(&mut frames).unwrap() else { continue };
                    if let Frame::Ping { nonce } = frame
                        && self.answers
                    {
                        self.say(&Frame::Pong { nonce }).await;
                    }
                    if found.is_none() && done(&frame) {
                        found = Some(frame);
                    }
                }
                if found.is_some() {
                    return found;
                }
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Confirms the link, as a client does before anything else, and waits for the server's confirmation.
    pub async fn confirm(&mut self) {
        self.say(&Frame::Confirm { mac: self.established.keys.own_confirm }).await;
        while !matches!(self.established.keys.opener.peek(&self.input), Ok(Peek::Record { .. })) {
            let reading = self.stream.read_buf(&mut self.input);
            assert!(within("the server's confirmation", reading).await.unwrap() > 0, "the server hung up");
        }
    }
}
