//! A decoder of chunked bodies (RFC 9112 §7.1).

/// The decoder of one body, which arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Chunks {
    /// The number of bytes of the current chunk that have not arrived yet.
    left: usize,
    /// True if the next line is the empty one after the data of a chunk.
    is_after_data: bool,
    /// The part of the current line that has arrived.
    line: Vec<u8>,
    has_ended: bool,
}

impl Chunks {
    /// Removes everything but the data of the chunks from `bytes`, the next piece of the body.
    ///
    /// # Errors
    /// The violated rule, if the body is not chunked.
    pub(crate) fn decode(&mut self, bytes: &mut Vec<u8>) -> Result<(), &'static str> {
        let (mut position, mut kept) = (0, 0);
        while position < bytes.len() && !self.has_ended {
            let count = self.left.min(bytes.len() - position);
            bytes.copy_within(position..position + count, kept);
            (position, kept, self.left) = (position + count, kept + count, self.left - count);
            if self.left > 0 {
                break;
            }
            let rest = &bytes[position..];
            let end = rest.iter().position(|byte| *byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            if self.line.len() + part.len() > MAX_LINE_BYTES {
                return Err("the line before a chunk is too long");
            }
            self.line.extend_from_slice(part);
            position += part.len();
            if end.is_some() {
                position += 1;
                self.end_line()?;
            }
        }
        bytes.truncate(kept);
        Ok(())
    }

    /// Returns true once the last chunk has been decoded.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    /// Parses the complete line before a chunk, or after its data.
    fn end_line(&mut self) -> Result<(), &'static str> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        if std::mem::take(&mut self.is_after_data) {
            return if line.is_empty() { Ok(()) } else { Err("a chunk is longer than its size") };
        }
        // Extensions of a chunk are ignored.
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_number = size.iter().all(u8::is_ascii_hexdigit);
        let size = str::from_utf8(size).ok().filter(|_| is_number);
        let size = size.and_then(|size| usize::from_str_radix(size, 16).ok());
        self.left = size.ok_or("a chunk has no valid size")?;
        // The trailers after the last chunk are not needed.
        self.has_ended = self.left == 0;
        self.is_after_data = true;
        Ok(())
    }
}

const MAX_LINE_BYTES: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `body` in pieces of `size` bytes. Returns the data, and true if the body has ended.
    fn decoded(body: &[u8], size: usize) -> Result<(Vec<u8>, bool), &'static str> {
        let mut chunks = Chunks::default();
        let mut data = Vec::new();
        for piece in body.chunks(size) {
            let mut piece = piece.to_vec();
            chunks.decode(&mut piece)?;
            data.extend(piece);
        }
        Ok((data, chunks.has_ended()))
    }

    #[test]
    fn the_data_of_chunks_does_not_depend_on_the_size_of_pieces() {
        let long = format!("1a4\r\n{}\r\n", "x".repeat(0x1a4));
        for (body, data, has_ended) in [
            ("3\r\n:\n\n\r\n0A;a=b\r\ndata: x\r\n\n\r\n0\r\n\r\n", ":\n\ndata: x\r\n\n", true),
            ("3\r\n:\n\n\r\n000\r\nTrailer: 1\r\n\r\n", ":\n\n", true),
            ("5\r\ndata:\r\n4\r\n x\n\n", "data: x\n\n", false),
            ("5\r\nda", "da", false),
            (&long, &long[5..][..0x1a4], false),
        ] {
            for size in 1..=body.len() {
                let expected = (data.as_bytes().to_vec(), has_ended);
                assert_eq!(decoded(body.as_bytes(), size), Ok(expected), "{body:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_not_chunked_is_an_error() {
        let long = "1".repeat(MAX_LINE_BYTES + 1);
        for body in [
            "data: x\n\n",
            "\r\n",
            "-1\r\n",
            "+1\r\nx",
            "1\r\nxy\r\n",
            "fffffffffffffffff\r\n",
            &long,
        ] {
            for size in 1..=body.len() {
                assert!(decoded(body.as_bytes(), size).is_err(), "{body:?} by {size}");
            }
        }
    }
}
