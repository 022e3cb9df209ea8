//! tokio's channel inside one process: two tasks, values moved and not encoded.

use tokio::sync::mpsc;

use super::job::{Driven, Job, Meter, Pace, STREAM_CAPACITY, Tally};
use super::message::Message;
use crate::Failure;

/// One round of `stream`.
pub(super) async fn stream(job: Job) -> Result<(Driven, Tally), Failure> {
    let (sender, mut receiver) = mpsc::channel::<Message>(STREAM_CAPACITY);
    let consumer = tokio::spawn(async move {
        let mut meter = Meter::default();
        while let Some(message) = receiver.recv().await {
            meter.arrive(message.checksum());
        }
        meter.stop();
        meter.tally()
    });
    let producer = tokio::spawn(async move {
        let template = Message::template(job.size);
        let mut sent = 0;
        let mut pace = Pace::of_messages(job.seconds);
        while pace.more() {
            sender.send(template.numbered(sent)).await?;
            sent += 1;
        }
        Ok::<_, Failure>(sent)
    });
    let sent = producer.await??;
    Ok((Driven::Sent(vec![sent]), consumer.await?))
}
