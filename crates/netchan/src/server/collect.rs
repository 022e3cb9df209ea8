//! A server that receives with acknowledgement.

use super::Server;
use crate::codec::Message;
use crate::delivery::{self, Deliveries};
use crate::error::HostError;
use crate::hub::Access;
use crate::options::ChannelOptions;

impl Server {
    /// Hosts a channel that clients may send into, and receives from it with acknowledgement: as
    /// [`receiver`](Self::receiver), but a value is this program's to do until it says that it has done it. One that is dropped
    /// comes again. The capacity counts values until they are acknowledged, and a sender's
    /// [`send_acked`](crate::Sender::send_acked) completes then: what this program had not acknowledged when it died, its
    /// senders still have, and send again to the server that takes its place
    /// ([`LossPolicy::Resend`](crate::LossPolicy::Resend)). With capacity 0 a send lasts until its value is acknowledged.
    ///
    /// # Errors
    /// [`HostError`], among them that the name is taken.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let server = netchan::listen_and_serve("memory://collect-example", Default::default()).await?;
    /// let results = server.deliveries::<u32>("results", 8)?;
    /// # let session = netchan::dial(server.ticket(), Default::default()).await?;
    /// # session.sender::<u32>("results").await?.send(7).await?;
    /// # results.close();
    /// while let Some(result) = results.recv().await? {
    ///     println!("{}", *result); // write it to a disk
    ///     result.ack().await?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deliveries<T: Message>(&self, name: &str, capacity: usize) -> Result<Deliveries<T>, HostError> {
        self.deliveries_with(name, capacity, ChannelOptions::default())
    }

    /// As [`deliveries`](Self::deliveries), with options.
    ///
    /// # Errors
    /// As [`deliveries`](Self::deliveries).
    pub fn deliveries_with<T: Send + 'static>(
        &self,
        name: &str,
        capacity: usize,
        options: ChannelOptions<T>,
    ) -> Result<Deliveries<T>, HostError> {
        let access = Access { may_send: true, may_receive: false };
        let hub = self.core.host(name, capacity as u64, &options, access)?;
        Ok(delivery::collect(hub, options.codec, self.core.message_limits()))
    }
}
