//! The pages for anonymous visitors: signing in, and accepting an invitation.

use askama::Template;
use axum::response::{Redirect, Response};
use serde::Deserialize;

use super::{ApiResult, Shell, render};
use crate::admin::{Caller, Context, pagination::Params};

/// Where the browser goes after signing in without a page to return to.
pub(super) const HOME: &str = "/profile/authentication";

#[derive(Debug, Default, Deserialize)]
pub(super) struct NextQuery {
    pub(super) next: Option<String>,
}

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    shell: Shell,
    next: String,
    provider: Option<Provider>,
    demo: bool,
}

/// The link for signing in at the provider.
struct Provider {
    title: String,
    link: String,
}

#[derive(Template)]
#[template(path = "invitation.html")]
struct InvitationPage {
    shell: Shell,
}

pub(super) async fn home() -> Redirect {
    Redirect::to(HOME)
}

pub(super) async fn sign_in(
    context: Context,
    caller: Option<Caller>,
    Params(next): Params<NextQuery>,
) -> ApiResult {
    let next = next.next.filter(|path| is_local_path(path)).unwrap_or_else(|| HOME.to_owned());
    if caller.is_some_and(|caller| caller.user().is_some()) {
        return Ok(axum::response::IntoResponse::into_response(Redirect::to(&next)));
    }
    let provider = context.sign_in.provider.as_ref().map(|provider| {
        let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        // On the host of the redirect URI, because the flow's cookie has to be set there.
        let link = format!("{}/sign-in/oidc?next={next}", context.sign_in.base());
        Provider { title: provider.title.clone(), link }
    });
    let demo = context.sign_in.demo;
    Ok(render(&SignInPage { shell: Shell::new("Sign in", "", None), next, provider, demo }))
}

/// The invitation's text is in the fragment, which only the script sees.
pub(super) async fn invitation() -> Response {
    render(&InvitationPage { shell: Shell::new("Choose a password", "", None) })
}

/// Whether this is a path of this host. Browsers read `//host`, `/\host` and a tab in between as another
/// host.
pub(super) fn is_local_path(path: &str) -> bool {
    let mut bytes = path.bytes();
    bytes.next() == Some(b'/')
        && !matches!(bytes.next(), Some(b'/' | b'\\'))
        && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_goes_back_to_this_host_only() {
        let check = |path: &str, ours: bool| assert_eq!(is_local_path(path), ours, "{path:?}");
        check("/", true);
        check("/profile", true);
        check("/tokens?user=ann", true);
        check("", false);
        check("profile", false);
        check("//evil.example", false);
        check("/\\evil.example", false);
        check("/\t/evil.example", false);
        check("/a\\b", false);
        check("https://evil.example", false);
        check("javascript:alert(1)", false);
    }
}
