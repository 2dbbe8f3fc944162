//! Entity tags in conditional requests (RFC 9110 §8.8.3, §13.1).

/// Returns true if `list`, the value of an If-None-Match header, contains `tag` or is `*`. The comparison is
/// weak: it ignores `W/`. `tag` must not contain a comma.
pub(crate) fn is_listed(tag: &str, list: &str) -> bool {
    let mut listed = list.split(',').map(str::trim);
    listed.any(|listed| listed == "*" || opaque(listed) == opaque(tag))
}

/// Returns true if a tag is weak: two contents with this tag may differ in their bytes.
pub(crate) fn is_weak(tag: &str) -> bool {
    tag.starts_with(WEAK)
}

/// Returns a tag without the mark of a weak one.
fn opaque(tag: &str) -> &str {
    tag.strip_prefix(WEAK).unwrap_or(tag)
}

/// The mark at the start of a weak tag.
pub(crate) const WEAK: &str = "W/";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_found_in_a_list_whether_it_is_weak_or_strong() {
        for (list, expected) in [
            ("\"a\"", true),
            ("W/\"a\"", true),
            ("\"b\", \"a\"", true),
            ("\"b\",W/\"a\" ,\"c\"", true),
            ("*", true),
            ("", false),
            ("a", false),
            ("\"A\"", false),
            ("w/\"a\"", false),
            ("\"b\", \"c\"", false),
        ] {
            assert_eq!(is_listed("\"a\"", list), expected, "{list}");
            assert_eq!(is_listed("W/\"a\"", list), expected, "{list}");
        }
    }
}
