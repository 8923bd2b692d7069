//! What the gateway itself answers on the proxy listener: the paths under the reserved prefix,
//! which belong to no service and are never forwarded.

use std::rc::Rc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};

use crate::{
    authz::{
        answer::Reason, decide::Denial, forwarding, rules::RESERVED_PREFIX, subject::Subject, time::Timestamp,
    },
    net::RequestBody,
    proxy::{Gateway, exchange::Exchange, rejection::Rejection, request_id::RequestId, view::View},
};

pub use original::FrontProxy;
pub use whoami::Records;

mod auth;
mod jwks;
mod original;
mod whoami;

/// Who answers a path under the reserved prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// `/.permgate/auth`, for proxies; Envoy's requests go on behind it.
    Auth,
    /// `/.permgate/whoami`
    Whoami,
    /// `/.permgate/jwks.json`
    Jwks,
    /// Nobody: 404, and that only after authentication.
    Nothing,
}

/// What is told of it, and the answer.
type Answer = Result<(Reason, Response<Bytes>), Rejection>;

impl Own {
    /// By the literal path alone. `None`: the path is not under the prefix. That no other reading
    /// leads into it or out of it is the agreement rule's affair: the prefix is nobody's there.
    pub fn of(path: &str) -> Option<Self> {
        match path.strip_prefix(RESERVED_PREFIX)? {
            "/auth" => Some(Own::Auth),
            rest if rest.starts_with("/auth/") => Some(Own::Auth),
            "/whoami" => Some(Own::Whoami),
            "/jwks.json" => Some(Own::Jwks),
            rest if rest.is_empty() || rest.starts_with('/') => Some(Own::Nothing),
            _ => None,
        }
    }
}

impl Gateway {
    /// The answer, and the exchange that it is told of in log and metrics.
    pub(super) async fn answer(
        &self,
        own: Own,
        asking: Rc<Exchange>,
        request: &Request<RequestBody>,
    ) -> (Rc<Exchange>, Answer) {
        if let (Own::Auth, Some(proxy)) = (own, asking.view.settings.forward_auth) {
            return self.forward_auth(proxy, asking, request);
        }
        let answered = match self.read(&asking, request) {
            Ok(()) => match own {
                Own::Whoami => self.whoami(&asking).await,
                Own::Jwks => self.jwks(&asking),
                Own::Auth | Own::Nothing => self.nothing(&asking),
            },
            Err(rejection) => Err(rejection),
        };
        asking.tell_as_own();
        (asking, answered.map(|response| (Reason::Answered, response)))
    }

    /// 404, once it is known who asks.
    fn nothing(&self, exchange: &Exchange) -> Result<Response<Bytes>, Rejection> {
        self.authenticate_own(&exchange.view, exchange, exchange.at, |_| ())
            .and(Err(Reason::NoService.into()))
    }

    /// Rows 1 to 5 of the decision. Nobody owns a path under the prefix: the decision about a
    /// sound token comes as far as row 6.
    fn authenticate_own<R>(
        &self,
        view: &View,
        exchange: &Exchange,
        now: Timestamp,
        then: impl FnOnce(Subject<'_>) -> R,
    ) -> Result<R, Rejection> {
        self.decide(view, exchange, now, |decided| match decided {
            Err(Denial { reason: Reason::NoService, subject: Some(subject), .. }) => Ok(then(subject)),
            Err(denial) => Err(self.refuse_by(denial, exchange)),
            // No rule can give the prefix away; if one did, nothing would be told.
            Ok(_) => Err(Reason::NoService.into()),
        })
    }
}

/// An answer in JSON, about whoever asked and for nobody else.
fn json(body: &serde_json::Value, request_id: &RequestId) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body.to_string()));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    forwarding::set_request_id(headers, request_id.as_bytes());
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_literal_prefix_is_the_gateways() {
        fn check(path: &str, expected: Option<Own>) {
            assert_eq!(Own::of(path), expected, "{path}");
        }
        check("/.permgate/whoami", Some(Own::Whoami));
        check("/.permgate/jwks.json", Some(Own::Jwks));
        check("/.permgate/auth", Some(Own::Auth));
        check("/.permgate/auth/", Some(Own::Auth));
        check("/.permgate/auth/api/x", Some(Own::Auth));
        check("/.permgate/authx", Some(Own::Nothing));
        check("/.permgate", Some(Own::Nothing));
        check("/.permgate/", Some(Own::Nothing));
        check("/.permgate/whoami/", Some(Own::Nothing));
        check("/.permgate/whoamI", Some(Own::Nothing));
        check("/.permgate/who%61mi", Some(Own::Nothing));
        check("/.permgate//whoami", Some(Own::Nothing));
        check("/.permgatex", None);
        check("/.permgate;x/whoami", None);
        check("/.Permgate/whoami", None);
        check("/x/.permgate/whoami", None);
        check("//.permgate/whoami", None);
        check("", None);
    }
}
