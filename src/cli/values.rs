//! Parsing and formatting of option values: times, sizes, counts and choices.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub(super) fn set_path(target: &mut Option<PathBuf>, text: &str) -> Result<(), String> {
    *target = Some(text.into());
    Ok(())
}

pub(super) fn show_path(path: &Option<PathBuf>) -> String {
    path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

pub(super) fn set_time(target: &mut Option<Duration>, text: &str) -> Result<(), String> {
    *target = Some(parse_time(text)?).filter(|time| !time.is_zero());
    Ok(())
}

/// Parses a time such as `250ms`, `25s`, `2m`, `1h` or `0`.
///
/// # Errors
/// A text that says what is expected.
pub fn parse_time(text: &str) -> Result<Duration, String> {
    let expected = || "expected a time such as 250ms, 25s, 2m or 1h, or 0 for off".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(expected()),
    };
    let milliseconds = number.checked_mul(milliseconds).filter(|time| *time <= LONGEST_TIME_MS);
    milliseconds.map(Duration::from_millis).ok_or_else(|| "expected 1000h at most".to_owned())
}

/// Formats a time so that [`parse_time`] can read it; `None` is written as `0`.
pub fn show_time(time: Option<Duration>) -> String {
    match u64::try_from(time.unwrap_or_default().as_millis()).unwrap_or(u64::MAX) {
        0 => "0".to_owned(),
        time if time % 3_600_000 == 0 => format!("{}h", time / 3_600_000),
        time if time % 60_000 == 0 => format!("{}m", time / 60_000),
        time if time % 1_000 == 0 => format!("{}s", time / 1_000),
        time => format!("{time}ms"),
    }
}

fn parse_size(text: &str, range: RangeInclusive<usize>) -> Result<usize, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'k' | b'K') => (&text[..text.len() - 1], 10),
        Some(b'm' | b'M') => (&text[..text.len() - 1], 20),
        _ => (text, 0),
    };
    let number: usize = number
        .parse()
        .map_err(|_| "expected a size in bytes, such as 65536, 64k or 1m".to_owned())?;
    let (least, most) = (show_size(*range.start()), show_size(*range.end()));
    number
        .checked_mul(1 << shift)
        .filter(|size| range.contains(size))
        .ok_or_else(|| format!("expected from {least} to {most}"))
}

pub(super) fn set_size(
    target: &mut usize,
    text: &str,
    range: RangeInclusive<usize>,
) -> Result<(), String> {
    *target = parse_size(text, range)?;
    Ok(())
}

/// Sets an optional size; `auto` means `None`.
pub(super) fn set_size_or_auto(target: &mut Option<usize>, text: &str) -> Result<(), String> {
    *target = match text {
        "auto" => None,
        text => Some(parse_size(text, 64 << 10..=1 << 30)?),
    };
    Ok(())
}

pub(super) fn show_size_or_auto(size: Option<usize>) -> String {
    size.map_or_else(|| "auto".to_owned(), show_size)
}

pub(super) fn set_count(
    target: &mut usize,
    text: &str,
    range: RangeInclusive<usize>,
) -> Result<(), String> {
    let (least, most) = (range.start(), range.end());
    let count = text.parse().ok().filter(|count| range.contains(count));
    *target = count.ok_or_else(|| format!("expected a number from {least} to {most}"))?;
    Ok(())
}

/// Sets an optional number; 0 means `None`.
pub(super) fn set_optional<N: FromStr>(target: &mut Option<N>, text: &str) -> Result<(), String> {
    *target = match text.parse() {
        Ok(number) => Some(number),
        Err(_) if text == "0" => None,
        Err(_) => return Err("expected a number from 0 to 4294967295".to_owned()),
    };
    Ok(())
}

pub(super) fn show_optional<N: ToString>(number: Option<N>) -> String {
    number.map_or_else(|| "0".to_owned(), |number| number.to_string())
}

pub(super) fn show_size(size: usize) -> String {
    match size {
        size if size > 0 && size % (1 << 20) == 0 => format!("{}m", size >> 20),
        size if size > 0 && size % (1 << 10) == 0 => format!("{}k", size >> 10),
        size => size.to_string(),
    }
}

pub(super) fn set_choice<T: Copy>(
    target: &mut T,
    choices: &[(&str, T)],
    text: &str,
) -> Result<(), String> {
    let chosen = choices.iter().find(|(name, _)| *name == text);
    let names = &mut choices.iter().map(|(name, _)| *name);
    *target = chosen.ok_or_else(|| expected_one_of(names))?.1;
    Ok(())
}

fn expected_one_of(names: &mut dyn Iterator<Item = &str>) -> String {
    let names: Vec<&str> = names.collect();
    format!("expected one of {}", names.join(", "))
}

pub(super) fn show_choice<T: PartialEq>(value: &T, choices: &[(&str, T)]) -> String {
    let name = choices.iter().find(|(_, choice)| choice == value).map(|(name, _)| *name);
    name.unwrap_or_default().to_owned()
}

const LONGEST_TIME_MS: u64 = 1000 * 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes_are_parsed_and_formatted() {
        for (text, written) in [
            ("0", "0"),
            ("0s", "0"),
            ("250ms", "250ms"),
            ("90s", "90s"),
            ("120s", "2m"),
            ("1h", "1h"),
        ] {
            assert_eq!(show_time(Some(parse_time(text).unwrap())), written, "{text}");
        }
        for text in
            ["", "5", "s", "-1s", "1.5s", "5 s", "1d", "99999999999h", "18446744073709551616s"]
        {
            assert!(parse_time(text).unwrap_err().starts_with("expected"), "{text}");
        }
        for (text, written) in [("64k", "64k"), ("65536", "64k"), ("1M", "1m"), ("1000", "1000")] {
            assert_eq!(show_size(parse_size(text, 1..=1 << 30).unwrap()), written, "{text}");
        }
        for text in ["", "k", "-1", "1g", "2048m", "0", "99999999999999999999"] {
            assert!(parse_size(text, 1..=1 << 30).unwrap_err().starts_with("expected"), "{text}");
        }
    }
}
