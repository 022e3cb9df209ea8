//! What a codec may know about where it works.

use super::{DECODE_DEPTH_MAX, DECODE_EMPTY_ELEMENTS_MAX};

/// Where a value is encoded. It grows: later versions carry what channels inside messages need.
#[derive(Debug)]
pub struct EncodeContext<'a> {
    channel: &'a str,
    message_bytes_max: usize,
}

impl<'a> EncodeContext<'a> {
    /// The context of a channel, whose messages have at most `message_bytes_max` bytes.
    #[must_use]
    pub fn new(channel: &'a str, message_bytes_max: usize) -> Self {
        Self { channel, message_bytes_max }
    }

    /// The channel's name.
    #[must_use]
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    /// Bytes of the largest message the channel takes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }
}

/// Where a value is decoded, and how much a message may demand.
#[derive(Debug)]
pub struct DecodeContext<'a> {
    channel: &'a str,
    message_bytes_max: usize,
    depth_max: usize,
    empty_elements_max: usize,
}

impl<'a> DecodeContext<'a> {
    /// The context of a channel, whose messages have at most `message_bytes_max` bytes.
    #[must_use]
    pub fn new(channel: &'a str, message_bytes_max: usize) -> Self {
        Self {
            channel,
            message_bytes_max,
            depth_max: DECODE_DEPTH_MAX,
            empty_elements_max: DECODE_EMPTY_ELEMENTS_MAX,
        }
    }

    /// Lets values nest `depth_max` levels deep instead of [`DECODE_DEPTH_MAX`]. More takes deeper recursive types and
    /// needs a larger stack.
    #[must_use]
    pub fn with_depth_max(mut self, depth_max: usize) -> Self {
        self.depth_max = depth_max;
        self
    }

    /// Lets a message have so many elements without bytes of their own, instead of [`DECODE_EMPTY_ELEMENTS_MAX`]. More
    /// takes a longer `Vec<()>`, and costs its time.
    #[must_use]
    pub fn with_empty_elements_max(mut self, empty_elements_max: usize) -> Self {
        self.empty_elements_max = empty_elements_max;
        self
    }

    /// The channel's name.
    #[must_use]
    pub fn channel(&self) -> &'a str {
        self.channel
    }

    /// Bytes of the largest message the channel takes.
    #[must_use]
    pub fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    /// How deep a value may nest.
    #[must_use]
    pub fn depth_max(&self) -> usize {
        self.depth_max
    }

    /// Elements a message may hold beyond one per byte.
    #[must_use]
    pub fn empty_elements_max(&self) -> usize {
        self.empty_elements_max
    }
}
