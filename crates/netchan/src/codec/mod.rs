//! Values to bytes and back. Generics stop here: everything below moves bytes.
//!
//! [`Postcard`] serves every type that implements serde's traits and is the default; [`Raw`] passes bytes through. A codec
//! of your own implements [`Codec`] for the types it serves.

mod context;
mod error;
mod label;
mod postcard;
mod raw;

pub use netchan_proto::channel::{ItemBuf, Payload, TooLarge};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use self::context::{DecodeContext, EncodeContext};
pub use self::error::{BoxError, DecodeError, EncodeError};
pub use self::label::type_label;
pub use self::postcard::Postcard;
pub(crate) use self::raw::NAME as RAW_NAME;
pub use self::raw::Raw;

/// How deep a decoded value may nest, by default. The same bound as in `serde_json`; every level costs stack, and a test
/// thread has 2 MiB of it.
pub const DECODE_DEPTH_MAX: usize = 128;

/// Elements of sequences and maps that one message may hold beyond one per byte, by default. Only elements without bytes
/// of their own, such as `()`, ever need these; without a bound eight bytes could claim 2^64 of them.
pub const DECODE_EMPTY_ELEMENTS_MAX: usize = 65_536;

/// What travels through a channel with the default codec: any type that serde can write and read.
///
/// There is nothing to implement; derive `Serialize` and `Deserialize`.
pub trait Message: Serialize + DeserializeOwned + Send + 'static {}

impl<T: Serialize + DeserializeOwned + Send + 'static> Message for T {}

/// Turns values of type `T` into bytes and back.
///
/// ```
/// use netchan::codec::{Codec, DecodeContext, DecodeError, EncodeContext, EncodeError, ItemBuf, Payload};
///
/// /// Text as UTF-8, nothing around it.
/// struct Text;
///
/// impl Codec<String> for Text {
///     fn name(&self) -> &str {
///         "text"
///     }
///     fn encode(&self, value: &String, _: &mut EncodeContext<'_>, out: &mut ItemBuf<'_>) -> Result<(), EncodeError> {
///         Ok(out.extend(value.as_bytes())?)
///     }
///     fn decode(&self, payload: Payload<'_>, _: &mut DecodeContext<'_>) -> Result<String, DecodeError> {
///         String::from_utf8(payload.into_bytes().into()).map_err(DecodeError::codec)
///     }
/// }
/// ```
pub trait Codec<T>: Send + Sync + 'static {
    /// The codec's name. When a channel opens, both ends' names are compared, so change it when the bytes change.
    fn name(&self) -> &str;

    /// Writes `value` as one message. It runs under the channel's lock, so it must not send on the same channel.
    ///
    /// # Errors
    ///
    /// When the value has no encoding or is larger than the channel allows. What was written by then is discarded.
    fn encode(&self, value: &T, cx: &mut EncodeContext<'_>, out: &mut ItemBuf<'_>)
    -> Result<(), EncodeError>;

    /// Reads one message; all of `payload` belongs to it.
    ///
    /// The bytes are the peer's and may be hostile: whatever they are, the answer is a value or an error, in time and
    /// memory that the payload's length bounds.
    ///
    /// # Errors
    ///
    /// When `payload` is not the encoding of a `T`.
    fn decode(&self, payload: Payload<'_>, cx: &mut DecodeContext<'_>) -> Result<T, DecodeError>;
}
