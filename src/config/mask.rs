//! Masks what may be a secret in the lines of a configuration that are shown. The text need not be TOML: it
//! is shown most often when it is not.

use crate::authz::{administration::names, secret::redact};

/// Parts of keys whose values may be secrets, including misspelled keys.
const SECRET_KEY_PARTS: [&str; 8] =
    ["auth", "token", "secret", "passw", "credential", "bearer", "cookie", "api_key"];

/// Returns a line fit to be shown: without the values of keys that may be secret (unless they are
/// references), user information and tokens. For a line within a value of several lines, see
/// [`continued_secrets`].
pub(super) fn mask_secrets(line: &str) -> String {
    let line = line.trim_end();
    let masked = match secret_value(line) {
        Some(at) => format!("{} ...", without_user_info(line[..at].trim_end())),
        None => without_user_info(line),
    };
    redact(&masked).chars().map(|c| if names::is_deceptive(c) { ' ' } else { c }).collect()
}

/// Whether each line of a text may continue a secret that began on a line above, so that nothing of it may be
/// shown.
pub(super) fn continued_secrets(text: &str) -> Vec<bool> {
    let mut open: Option<ValueEnd> = None;
    let continues = |line: &str| {
        match open {
            Some(ValueEnd::Delimiter(delimiter)) => {
                open = open.filter(|_| !line.contains(delimiter));
                return true;
            }
            Some(ValueEnd::NextStatement) if !begins_statement(line) => return true,
            Some(ValueEnd::NextStatement) | None => {}
        }
        open = secret_value(line).and_then(|at| value_end(line[at..].trim_matches([' ', '\t'])));
        false
    };
    text.lines().map(continues).collect()
}

/// Where a value of several lines ends.
#[derive(Clone, Copy)]
enum ValueEnd {
    /// After this delimiter of a multi-line string.
    Delimiter(&'static str),
    /// Before the next key or table: an array, or not TOML.
    NextStatement,
}

/// Where the first value begins on a line that may be secret.
fn secret_value(line: &str) -> Option<usize> {
    let is_secret = |key: &str| {
        let folded = key.to_ascii_lowercase();
        SECRET_KEY_PARTS.iter().any(|part| folded.contains(part))
    };
    let is_reference = |value: &str| {
        let target = value.trim_start_matches(['=', ' ', '\t', '"', '\'']);
        target.starts_with("file:") || target.starts_with("env:")
    };
    if line.contains('=') {
        // The keys of an inline table are separated by commas.
        let mut start = 0;
        for (at, separator) in line.match_indices(['=', '{', ',']) {
            if separator == "=" && is_secret(&line[start..at]) && !is_reference(&line[at..]) {
                return Some(at + 1);
            }
            start = at + 1;
        }
        return None;
    }
    let start = line.len() - line.trim_start().len();
    let end = start + line[start..].find([' ', '\t', '"', '\''])?;
    let is_key = !line[start..].starts_with(['[', '#']) && is_secret(&line[start..end]);
    (is_key && !is_reference(&line[end..])).then_some(end)
}

/// Where a value ends that begins with this text; `None`: on the same line.
fn value_end(value: &str) -> Option<ValueEnd> {
    for delimiter in ["\"\"\"", "'''"] {
        if let Some(rest) = value.strip_prefix(delimiter) {
            return (!rest.contains(delimiter)).then_some(ValueEnd::Delimiter(delimiter));
        }
    }
    let ends_here = match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].contains(quote),
        Some('[') => value.ends_with(']'),
        Some('{') => value.ends_with('}'),
        Some(_) => matches!(value, "true" | "false") || value.bytes().all(|byte| byte.is_ascii_digit()),
        None => false,
    };
    (!ends_here).then_some(ValueEnd::NextStatement)
}

/// Whether a line is a table's header, or a key with the beginning of a value. Secrets have the form of
/// neither: Base64 has `=` only at its end.
fn begins_statement(line: &str) -> bool {
    let is_key = |key: &str| {
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.\"'".contains(&byte))
    };
    let line = line.trim();
    if let Some(header) = line.strip_prefix('[') {
        let header = header.strip_prefix('[').unwrap_or(header);
        return !header.starts_with(['"', '\''])
            && header.split_once(']').is_some_and(|(name, _)| is_key(name));
    }
    line.split_once('=').is_some_and(|(key, value)| {
        let value = value.trim_start();
        is_key(key.trim_end())
            && (value.starts_with(['"', '\'', '[', '{']) || matches!(value, "true" | "false"))
    })
}

