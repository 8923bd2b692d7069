//! Style, scripts and icon: inside the binary, named by what they contain, so that a browser keeps
//! them for good and still never has an old one.

use std::sync::LazyLock;

use axum::{
    extract::Path,
    response::{IntoResponse, Response},
};
use http::header;

use crate::admin::error::Problem;

pub struct Asset {
    /// `/assets/NAME`.
    pub path: String,
    content: &'static str,
    form: &'static str,
}

pub static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("page.css", include_str!("../../../web/page.css"), "text/css; charset=utf-8")
});
pub static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("page.js", include_str!("../../../web/page.js"), "text/javascript; charset=utf-8")
});
pub static TOKENS: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("tokens.js", include_str!("../../../web/tokens.js"), "text/javascript; charset=utf-8")
});
pub static PEOPLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("people.js", include_str!("../../../web/people.js"), "text/javascript; charset=utf-8")
});
pub static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon.svg", include_str!("../../../web/icon.svg"), "image/svg+xml"));

const FOR_GOOD: &str = "public, max-age=31536000, immutable";

impl Asset {
    fn new(name: &str, content: &'static str, form: &'static str) -> Self {
        let hash = blake3::hash(content.as_bytes()).to_hex();
        let (stem, ending) = name.split_once('.').expect("an asset's name has an ending");
        Self { path: format!("/assets/{stem}-{}.{ending}", &hash[..16]), content, form }
    }
}

pub async fn send(Path(name): Path<String>) -> Response {
    let all: [&Asset; 5] = [&STYLE, &SCRIPT, &TOKENS, &PEOPLE, &ICON];
    let found = all.into_iter().find(|asset| asset.path.strip_prefix("/assets/") == Some(&*name));
    let Some(asset) = found else { return Problem::not_found("asset").into_response() };
    let fields = [(header::CONTENT_TYPE, asset.form), (header::CACHE_CONTROL, FOR_GOOD)];
    (fields, asset.content).into_response()
}
