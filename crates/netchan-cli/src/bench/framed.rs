//! Messages and blocks over any byte stream: what TCP and TLS share.
//!
//! These are the limits netchan is judged by, so they are written to be hard to beat: nothing is allocated per message
//! except the string that decoding makes, a system call carries 64 KiB, and buffers are reused.

use std::io;

use bytes::Bytes;
use serde::de::Error as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::job::{Job, Meter, Pace};
use super::message::{Message, block, block_checksum};

/// What one write carries.
const BATCH_BYTES: usize = 64 * 1024;
/// What one read may bring.
const READ_BYTES: usize = 128 * 1024;
/// Batches that may wait for each of many connections.
const BATCHES_UNDER_WAY: usize = 4;
/// Bytes that a message may have beyond its nominal size, its length prefix included.
const SLACK_BYTES: usize = 32;

/// Encoded messages on their way out: each is its length as a varint and its postcard bytes.
pub(super) struct Outbox {
    buffer: Vec<u8>,
    filled: usize,
    largest: usize,
}

impl Outbox {
    pub(super) fn new(message_size: usize) -> Self {
        let largest = message_size + SLACK_BYTES;
        Self { buffer: vec![0; BATCH_BYTES.max(largest)], filled: 0, largest }
    }

    /// Whether another message might not fit.
    #[inline]
    pub(super) fn full(&self) -> bool {
        self.buffer.len() - self.filled < self.largest
    }

    #[inline]
    pub(super) fn put(&mut self, message: &Message) -> io::Result<()> {
        let (at, body) = (self.filled, self.filled + 1);
        let length = postcard::to_slice(message, &mut self.buffer[body..]).map_err(io::Error::other)?.len();
        if length < 0x80 {
            self.buffer[at] = length as u8;
            self.filled = body + length;
            return Ok(());
        }
        // A longer length needs more room than was left for it.
        let mut prefix = [0; 10];
        let prefix = postcard::to_slice(&(length as u64), &mut prefix).map_err(io::Error::other)?;
        self.buffer.copy_within(body..body + length, at + prefix.len());
        self.buffer[at..at + prefix.len()].copy_from_slice(prefix);
        self.filled = at + prefix.len() + length;
        Ok(())
    }

    pub(super) async fn send(&mut self, writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        writer.write_all(&self.buffer[..self.filled]).await?;
        self.filled = 0;
        Ok(())
    }
}

/// Bytes that have come in, and the messages in them.
pub(super) struct Inbox {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new(message_size: usize) -> Self {
        Self { buffer: vec![0; READ_BYTES.max(2 * (message_size + SLACK_BYTES))], start: 0, end: 0 }
    }

    /// Reads once; `false` at the end of the stream, which must not be inside a message.
    pub(super) async fn fill(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<bool> {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        match reader.read(&mut self.buffer[self.end..]).await? {
            0 if self.end > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            0 => Ok(false),
            n => {
                self.end += n;
                Ok(true)
            }
        }
    }

    /// The next whole message, if there is one.
    #[inline]
    pub(super) fn take(&mut self) -> io::Result<Option<Message>> {
        let bytes = &self.buffer[self.start..self.end];
        let (length, prefix) = match bytes.first() {
            None => return Ok(None),
            Some(&length) if length < 0x80 => (usize::from(length), 1),
            Some(_) => match postcard::take_from_bytes::<u64>(bytes) {
                Ok((length, rest)) => (length as usize, bytes.len() - rest.len()),
                Err(postcard::Error::DeserializeUnexpectedEnd) => return Ok(None),
                Err(e) => return Err(io::Error::other(e)),
            },
        };
        let Some(body) = bytes[prefix..].get(..length) else {
            if prefix + length > self.buffer.len() {
                return Err(io::Error::other(postcard::Error::custom("a message larger than agreed")));
            }
            return Ok(None);
        };
        self.start += prefix + length;
        postcard::from_bytes(body).map(Some).map_err(io::Error::other)
    }

    /// The next message, reading as long as it takes; `None` at the end of the stream.
    async fn next(&mut self, reader: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Message>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if !self.fill(reader).await? {
                return Ok(None);
            }
        }
    }
}

/// Sends messages until the time is over; tells how many.
pub(super) async fn produce_messages(writer: &mut (impl AsyncWrite + Unpin), job: &Job) -> io::Result<u64> {
    let mut message = Message::template(job.size);
    let mut outbox = Outbox::new(job.size);
    let mut sent = 0;
    let mut pace = Pace::of_messages(job.seconds);
    while pace.more() {
        message.stamp(sent);
        if outbox.full() {
            outbox.send(writer).await?;
        }
        outbox.put(&message)?;
        sent += 1;
    }
    outbox.send(writer).await?;
    writer.shutdown().await?;
    Ok(sent)
}

