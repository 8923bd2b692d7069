//! Chooses the format of a rejection from the request's `Accept` fields.

use http::{HeaderMap, HeaderValue, header};

use super::ErrorFormat;

/// restic accepts a media type of its own, and shows only the status line.
const RESTIC: &[u8] = b"application/vnd.x.restic.rest.";

/// Problem details if they are listed; else text if it is preferred over JSON.
pub fn preferred(headers: &HeaderMap) -> ErrorFormat {
    // Most values, such as `*/*`, are too short to list one of the formats.
    let values = headers.get_all(header::ACCEPT).iter().map(HeaderValue::as_bytes);
    let kinds =
        values.filter(|value| value.len() >= "text/plain".len()).flat_map(|v| v.split(|b| *b == b','));
    let (mut text, mut json) = (0, 0);
    for kind in kinds {
        let mut parts = kind.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next().unwrap_or_default();
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("application/problem+json") {
            return ErrorFormat::Problem;
        }
        if name.starts_with(RESTIC) {
            return ErrorFormat::StatusLine;
        }
        if is("text/plain") {
            text = text.max(quality(parts));
        } else if is("application/json") {
            json = json.max(quality(parts));
        }
    }
    if text > json { ErrorFormat::Text } else { ErrorFormat::Json }
}

/// The quality value in thousandths (RFC 9110, section 12.4.2). A malformed one counts as 0.
fn quality<'a>(mut parameters: impl Iterator<Item = &'a [u8]>) -> u32 {
    let value = parameters.find_map(|parameter| {
        let (name, value) = parameter.split_at_checked(2)?;
        name.eq_ignore_ascii_case(b"q=").then_some(value)
    });
    let Some(value) = value else { return 1000 };
    let number: Option<f32> = str::from_utf8(value).ok().and_then(|value| value.parse().ok());
    let number = number.filter(|number| (0.0..=1.0).contains(number)).unwrap_or_default();
    (number * 1000.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_sent_when_preferred() {
        let check = |accept: &'static str, expected: ErrorFormat| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]);
            assert_eq!(preferred(&headers), expected, "{accept}");
        };
        use ErrorFormat::{Json, Problem, StatusLine, Text};
        check("*/*", Json);
        check("application/json", Json);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Json);
        check("application/json, text/plain, */*", Json);
        check("application/json;q=0.5, text/plain", Text);
        check("application/json, text/plain;q=0.5", Json);
        check("text/plain", Text);
        check("Text/Plain; charset=utf-8", Text);
        check("text/plain, */*", Text);
        check("text/plain;q=0", Json);
        check("text/plain;q=x", Json);
        check("text/*, text/html", Json);
        check("text/plain, application/problem+json", Problem);
        check("application/vnd.x.restic.rest.v2", StatusLine);
        check("", Json);
    }
}
