//! Durations as people write them: `30s`, `1m 30s`, `500ms`.

use std::time::Duration;

/// The units, largest first, in milliseconds.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Reads one: whole numbers, each with a unit (d, h, m, s, ms), larger units first, each once.
///
/// # Errors
/// What is wrong with it, and how it would be right.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("it is empty; write for instance `30s`, `1m 30s` or `500ms`".to_owned());
    }
    let mut millis = 0_u64;
    let mut smaller_than = u64::MAX;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        if number.is_empty() {
            return Err(
                "a whole number and its unit are expected, as in `1m 30s` or `500ms`".into()
            );
        }
        let letters =
            after.len() - after.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, after) = after.split_at(letters);
        let Some((_, length)) = UNITS.iter().find(|(known, _)| *known == unit) else {
            return Err(match unit {
                "" if after.starts_with('.') => "fractions are not read; write `1500ms`".to_owned(),
                "" => format!("`{number}` has no unit; write for instance `{number}s`"),
                _ => format!("`{unit}` is no unit; d, h, m, s and ms are"),
            });
        };
        if *length >= smaller_than {
            return Err("larger units go first, and each only once, as in `1m 30s`".to_owned());
        }
        smaller_than = *length;
        millis = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*length))
            .and_then(|part| millis.checked_add(part))
            .ok_or("that is longer than any clock counts")?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(millis))
}

/// Prints one for people, to a tenth of a second below a minute.
pub(crate) fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_strictly() {
        for (text, millis) in [
            ("30s", 30_000),
            ("1m 30s", 90_000),
            ("1m30s", 90_000),
            ("500ms", 500),
            ("2h", 7_200_000),
            ("1d 1h 1m 1s 1ms", 90_061_001),
            ("0s", 0),
            (" 5s ", 5000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for (text, why) in [
            ("", "empty"),
            ("30", "has no unit"),
            ("-5s", "whole number"),
            ("1.5s", "fractions"),
            ("1y", "no unit; d, h"),
            ("30S", "has no unit"),
            ("30s 1m", "larger units go first"),
            ("1s 1s", "each only once"),
            ("s", "whole number"),
            ("99999999999999999999s", "longer than any clock"),
            ("5s,", "whole number"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn durations_are_shown_for_people() {
        for (millis, shown) in [
            (4_200, "4.2 s"),
            (90_000, "1 m 30 s"),
            (3_660_000, "1 h 01 m"),
            (90_000_000, "1 d 01 h"),
        ] {
            assert_eq!(show(Duration::from_millis(millis)), shown);
        }
    }
}
