//! Moments, as policy files and the command line write them.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use toml::de::DeValue;

/// Reads a moment: a date, which means 00:00 UTC of that day, or a date-time with its offset.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use netchan::policy::parse_time;
///
/// assert_eq!(parse_time("1970-01-02")?, SystemTime::UNIX_EPOCH + Duration::from_secs(24 * 60 * 60));
/// assert_eq!(parse_time("2027-01-01T01:00:00+01:00")?, parse_time("2027-01-01")?);
/// # Ok::<(), netchan::policy::TimeError>(())
/// ```
///
/// # Errors
///
/// When the text is something else, or names no one moment.
pub fn parse_time(text: &str) -> Result<SystemTime, TimeError> {
    let value = DeValue::parse(text.trim()).map_err(|_| TimeError::NotATime)?;
    time_of(value.get_ref())
}

pub(super) fn time_of(value: &DeValue<'_>) -> Result<SystemTime, TimeError> {
    let DeValue::Datetime(written) = value else { return Err(TimeError::NotATime) };
    let text = match (written.date, written.time, written.offset) {
        (Some(_), Some(_), Some(_)) => written.to_string(),
        (Some(_), None, None) => format!("{written}T00:00:00Z"),
        (Some(_), ..) => return Err(TimeError::NoOffset),
        (None, ..) => return Err(TimeError::NoDate),
    };
    let moment: Timestamp = text.parse().map_err(|_| TimeError::TooLate)?;
    // What was over before clocks began is over all the same, and not every system can say when that was.
    let since_epoch = Duration::try_from(moment.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(since_epoch).ok_or(TimeError::TooLate)
}

/// A moment for people, to the second.
pub(super) fn format_time(time: SystemTime) -> String {
    let moment = Timestamp::try_from(time).unwrap_or(Timestamp::MAX);
    Timestamp::from_second(moment.as_second()).unwrap_or(moment).to_string()
}

/// Why a text names no moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeError {
    /// It is something else.
    #[error("not a date; write 2027-01-01, or 2027-01-01T18:00:00Z, without quotes in a file")]
    NotATime,
    /// It is a date-time that has no offset, and so is another moment in each zone.
    #[error(
        "a date-time without its offset; write 2027-01-01T18:00:00Z for UTC, or +02:00 in place of the Z"
    )]
    NoOffset,
    /// It is a time of day.
    #[error("a time of day without a date; write 2027-01-01T18:00:00Z")]
    NoDate,
    /// It is beyond what can be reckoned with.
    #[error("too late to be reckoned with; for a key that does not expire, leave it away")]
    TooLate,
}