/// Replaces what is between `:` and `@` in `http://user:password@host` and `user:password@host`. A password
/// may have any sign: what is in quotes ends with them, anything else with a blank.
pub(super) fn without_user_info(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut rest = line;
    let mut quote = None;
    while let Some(at) = rest.find([':', '"', '\'']) {
        let (before, after) = rest.split_at(at);
        let sign = match quote {
            None => ["\"\"\"", "'''"].into_iter().find(|sign| after.starts_with(sign)),
            Some(open) => after.starts_with(open).then_some(open),
        };
        let sign = sign.unwrap_or(&after[..1]);
        shown.extend([before, sign]);
        rest = &after[sign.len()..];
        if sign == ":" {
            let (text, after) = rest.split_at(end_of_text(rest, quote));
            let user = if text.starts_with("//") { 2 } else { 0 };
            match text[user..].rfind('@') {
                Some(host) => shown.extend([&text[..user], "...", &text[user + host..]]),
                None => shown.push_str(text),
            }
            rest = after;
        } else if quote == Some(sign) && !before.ends_with('\\') {
            quote = None;
        } else if quote.is_none() && (sign != "'" || !before.ends_with(char::is_alphanumeric)) {
            // An apostrophe in a word opens nothing.
            quote = Some(sign);
        }
    }
    shown.push_str(rest);
    shown
}

