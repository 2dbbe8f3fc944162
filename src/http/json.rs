//! A check of JSON texts (RFC 8259).

/// Returns true if a text is JSON in which at most [`MAX_DEPTH`] objects and arrays contain each other.
pub(crate) fn is_json(text: &str) -> bool {
    let mut scan = Scan { rest: text.as_bytes() };
    scan.value(MAX_DEPTH).is_some() && scan.next_token().is_none()
}

/// The rest of a text. The methods skip a part of it, and return `None` if the part is not there.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    /// Skips a value in which at most `depth` objects and arrays contain each other.
    fn value(&mut self, depth: usize) -> Option<()> {
        match self.next_token()? {
            b'{' => self.members(b'}', depth.checked_sub(1)?),
            b'[' => self.members(b']', depth.checked_sub(1)?),
            b'"' => self.string(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            _ => self.number(),
        }
    }

    /// Skips an object or an array that ends with `end`.
    fn members(&mut self, end: u8, depth: usize) -> Option<()> {
        self.byte()?;
        if self.next_token()? == end {
            return self.byte().map(drop);
        }
        loop {
            if end == b'}' {
                self.next_token()?;
                self.string()?;
                self.next_token()?;
                self.literal(b":")?;
            }
            self.value(depth)?;
            self.next_token()?;
            match self.byte()? {
                b',' => {}
                byte => return (byte == end).then_some(()),
            }
        }
    }

    fn string(&mut self) -> Option<()> {
        self.literal(b"\"")?;
        loop {
            match self.byte()? {
                b'"' => return Some(()),
                b'\\' => match self.byte()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        (0..4).try_for_each(|_| self.byte()?.is_ascii_hexdigit().then_some(()))?
                    }
                    _ => return None,
                },
                0..b' ' => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        let _ = self.literal(b"-");
        if let [b'0', _, ..] = self.digits()? {
            // No digit follows a zero.
            return None;
        }
        if self.literal(b".").is_some() {
            self.digits()?;
        }
        if self.literal(b"e").or_else(|| self.literal(b"E")).is_some() {
            let _ = self.literal(b"+").or_else(|| self.literal(b"-"));
            self.digits()?;
        }
        Some(())
    }

    /// Skips one digit or more, and returns them.
    fn digits(&mut self) -> Option<&[u8]> {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at(count);
        self.rest = rest;
        (count > 0).then_some(digits)
    }

    fn literal(&mut self, literal: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(literal)?;
        Some(())
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// Skips white space, and returns the byte after it.
    fn next_token(&mut self) -> Option<u8> {
        while let [b' ' | b'\t' | b'\r' | b'\n', rest @ ..] = self.rest {
            self.rest = rest;
        }
        self.rest.first().copied()
    }
}

/// The number of objects and arrays that may contain each other.
const MAX_DEPTH: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_json_by_its_grammar() {
        for text in [
            "0",
            "-0",
            "21.5",
            "-1.5e-7",
            "1E+2",
            "10",
            "true",
            "false",
            "null",
            "\"\"",
            "\"ä\\u00e4\\n\"",
            "[]",
            "{}",
            " [ 1 , 2 ] ",
            "{\"a\":1}",
            "\t{\r\n\"a\" : [ { } , [ ] ] , \"b\" : null }\n",
        ] {
            assert!(is_json(text), "{text}");
        }
        for text in [
            "",
            " ",
            "01",
            "-",
            "1.",
            ".5",
            "1e",
            "+1",
            "0x1",
            "1 2",
            "tru",
            "truee",
            "nul",
            "NaN",
            "\"",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "'a'",
            "[",
            "]",
            "[1,]",
            "[,1]",
            "[1 2]",
            "{",
            "{}}",
            "{\"a\"}",
            "{\"a\":}",
            "{a:1}",
            "{\"a\":1,}",
            "{\"a\":1]",
            "[1}",
            "\u{feff}1",
            "1\u{a0}",
        ] {
            assert!(!is_json(text), "{text}");
        }
    }

    #[test]
    fn the_depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(is_json(&nested(MAX_DEPTH)));
        assert!(!is_json(&nested(MAX_DEPTH + 1)));
        assert!(!is_json(&"[".repeat(1_000_000)));
        assert!(!is_json(&"{\"a\":".repeat(1_000_000)));
    }

    #[test]
    fn what_another_parser_accepts_is_json() {
        let mut random = fastrand::Rng::with_seed(3);
        let parts = [
            "{", "}", "[", "]", "\"a\"", ":", ",", "1", "-2.5", "true", "null", " ", "\"",
            "\\u0041", "0",
        ];
        let mut valid = 0;
        for _ in 0..100_000 {
            let parts = (0..random.usize(1..8)).map(|_| *random.choice(&parts).unwrap());
            let text: String = parts.collect();
            if is_json(&text) {
                valid += 1;
                assert!(text.parse::<tinyjson::JsonValue>().is_ok(), "{text}");
            }
        }
        assert!(valid > 1000, "{valid}");
    }
}
