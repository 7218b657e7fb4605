//! Numbers for people.

use std::time::Duration;

/// A length in bytes with three digits: `512 B`, `1.21 MB`, `34.5 GB` (powers of 1000).
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count} B");
    }
    // Hundredths of the unit, so that no floating point is needed.
    let mut hundredths = u128::from(count) * 100;
    let mut unit = "B";
    for next in UNITS {
        if hundredths < 100_000 {
            break;
        }
        hundredths /= 1000;
        unit = next;
    }
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    match whole {
        0..10 => format!("{whole}.{rest:02} {unit}"),
        10..100 => format!("{whole}.{} {unit}", rest / 10),
        _ => format!("{whole} {unit}"),
    }
}

/// A time with what matters of it: `0.31 s`, `12.4 s`, `3 min 4 s`.
#[must_use]
pub fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.2} s", time.as_secs_f64()),
        10..60 => format!("{:.1} s", time.as_secs_f64()),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_digits() {
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (1_210_000, "1.21 MB"),
            (34_560_000_000, "34.5 GB"),
            (345_600_000, "345 MB"),
            (u64::MAX, "18.4 EB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration(Duration::from_millis(312)), "0.31 s");
        assert_eq!(duration(Duration::from_secs(184)), "3 min 4 s");
    }
}
