//! The times that the server broadcasts.

/// Parses a time that has exactly the form `2019-08-18T07:34:21.1234567-04:00`. Returns nanoseconds since
/// 1970.
pub fn unix_nanoseconds(text: &str) -> u64 {
    let form = "dddd-dd-ddTdd:dd:dd.ddddddd+dd:dd";
    let fits = |(byte, form): (u8, u8)| match form {
        b'd' => byte.is_ascii_digit(),
        b'+' => byte == b'+' || byte == b'-',
        _ => byte == form,
    };
    assert!(text.len() == form.len() && text.bytes().zip(form.bytes()).all(fits), "{text}");
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 0000-03-01, so that a leap day is the last day of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    let sign = if &text[27..28] == "-" { -1 } else { 1 };
    let offset = sign * (number(28..30) * 3600 + number(31..33) * 60);
    let clock = number(11..13) * 3600 + number(14..16) * 60 + number(17..19);
    let seconds = (days - 719_468) * 86_400 + clock - offset;
    (seconds * 1_000_000_000 + number(20..27) * 100) as u64
}
