//! Style, script and icon, embedded in the binary. Each name contains a hash of the content, so that browsers
//! cache the files for good and still never use an old one.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use http::header;

use crate::admin::Problem;

pub struct Asset {
    /// `/assets/NAME`.
    pub path: String,
    content: String,
    form: &'static str,
}

pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("page.css", include_str!("../../../web/page.css"), "text/css; charset=utf-8")
});
/// One file for all pages, so that a browser loads it once.
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    let content = concat!(
        include_str!("../../../web/page.js"),
        include_str!("../../../web/forms.js"),
        include_str!("../../../web/tokens.js"),
        include_str!("../../../web/people.js"),
    );
    Asset::new("page.js", content, "text/javascript; charset=utf-8")
});
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon.svg", include_str!("../../../web/icon.svg"), "image/svg+xml"));

const IMMUTABLE: &str = "public, max-age=31536000, immutable";

impl Asset {
    fn new(name: &str, content: &str, form: &'static str) -> Self {
        let mut content = minify(content);
        if form.starts_with("text/css") {
            content = minify_css(&content);
        }
        let hash = blake3::hash(content.as_bytes()).to_hex();
        let (stem, ending) = name.split_once('.').expect("an asset's name has an ending");
        Self { path: format!("/assets/{stem}-{}.{ending}", &hash[..16]), content, form }
    }
}

pub async fn send(Path(name): Path<String>) -> Response {
    let found = [&*STYLE, &SCRIPT, &ICON]
        .into_iter()
        .find(|asset| asset.path.strip_prefix("/assets/") == Some(&*name));
    let Some(asset) = found else { return Problem::not_found("asset").into_response() };
    let fields = [(header::CONTENT_TYPE, asset.form), (header::CACHE_CONTROL, IMMUTABLE)];
    (fields, asset.content.as_str()).into_response()
}

/// Removes indentation and comment lines, a sixth of the size. Our files have no literals of several lines,
/// which this would change.
fn minify(content: &str) -> String {
    let lines = content.lines().map(str::trim_start);
    let code = lines.filter(|line| !line.is_empty() && !line.starts_with("//") && !line.starts_with("/*"));
    code.fold(String::with_capacity(content.len()), |text, line| text + line + "\n")
}

/// Removes insignificant spaces and semicolons from CSS. None of our literals contains one of the patterns.
fn minify_css(style: &str) -> String {
    let tight = |text: String, mark: &str| text.replace(mark, mark.trim());
    [": ", "; ", ", ", " { ", " }"].into_iter().fold(style.to_owned(), tight).replace(";}", "}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_assets_together_are_small() {
        let all: usize = [&STYLE, &SCRIPT, &ICON].iter().map(|asset| asset.content.len()).sum();
        assert!(all < 60_000, "{all}");
    }

    #[test]
    fn style_is_tightened() {
        assert_eq!(
            minify_css("a, b :hover { c: d; e: f(1, 2) }\n@media (g: h) { i { j: k; } }"),
            "a,b :hover{c:d;e:f(1,2)}\n@media (g:h){i{j:k}}"
        );
    }

    #[test]
    fn comments_and_indentation_are_left_out() {
        assert_eq!(
            minify("/** What. */\na {\n  b: c;\n}\n\n// No.\n  // No.\nx // y\n"),
            "a {\nb: c;\n}\nx // y\n"
        );
    }
}
