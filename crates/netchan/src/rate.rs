//! So much in a second, on average.

use std::time::Duration;

/// A bucket of tokens that fills at a steady rate. Time is an argument.
#[derive(Debug)]
pub(crate) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    /// When it was last looked at, since whatever the caller counts from.
    at: Duration,
}

impl TokenBucket {
    /// Full at the start. At least one in a second, and one at once.
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: f64::from(per_second.max(1)), burst, tokens: burst, at: Duration::ZERO }
    }

    /// Takes a token.
    ///
    /// # Errors
    /// Without one, how long until there is one.
    pub(crate) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let passed = now.saturating_sub(self.at);
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed.as_secs_f64() * self.per_second).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / self.per_second))
    }

    /// Takes a token for what has happened already, on credit if there is none; says how long until that is paid.
    pub(crate) fn owe(&mut self, now: Duration) -> Option<Duration> {
        if self.take(now).is_ok() {
            return None;
        }
        self.tokens -= 1.0;
        Some(Duration::from_secs_f64(-self.tokens / self.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = TokenBucket::new(100, 5);
        assert!((0..5).all(|_| bucket.take(Duration::ZERO).is_ok()));
        let wait = bucket.take(Duration::ZERO).unwrap_err();
        assert_eq!(wait, MILLI * 10);
        assert!(bucket.take(wait).is_ok());
        let taken = (0..10_000).filter(|n| bucket.take(wait + MILLI * *n).is_ok()).count();
        assert!((998..=1_001).contains(&taken), "ten seconds at a hundred: {taken}");
    }

    #[test]
    fn what_is_owed_is_paid() {
        let mut bucket = TokenBucket::new(100, 1);
        let (mut now, mut happened) = (Duration::ZERO, 0);
        while now < Duration::from_secs(1) {
            happened += 1;
            now += bucket.owe(now).unwrap_or_default();
        }
        assert!((100..=102).contains(&happened), "{happened}");
    }

    #[test]
    fn it_does_not_overflow_and_time_does_not_go_back() {
        let mut bucket = TokenBucket::new(10, 2);
        let late = Duration::from_secs(1_000);
        assert!((0..2).all(|_| bucket.take(late).is_ok()));
        assert!(bucket.take(Duration::ZERO).is_err());
        assert!(bucket.take(late).is_err());
        assert!(TokenBucket::new(0, 0).take(Duration::ZERO).is_ok());
    }
}
