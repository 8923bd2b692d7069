//! Encodes host names beyond ASCII as clients send them (RFC 5891, RFC 3492). Only for advice in messages: no
//! request is matched by it.

use unicode_normalization::UnicodeNormalization;

/// Returns the name as clients send it, or `None` if it cannot be encoded.
pub(super) fn host(name: &str) -> Option<String> {
    let name: String = name.chars().flat_map(char::to_lowercase).nfkc().collect();
    let labels: Option<Vec<String>> = name.split('.').map(label).collect();
    labels.map(|labels| labels.join("."))
}

fn label(label: &str) -> Option<String> {
    let sound = |char: char| char.is_alphanumeric() || char == '-' || !char.is_ascii();
    if label.is_empty() || !label.chars().all(sound) {
        return None;
    }
    if label.is_ascii() { Some(label.to_owned()) } else { Some(format!("xn--{}", encode(label)?)) }
}

/// RFC 3492, 6.3, without the prefix `xn--`.
fn encode(label: &str) -> Option<String> {
    const FIRST: u32 = 128;
    let mut text: String = label.chars().filter(char::is_ascii).collect();
    let basic = u32::try_from(text.len()).ok()?;
    if basic > 0 {
        text.push('-');
    }
    let (mut next, mut delta, mut bias, mut done) = (FIRST, 0u32, 72, basic);
    let total = u32::try_from(label.chars().count()).ok()?;
    while done < total {
        let least = label.chars().map(u32::from).filter(|char| *char >= next).min()?;
        delta = delta.checked_add((least - next).checked_mul(done + 1)?)?;
        next = least;
        for char in label.chars().map(u32::from) {
            if char < next {
                delta = delta.checked_add(1)?;
            } else if char == next {
                put_number(&mut text, delta, bias);
                bias = adapt(delta, done + 1, done == basic);
                (delta, done) = (0, done + 1);
            }
        }
        (delta, next) = (delta + 1, next + 1);
    }
    Some(text)
}

const BASE: u32 = 36;
const LEAST: u32 = 1;
const MOST: u32 = 26;

fn put_number(text: &mut String, mut number: u32, bias: u32) {
    let digit = |value: u32| char::from_digit(value, BASE).unwrap_or_default();
    // Letters come before digits in this encoding.
    let letter = |value: u32| if value < 26 { digit(value + 10) } else { digit(value - 26) };
    let mut place = BASE;
    loop {
        let threshold = place.saturating_sub(bias).clamp(LEAST, MOST);
        if number < threshold {
            break;
        }
        text.push(letter(threshold + (number - threshold) % (BASE - threshold)));
        number = (number - threshold) / (BASE - threshold);
        place += BASE;
    }
    text.push(letter(number));
}

fn adapt(delta: u32, done: u32, is_first: bool) -> u32 {
    let mut delta = if is_first { delta / 700 } else { delta / 2 };
    delta += delta / done;
    let mut steps = 0;
    while delta > (BASE - LEAST) * MOST / 2 {
        delta /= BASE - LEAST;
        steps += BASE;
    }
    steps + (BASE - LEAST + 1) * delta / (delta + 38)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_clients_send_them() {
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(host(name).as_deref(), expected, "{name}");
        };
        check("b\u{fc}cher.example", Some("xn--bcher-kva.example"));
        check("B\u{dc}CHER.Example", Some("xn--bcher-kva.example"));
        check("m\u{fc}nchen.de", Some("xn--mnchen-3ya.de"));
        check("\u{4f8b}\u{3048}.\u{30c6}\u{30b9}\u{30c8}", Some("xn--r8jz45g.xn--zckzah"));
        check("\u{43f}\u{440}\u{438}\u{43c}\u{435}\u{440}.example", Some("xn--e1afmkfd.example"));
        check("\u{e9} \u{e9}.example", None);
        check("\u{e9}..example", None);
    }
}