/// Where a text ends that is in such quotes.
fn end_of_text(rest: &str, quote: Option<&str>) -> usize {
    if let Some(quote) = quote.filter(|quote| quote.len() > 1) {
        return rest.find(quote).unwrap_or(rest.len());
    }
    let mut is_escaped = false;
    let is_end = |sign: char| {
        let ends = match quote {
            Some("'") => sign == '\'',
            Some(_) => sign == '"' && !is_escaped,
            None => sign.is_whitespace() || matches!(sign, '"' | '\''),
        };
        is_escaped = sign == '\\' && !is_escaped;
        ends
    };
    rest.find(is_end).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::parse;

    #[test]
    fn a_value_is_masked() {
        let check = |line: &str, expected: &str| assert_eq!(mask_secrets(line), expected, "{line}");
        check("client_secret = \"hunter2\"", "client_secret = ...");
        check("client_secret = \"file:secret\"", "client_secret = \"file:secret\"");
        check("client_secret \"hunter2\"", "client_secret ...");
        check(
            "oidc = { title = \"x\", client_secret = \"hunter2\" }",
            "oidc = { title = \"x\", client_secret = ...",
        );
        check("url = \"https://example.com/?token=hunter2\"", "url = \"https://example.com/?token= ...");
        check("urls = [\"http://me:hunter2@localhost\"]", "urls = [\"http://...@localhost\"]");
        check("urls = [\"http://me:hun/ter2@localhost\"]", "urls = [\"http://...@localhost\"]");
        check("urls = ['http://me:hunter@2 \"@localhost']", "urls = ['http://...@localhost']");
        check("urls = [\"http://me:hun\\\"ter2@localhost\"]", "urls = [\"http://...@localhost\"]");
        check("urls = [\"http://a\", \"http://me:hunter2@b\"]", "urls = [\"http://a\", \"http://...@b\"]");
        check("urls = ['''http://me:hun'ter2@b/x''']", "urls = ['''http://...@b/x''']");
        check(
            "urls = [\"\"\"http://me:hun\"ter2@b/x\"\"\", \"http://me:hun ter2@c\"]",
            "urls = [\"\"\"http://...@b/x\"\"\", \"http://...@c\"]",
        );
        check("urls = [\"\", \"http://me:hun ter2@c\"]", "urls = [\"\", \"http://...@c\"]");
        check("endpoints = [\"root:hunter2@10.0.0.1:2379\"]", "endpoints = [\"root:...@10.0.0.1:2379\"]");
        check("url = \"http://me:hunter2@localhost", "url = \"http://...@localhost");
        check("url = http://me:hunter2@localhost # a@b", "url = http://...@localhost # a@b");
        check(
            "listen = [\"[::1]:80\"] # ask ann@example.com",
            "listen = [\"[::1]:80\"] # ask ann@example.com",
        );
        check("[tokens]", "[tokens]");
        check("# about tokens", "# about tokens");
        check("listen = [\"127.0.0.1:8080\"]", "listen = [\"127.0.0.1:8080\"]");
    }

    #[test]
    fn a_secret_of_several_lines_is_masked_to_its_end() {
        let check = |name: &str, text: &str, expected: &[usize]| {
            let continued = continued_secrets(text);
            let lines: Vec<_> = (1..).zip(continued).filter(|(_, continued)| *continued).collect();
            assert_eq!(lines.iter().map(|(line, _)| *line).collect::<Vec<_>>(), expected, "{name}");
        };
        check("one line", "secret = \"a\"\nurl = \"b\"\n[log]", &[]);
        check("a reference", "secret = \"file:a\"\nb", &[]);
        check("another key", "title = \"\"\"\na\n\"\"\"", &[]);
        check("a multi-line string", "secret = \"\"\"\na = \"b\"\n[c]\n\"\"\"\nurl = \"d\"", &[2, 3, 4]);
        check("a literal one", "secret = '''a\n\"\"\"\nb'''\nurl = \"d\"", &[2, 3]);
        check("one that does not end", "secret = \"\"\"\na\n[log]", &[2, 3]);
        check("a text that does not end", "secret = \"a\n\nAbC==\nb\"\nurl = \"c\"\nd", &[2, 3, 4]);
        check("no quotes", "secret = -----BEGIN KEY-----\nAbC=\n-----END KEY-----\n[log]\na", &[2, 3]);
        check("the value below", "secret =\n\"a\"\nworkers = [1]", &[2]);
        check("an array", "credentials = [\n  \"a\",\n]\nurl = \"b\"", &[2, 3]);
        check("a number", "max_tokens = 5\na", &[]);
    }

    #[test]
    fn no_line_of_a_secret_is_in_an_error() {
        let check = |name: &str, text: &str| {
            let text = format!("version = 1\n[admin]\n{text}");
            let shown = parse(&text, Path::new("gateway.toml")).unwrap_err().to_string();
            assert!(shown.contains("gateway.toml:") && !shown.contains("hunter"), "{name}: {shown}");
        };
        check("a bad escape", "[admin.oidc]\nclient_secret = \"\"\"\nhunter\nhunter\\q\n\"\"\"\n");
        check("a string that does not end", "[admin.oidc]\nclient_secret = \"hunter\nhunter\nhunter=\"\n");
        check("no quotes", "[admin.oidc]\nclient_secret = hunter\nhunter==\n");
        check("no equals sign", "[admin.oidc]\nclient_secret \"hunter\"\n");
        check("an inline table", "oidc = { client_secret = \"hunter\" }\n");
    }

    #[test]
    fn no_password_in_an_address_is_in_an_error() {
        let check = |table: &str, lines: &str| {
            let text = format!("version = 1\n[{table}]\n{lines}\n");
            let shown = parse(&text, Path::new("gateway.toml")).unwrap_err().to_string();
            assert!(shown.contains("@") && !shown.contains("hunter"), "{shown}");
        };
        check("store.cluster", "node = \"a\"\nendpoints = [\"https://root:hunter2@10.0.0.1:2379\"]");
        check("store.cluster", "node = \"a\"\nendpoints = [\"root:hunter2@10.0.0.1:2379\"]");
        for scheme in ["http://", "https://", "h2c://", "ftp://", ""] {
            for rest in ["10.0.0.1", "10.0.0.1:80", "host/path", "host?x=y"] {
                let url = format!("{scheme}root:hunter2@{rest}");
                check("admin.oidc", &format!("issuer = \"{url}\"\nclient_id = \"a\""));
                check("exchange.ci", &format!("issuer = \"{url}\""));
                check("admin", &format!("url = \"{url}\""));
                check("admin", &format!("listen = [\"{url}\"]"));
                check("server", &format!("listen = [\"{url}\"]"));
                check("server", &format!("trusted_proxies = [\"{url}\"]"));
                check("upstream.up", &format!("urls = [\"{url}\"]"));
                check("upstream.up", &format!("urls = [\"http://127.0.0.1:1\"]\nhost = \"{url}\""));
                check("service.app", &format!("upstream = \"{url}\"\npaths = [\"/app\"]"));
            }
        }
    }
}
