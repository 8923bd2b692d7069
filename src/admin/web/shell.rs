//! The frame of every page: layout, navigation and reader, and how pages and errors are sent.

use askama::Template;
use axum::{
    extract::{FromRequestParts, Request},
    middleware::Next,
    response::{Html, IntoResponse, Redirect, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts};

use super::{
    address,
    assets::{ICON, SCRIPT, STYLE},
};
use crate::{
    admin::{
        Caller,
        caller::Identity,
        error::{Problem, accepted, asks_for_problem},
        groups::READ_GROUPS,
        roles::READ_ROLES,
        session::Csrf,
        tokens::READ_OTHERS_TOKENS,
        users::READ_OTHERS,
    },
    authz::{
        rules::Service,
        subject::{Permission, User},
    },
};

/// Layout, navigation and assets.
pub struct Shell {
    pub title: &'static str,
    /// The current page's entry in the navigation.
    pub at: &'static str,
    pub reader: Option<SignedInUser>,
    caller: Option<Caller>,
    pub style: &'static str,
    pub script: &'static str,
    pub icon: &'static str,
}

/// The signed-in user, as the layout shows them.
pub struct SignedInUser {
    pub login: String,
    pub initials: String,
    pub csrf: String,
    /// A proxy in front names the user, so there is no session here to sign out of.
    pub vouched: bool,
    pub sections: Vec<Section>,
}

/// A page in the navigation.
pub struct Section {
    pub path: &'static str,
    pub label: &'static str,
    pub icon: &'static str,
}

/// The signed-in reader of a page. Anonymous requests are redirected to sign in first.
pub struct Reader {
    pub caller: Caller,
    pub user: std::sync::Arc<User>,
}

/// The administration pages, each with the permissions of which its readers need one.
const SECTIONS: [(&str, &str, &str, &[Permission]); 10] = [
    ("/overview", "Overview", "gauge", &[Permission::AdminRead]),
    ("/tokens", "All tokens", "keys", &READ_OTHERS_TOKENS),
    ("/users", "Users", "user", &READ_OTHERS),
    ("/groups", "Groups", "group", &READ_GROUPS),
    ("/roles", "Roles", "shield", &READ_ROLES),
    ("/services", "Services", "box", &[Permission::AdminRead]),
    ("/live", "Live requests", "pulse", &[Permission::AdminRead]),
    ("/audit", "Audit log", "list", &[Permission::ReadAudit]),
    ("/explain", "Explain", "help", &[Permission::AdminRead]),
    ("/configuration", "Configuration", "sliders", &[Permission::AdminRead]),
];

/// Nothing from other origins, nothing inline, no framing.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    shell: Shell,
    status: u16,
    description: String,
}

impl Shell {
    pub fn new(title: &'static str, at: &'static str, caller: Option<&Caller>) -> Self {
        Self {
            title,
            at,
            reader: caller.and_then(SignedInUser::from_caller),
            caller: caller.cloned(),
            style: &STYLE.path,
            script: &SCRIPT.path,
            icon: &ICON.path,
        }
    }

    /// Whether the reader may use what needs this permission.
    pub fn may(&self, permission: Permission) -> bool {
        self.may_any(&[permission])
    }

    pub fn may_any(&self, permissions: &[Permission]) -> bool {
        self.caller.as_ref().is_some_and(|caller| caller.may_any(permissions))
    }
}

impl SignedInUser {
    fn from_caller(caller: &Caller) -> Option<Self> {
        let login = caller.user()?.login.to_string();
        let sections = SECTIONS.into_iter().filter(|(_, _, _, needed)| caller.may_any(needed));
        Some(Self {
            initials: initials(&login),
            login,
            csrf: caller.csrf().map_or_else(String::new, Csrf::text),
            vouched: !matches!(&caller.identity, Identity::Browser { session: Some(_), .. }),
            sections: sections.map(|(path, label, icon, _)| Section { path, label, icon }).collect(),
        })
    }
}

/// The initials of the first two words of a login, or its first two letters.
fn initials(login: &str) -> String {
    let name = login.split('@').next().unwrap_or_default();
    let mut words = name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    match (words.next(), words.next()) {
        (Some(first), Some(second)) => first.chars().take(1).chain(second.chars().take(1)).collect(),
        (first, _) => first.unwrap_or("?").chars().take(2).collect(),
    }
}

impl Reader {
    /// Whether the reader may know the service: its name is disclosed only to those who may read it.
    pub fn knows(&self, service: &Service) -> bool {
        self.user.readable.contains(service.id)
    }

    pub fn shell(&self, title: &'static str, at: &'static str) -> Shell {
        Shell::new(title, at, Some(&self.caller))
    }
}

impl<S: Sync> FromRequestParts<S> for Reader {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Response> {
        let back = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let Some(caller) = parts.extensions.get::<Caller>().cloned() else {
            return Err(Redirect::to(&address("/sign-in", &[("next", back)])).into_response());
        };
        let Some(user) = caller.user() else {
            let text = "The operator has no page. Use `permgate` or the API instead";
            return Err(Problem::new(StatusCode::NOT_FOUND, "not_found", text).into_response());
        };
        Ok(Self { caller, user })
    }
}

/// Renders a whole page; 500 if that fails.
pub fn render(page: &impl Template) -> Response {
    match page.render() {
        Ok(text) => {
            let mut response = Html(text).into_response();
            let policy = HeaderValue::from_static(POLICY);
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            response
        }
        Err(error) => {
            tracing::error!(%error, "failed to write a page");
            let text = "The page could not be rendered. The log says why";
            Problem::internal(text).into_response()
        }
    }
}

/// Shows problems as pages, with the navigation of the signed-in reader.
pub async fn problems_as_pages(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let response = next.run(request).await;
    match response.extensions().get::<Problem>() {
        Some(problem) => problem_page(problem, caller.as_ref()),
        None => response,
    }
}

/// 404: as a page for browsers, else as a problem.
pub async fn not_found(headers: HeaderMap, caller: Option<Caller>) -> Response {
    if accepted(&headers).any(|form| form == "text/html") && !asks_for_problem(&headers) {
        let text = "There is no such page";
        problem_page(&Problem::new(StatusCode::NOT_FOUND, "not_found", text), caller.as_ref())
    } else {
        Problem::not_found("resource").into_response()
    }
}

fn problem_page(problem: &Problem, caller: Option<&Caller>) -> Response {
    let title = match problem.status() {
        StatusCode::FORBIDDEN => "You may not see this",
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::BAD_REQUEST => "This address is not valid",
        StatusCode::SERVICE_UNAVAILABLE => "Not available right now",
        status => status.canonical_reason().unwrap_or("Error"),
    };
    let shell = Shell::new(title, "", caller);
    let description = problem.description().to_owned();
    let mut response = render(&ProblemPage { shell, status: problem.status().as_u16(), description });
    if response.status().is_success() {
        *response.status_mut() = problem.status();
    }
    response
}

#[cfg(test)]
mod tests {
    use super::initials;

    #[test]
    fn initials_are_two_letters() {
        let check = |login: &str, expected: &str| assert_eq!(initials(login), expected, "{login}");
        check("ann", "an");
        check("ann.lee", "al");
        check("ann-lee@example.org", "al");
        check("x", "x");
    }
}
