//! A value as it is handed to a holder: what is known of it, then the value.

use std::sync::Arc;

use netchan_proto::wire::Handed;

use crate::codec::{Codec, DecodeContext, DecodeError, EncodeContext, EncodeError, ItemBuf, Payload};
use crate::error::RecvError;

/// A value that was handed over, decoded if that could be done.
pub(super) struct Opened<T> {
    pub(super) handed: Handed,
    pub(super) value: Result<T, RecvError>,
}

/// Decodes the values of a channel of deliveries with the program's codec.
pub(super) struct HandedCodec<T>(pub(super) Arc<dyn Codec<T>>);

impl<T: 'static> Codec<Opened<T>> for HandedCodec<T> {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn encode(
        &self,
        _: &Opened<T>,
        _: &mut EncodeContext<'_>,
        _: &mut ItemBuf<'_>,
    ) -> Result<(), EncodeError> {
        // A client only receives these.
        Ok(())
    }

    fn decode(&self, payload: Payload<'_>, cx: &mut DecodeContext<'_>) -> Result<Opened<T>, DecodeError> {
        let (handed, rest) = Handed::split(payload.as_slice()).map_err(DecodeError::codec)?;
        let head = payload.as_slice().len() - rest.len();
        let value = match payload {
            Payload::Owned(bytes) => self.0.decode(Payload::Owned(bytes.slice(head..)), cx),
            Payload::Slice(bytes) => self.0.decode(Payload::Slice(&bytes[head..]), cx),
        };
        let channel = cx.channel().to_owned();
        Ok(Opened { handed, value: value.map_err(|error| RecvError::Decode { channel, error }) })
    }
}
