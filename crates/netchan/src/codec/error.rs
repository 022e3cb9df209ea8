//! Why a value has no bytes, or bytes are no value.

use super::TooLarge;

/// The error of a codec, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A value could not be encoded. The fault is the caller's: the value, its `Serialize`, or the codec chosen for it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The value's encoding is larger than a message may be.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// The type's `Serialize` failed, or asked for something the codec does not have.
    #[error(
        "{type_name} cannot be encoded: {source}; check its Serialize (attributes such as flatten and \
         skip_serializing_if need a self-describing format)"
    )]
    Serialize {
        /// The type of the value.
        type_name: &'static str,
        /// What the codec said.
        source: BoxError,
    },
    /// A codec of your own failed.
    #[error("the codec refused the value: {0}")]
    Codec(#[source] BoxError),
}

impl EncodeError {
    /// The error of a codec of your own.
    pub fn codec(error: impl Into<BoxError>) -> Self {
        Self::Codec(error.into())
    }
}

/// A message could not be decoded. The fault is the peer's, or its type differs from ours.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not the encoding of the type.
    #[error("the message is no {type_name}: {source}; check that both ends use the same version of the type")]
    Malformed {
        /// The type that was expected.
        type_name: &'static str,
        /// What the codec said.
        source: BoxError,
    },
    /// The value ends before the message does.
    #[error(
        "the message is no {type_name}: {bytes} bytes are left over; check that both ends use the same version of the \
         type"
    )]
    TrailingBytes {
        /// The type that was expected.
        type_name: &'static str,
        /// Bytes after the value.
        bytes: usize,
    },
    /// The value nests deeper than allowed.
    #[error(
        "the message nests more than {depth_max} levels deep; send flatter values, or raise \
         Limits::decode_depth_max where it is received"
    )]
    TooDeep {
        /// The limit.
        depth_max: usize,
    },
    /// The value claims more elements than its bytes can hold.
    #[error(
        "the message claims more than {elements_max} elements, beyond what its bytes can hold; send fewer elements \
         without content, or raise Limits::decode_empty_elements_max there"
    )]
    TooManyElements {
        /// The limit: one for each byte, and the allowance for elements without bytes.
        elements_max: usize,
    },
    /// A codec of your own failed.
    #[error("the codec refused the message: {0}")]
    Codec(#[source] BoxError),
}

impl DecodeError {
    /// The error of a codec of your own.
    pub fn codec(error: impl Into<BoxError>) -> Self {
        Self::Codec(error.into())
    }
}