/// Sends every message to every writer until the time is over, each encoded once; tells how many.
pub(super) async fn broadcast_messages<W>(writers: Vec<W>, job: &Job) -> io::Result<u64>
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let mut copies = Vec::new();
    let mut carriers = JoinSet::new();
    for mut writer in writers {
        let (copy, mut batches) = mpsc::channel::<Bytes>(BATCHES_UNDER_WAY);
        copies.push(copy);
        carriers.spawn(async move {
            while let Some(batch) = batches.recv().await {
                writer.write_all(&batch).await?;
            }
            writer.shutdown().await
        });
    }
    let mut message = Message::template(job.size);
    let mut outbox = Outbox::new(job.size);
    let mut sent = 0;
    let mut pace = Pace::of_messages(job.seconds);
    loop {
        let more = pace.more();
        if outbox.full() || !more {
            let batch = Bytes::copy_from_slice(&outbox.buffer[..outbox.filled]);
            outbox.filled = 0;
            for copy in &copies {
                copy.send(batch.clone()).await.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
        }
        if !more {
            break;
        }
        message.stamp(sent);
        outbox.put(&message)?;
        sent += 1;
    }
    drop(copies);
    while let Some(carried) = carriers.join_next().await {
        carried.map_err(io::Error::other)??;
    }
    Ok(sent)
}

/// Takes messages until the stream ends.
pub(super) async fn consume_messages(reader: &mut (impl AsyncRead + Unpin), job: &Job) -> io::Result<Meter> {
    let mut inbox = Inbox::new(job.size);
    let mut meter = Meter::default();
    while inbox.fill(reader).await? {
        while let Some(message) = inbox.take()? {
            meter.arrive(message.checksum());
        }
    }
    meter.stop();
    Ok(meter)
}

/// Sends blocks until the time is over; tells how many.
pub(super) async fn produce_blocks(writer: &mut (impl AsyncWrite + Unpin), job: &Job) -> io::Result<u64> {
    let mut frame = (job.size as u64).to_le_bytes().to_vec();
    frame.extend_from_slice(&block(job.size));
    let mut sent = 0;
    let mut pace = Pace::of_large_things(job.seconds);
    while pace.more() {
        writer.write_all(&frame).await?;
        sent += 1;
    }
    writer.shutdown().await?;
    Ok(sent)
}

/// Takes blocks until the stream ends.
pub(super) async fn consume_blocks(reader: &mut (impl AsyncRead + Unpin), job: &Job) -> io::Result<Meter> {
    const PREFIX: usize = size_of::<u64>();
    let mut frame = vec![0; PREFIX + job.size];
    let mut meter = Meter::default();
    loop {
        let begun = reader.read(&mut frame).await?;
        if begun == 0 {
            break;
        }
        reader.read_exact(&mut frame[begun..]).await?;
        let (prefix, block) = frame.split_at(PREFIX);
        if prefix != (job.size as u64).to_le_bytes() {
            return Err(io::Error::other("a block of another size than agreed"));
        }
        meter.arrive(block_checksum(block));
    }
    meter.stop();
    Ok(meter)
}

/// Sends a message and waits for it to come back, until the time is over; tells how long each took, in nanoseconds.
pub(super) async fn ping(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    job: &Job,
) -> io::Result<Vec<u64>> {
    let mut message = Message::template(job.size);
    let (mut outbox, mut inbox) = (Outbox::new(job.size), Inbox::new(job.size));
    let mut trips = Vec::new();
    let mut pace = Pace::of_large_things(job.seconds);
    while pace.more() {
        let n = trips.len() as u64;
        message.stamp(n);
        let begun = std::time::Instant::now();
        outbox.put(&message)?;
        outbox.send(stream).await?;
        stream.flush().await?;
        let echo = inbox.next(stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        trips.push(begun.elapsed().as_nanos() as u64);
        if !echo.is_numbered(n) {
            return Err(io::Error::other("another message came back than was sent"));
        }
    }
    stream.shutdown().await?;
    Ok(trips)
}

/// Sends every message back.
pub(super) async fn echo(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), job: &Job) -> io::Result<Meter> {
    let (mut outbox, mut inbox) = (Outbox::new(job.size), Inbox::new(job.size));
    let mut meter = Meter::default();
    while let Some(message) = inbox.next(stream).await? {
        meter.arrive(message.checksum());
        outbox.put(&message)?;
        outbox.send(stream).await?;
        stream.flush().await?;
    }
    meter.stop();
    stream.shutdown().await?;
    Ok(meter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_every_size_pass_through_any_cut() {
        for size in [64, 134, 135, 200, 20_000] {
            let mut outbox = Outbox::new(size);
            let template = Message::template(size);
            let mut count = 0;
            while !outbox.full() && count < 50 {
                outbox.put(&template.numbered(count)).unwrap();
                count += 1;
            }
            let bytes = &outbox.buffer[..outbox.filled];
            for cut in [1, 7, 61, 4096, bytes.len()] {
                let mut inbox = Inbox::new(size);
                let mut seen = 0;
                for piece in bytes.chunks(cut) {
                    inbox.buffer[inbox.end..inbox.end + piece.len()].copy_from_slice(piece);
                    inbox.end += piece.len();
                    while let Some(message) = inbox.take().unwrap() {
                        assert_eq!(message, template.numbered(seen));
                        seen += 1;
                    }
                    let rest = inbox.start..inbox.end;
                    inbox.end = rest.len();
                    inbox.start = 0;
                    inbox.buffer.copy_within(rest, 0);
                }
                assert_eq!(seen, count, "size {size}, pieces of {cut}");
            }
        }
    }

    #[tokio::test]
    async fn a_stream_cut_inside_a_message_is_an_error() {
        let mut outbox = Outbox::new(64);
        outbox.put(&Message::template(64)).unwrap();
        let mut inbox = Inbox::new(64);
        let mut cut = &outbox.buffer[..outbox.filled - 1];
        let error = inbox.next(&mut cut).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
