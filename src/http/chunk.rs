//! The chunks of a response body of unknown length (RFC 9112 §7.1).

use std::rc::Rc;

/// Encodes `data` as a chunk. No data is no chunk, because a chunk without data would end the body.
pub(crate) fn encode(mut data: String) -> Rc<[u8]> {
    if data.is_empty() {
        return Rc::default();
    }
    let head = format!("{:x}\r\n", data.len());
    data.insert_str(0, &head);
    data.push_str("\r\n");
    data.into_bytes().into()
}

/// Returns the data of an encoded chunk.
pub(crate) fn data_of(chunk: &[u8]) -> &[u8] {
    let head_bytes = chunk.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    chunk[head_bytes..].strip_suffix(b"\r\n").unwrap_or_default()
}

/// The chunk without data that ends a body. A body that ends without it is incomplete.
pub(crate) const LAST: &[u8] = b"0\r\n\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_data_is_no_chunk() {
        assert_eq!(*encode(String::new()), *b"");
    }

    #[test]
    fn a_chunk_has_the_length_of_its_data_before_it_and_an_end_of_line_after_it() {
        for (data, chunk) in [
            (":\n\n".to_owned(), "3\r\n:\n\n\r\n".to_owned()),
            ("\r\n".to_owned(), "2\r\n\r\n\r\n".to_owned()),
            ("x".repeat(0x1a2b), format!("1a2b\r\n{}\r\n", "x".repeat(0x1a2b))),
        ] {
            let encoded = encode(data.clone());
            assert_eq!(&*encoded, chunk.as_bytes());
            assert_eq!(data_of(&encoded), data.as_bytes());
        }
    }
}
