//! Bytes as they are.

use bytes::Bytes;
use netchan_proto::limits::BATCHED_ITEM_BYTES_MAX;

use super::{Codec, DecodeContext, DecodeError, EncodeContext, EncodeError, ItemBuf, Payload};

/// Passes bytes through: for data that is encoded already. `Bytes` too large to share a batch with their
/// neighbours are never copied on the way in, and come out as they arrived.
///
/// ```
/// use bytes::Bytes;
/// use netchan::codec::{Codec, DecodeContext, Payload, Raw};
///
/// let arrived = Bytes::from(vec![7; 10_000]);
/// let start = arrived.as_ptr();
/// let value: Bytes = Raw.decode(Payload::Owned(arrived), &mut DecodeContext::new("files", 1 << 20))?;
/// assert_eq!(value.as_ptr(), start);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

/// Both types have the same bytes, so an end may use either.
pub(crate) const NAME: &str = "raw/1";

impl Codec<Bytes> for Raw {
    fn name(&self) -> &str {
        NAME
    }

    #[inline]
    fn encode(
        &self,
        value: &Bytes,
        _: &mut EncodeContext<'_>,
        out: &mut ItemBuf<'_>,
    ) -> Result<(), EncodeError> {
        if value.len() > BATCHED_ITEM_BYTES_MAX {
            out.share(value.clone())?;
        } else {
            out.extend(value)?;
        }
        Ok(())
    }

    #[inline]
    fn decode(&self, payload: Payload<'_>, _: &mut DecodeContext<'_>) -> Result<Bytes, DecodeError> {
        Ok(payload.into_bytes())
    }
}

impl Codec<Vec<u8>> for Raw {
    fn name(&self) -> &str {
        NAME
    }

    /// A borrowed vector cannot be shared, so this copies once.
    #[inline]
    fn encode(
        &self,
        value: &Vec<u8>,
        _: &mut EncodeContext<'_>,
        out: &mut ItemBuf<'_>,
    ) -> Result<(), EncodeError> {
        if value.len() > BATCHED_ITEM_BYTES_MAX {
            out.share(Bytes::copy_from_slice(value))?;
        } else {
            out.extend(value)?;
        }
        Ok(())
    }

    /// Moves the bytes out where nobody else holds them, and copies otherwise.
    #[inline]
    fn decode(&self, payload: Payload<'_>, _: &mut DecodeContext<'_>) -> Result<Vec<u8>, DecodeError> {
        Ok(match payload {
            Payload::Slice(slice) => slice.to_vec(),
            Payload::Owned(bytes) => bytes.into(),
        })
    }
}
