//! Go's string syntax, with `/` and `|` as further quotes.

/// The text between the quotes, its escapes resolved.
pub(super) fn unquote(quoted: &str) -> Option<String> {
    let quote = quoted.chars().next()?;
    let inner = quoted.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        if next == quote || next == '\n' {
            return None;
        }
        if next != '\\' {
            push(&mut bytes, next);
            continue;
        }
        match rest.next()? {
            'a' => bytes.push(0x07),
            'b' => bytes.push(0x08),
            'f' => bytes.push(0x0C),
            'n' => bytes.push(b'\n'),
            'r' => bytes.push(b'\r'),
            't' => bytes.push(b'\t'),
            'v' => bytes.push(0x0B),
            '\\' => bytes.push(b'\\'),
            // One byte, which need not be UTF-8 by itself.
            'x' => bytes.push(u8::try_from(number(&mut rest, 16, 2)?).ok()?),
            'u' => push(&mut bytes, char::from_u32(number(&mut rest, 16, 4)?)?),
            'U' => push(&mut bytes, char::from_u32(number(&mut rest, 16, 8)?)?),
            first @ '0'..='7' => {
                let value = first.to_digit(8)? * 64 + number(&mut rest, 8, 2)?;
                bytes.push(u8::try_from(value).ok()?);
            }
            escaped if escaped == quote => push(&mut bytes, quote),
            _ => return None,
        }
    }
    // Names and labels are UTF-8 (protobuf), so a value that is not matches none of them.
    String::from_utf8(bytes).ok()
}

fn push(bytes: &mut Vec<u8>, c: char) {
    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
}

fn number(digits: &mut std::str::Chars<'_>, base: u32, count: usize) -> Option<u32> {
    let mut value = 0u32;
    for _ in 0..count {
        let digit = digits.next()?.to_digit(base)?;
        value = value.checked_mul(base)?.checked_add(digit)?;
    }
    Some(value)
}
