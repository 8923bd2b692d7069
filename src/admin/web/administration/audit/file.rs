//! The audit log as a file.

use crate::admin::AuditView;

/// What a file begins with, and an event as text.
#[derive(Clone, Copy)]
pub struct Format {
    pub header: &'static str,
    pub line: fn(AuditView) -> serde_json::Result<String>,
}

/// One JSON object per line.
pub const JSONL: Format = Format { header: "", line: |view| Ok(serde_json::to_string(&view)? + "\n") };

/// RFC 4180, with a header line.
pub const CSV: Format =
    Format { header: "seq,time,event,actor,target,service,outcome,reason,request_id,change\r\n", line: csv };

fn csv(view: AuditView) -> serde_json::Result<String> {
    let time = serde_json::to_value(view.time)?;
    let cells = [
        view.seq.to_string(),
        time.as_str().unwrap_or_default().to_owned(),
        view.event,
        view.actor,
        view.target,
        view.service.unwrap_or_default(),
        view.outcome,
        view.reason.unwrap_or_default(),
        view.request_id.unwrap_or_default(),
        view.change.map_or_else(String::new, |change| change.to_string()),
    ];
    Ok(cells.map(|text| cell(&text)).join(",") + "\r\n")
}

/// Spreadsheets evaluate cells that begin like a formula; a leading apostrophe makes them text.
fn cell(text: &str) -> String {
    let text =
        if text.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{text}") } else { text.to_owned() };
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::cell;

    #[test]
    fn a_cell_is_quoted_and_no_formula() {
        let check = |text: &str, expected: &str| assert_eq!(cell(text), expected, "{text}");
        check("plain", "plain");
        check("a,b", "\"a,b\"");
        check("{\"a\": 1}", "\"{\"\"a\"\": 1}\"");
        check("=HYPERLINK(1)", "'=HYPERLINK(1)");
        check("a\nb", "\"a\nb\"");
    }
}
