//! `/.permgate/token`: exchanges an OpenID Connect token of a CI system for a short-lived
//! permgate token (RFC 8693), by the configured rules.

use std::{rc::Rc, sync::Arc, time::Instant};

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use self::verify::{Reservation, VerifyError};
use super::{BuiltinResponse, TokenLookup, json_response, not_issued, read_form};
use crate::{
    authz::{
        administration::names,
        reason::Reason,
        secret::TokenId,
        subject::{Access, parse_scope_entry, scope_text},
    },
    issuer::{Claims, TokenError},
    net::RequestBody,
    proxy::{Gateway, context::RequestContext, rejection::Rejection},
    store::{AdminErrorCode, ChangeError, CreatedToken, ExchangedToken},
};

pub use verify::Issuers;

mod verify;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const SUBJECT_TYPES: [&str; 2] =
    ["urn:ietf:params:oauth:token-type:id_token", "urn:ietf:params:oauth:token-type:jwt"];

/// The longest subject in the audit log and in lists, in characters.
const MAX_SUBJECT: usize = 300;

impl Gateway {
    /// Without exchange rules this is an unknown route.
    pub(super) async fn exchange(
        &self,
        context: &Rc<RequestContext>,
        request: Request<RequestBody>,
    ) -> BuiltinResponse {
        if context.state().snapshot.proxy.exchange.is_empty() {
            return self.not_found(context);
        }
        self.check_target(context)?;
        if context.method != Method::POST {
            return Err(Rejection::method_not_allowed("POST"));
        }
        let form = read_form(request, context).await?;
        let field = |name: &str| form.get(name).map(String::as_str);
        match field("grant_type") {
            Some(GRANT) => {}
            Some(_) => {
                return Err(refused("unsupported_grant_type", format!("The grant_type must be {GRANT}")));
            }
            None => return Err(invalid("The form has no grant_type")),
        }
        if !field("subject_token_type").is_some_and(|kind| SUBJECT_TYPES.contains(&kind)) {
            return Err(invalid(format!("The subject_token_type must be {}", SUBJECT_TYPES.join(" or "))));
        }
        if field("requested_token_type").is_some_and(|kind| kind != ACCESS_TOKEN) {
            return Err(invalid(format!("The requested_token_type must be {ACCESS_TOKEN}")));
        }
        if field("actor_token").is_some() {
            return Err(invalid("Delegation is not supported: send no actor_token"));
        }
        if field("resource").is_some() || field("audience").is_some() {
            return Err(refused("invalid_target", "The rule names the services: send only a scope"));
        }
        let Some(token) = field("subject_token") else {
            return Err(invalid("The form has no subject_token"));
        };
        // By the current rules and time: much may have changed while the body was being read, or the keys of
        // the issuer.
        let current_rules = || self.worker_state().snapshot.proxy.exchange.clone();
        let claims = self.parts.issuers.verify(token, &current_rules(), || context.clock().wall()).await;
        let claims = claims.map_err(|error| self.not_verified(&error, context))?;
        let rules = current_rules();
        let Some(rule) = rules.iter().find(|rule| verify::matches_rule(&claims, rule)) else {
            return Err(self.not_exchanged(context, "No rule accepts the claims of the token"));
        };
        let scope = match field("scope") {
            Some(asked) => narrow_scope(&rule.scope, asked)?,
            None => rule.scope.clone(),
        };
        let id = id_of(&claims).ok_or_else(|| self.not_exchanged(context, "The token has no jti"))?;
        let live = &self.parts.issuers.live;
        let Some(place) = live.reserve(rule, context.clock().wall()) else {
            let text = format!("The rule already has {} live tokens", rule.max_tokens);
            let (status, error) = (StatusCode::TOO_MANY_REQUESTS, "too_many_tokens");
            return Err(Rejection::described(Reason::ExchangeRefused, status, error, text));
        };
        context.connection.set_permitted();
        let new = ExchangedToken {
            rule: rule.author(),
            scope: scope.clone(),
            subject: subject(&claims),
            client: context.facts.client,
            request_id: context.request_id.as_str().to_owned(),
        };
        let (records, issuers) = (Arc::clone(&self.parts.records), Arc::clone(&self.parts.issuers));
        let made = exchange_reserved(records, issuers, place, id, new).await;
        let made = made.map_err(|error| {
            not_issued(error, |refusal| match refusal.code {
                AdminErrorCode::NameTaken => self.not_exchanged(context, "The token was already exchanged"),
                _ => {
                    tracing::warn!(rule = rule.name, "an exchange was refused: {refusal}");
                    self.not_exchanged(context, "The rule cannot be used: the reason is in permgate's log")
                }
            })
        })?;
        let Some(text) = made.text else { return Err(Reason::StoreUnavailable.into()) };
        context.outcome.token.set(Some(made.record.id));
        let body = json!({
            "access_token": text.expose(),
            "issued_token_type": ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": rule.lifetime.as_secs(),
            "scope": scope_text(&scope),
        });
        Ok(json_response(&body, &context.request_id))
    }

    fn not_verified(&self, error: &VerifyError, context: &RequestContext) -> Rejection {
        tracing::debug!(%error, "cannot exchange a token");
        match error {
            VerifyError::Token(TokenError::Unavailable(why)) => {
                if self.issuer_warnings.is_due(Instant::now()) {
                    tracing::warn!("cannot fetch an issuer's keys: {why}");
                }
                Reason::StoreUnavailable.into()
            }
            error => self.not_exchanged(context, &error.to_string()),
        }
    }

    /// Rejects a token that is not exchanged, and counts it as a bad token.
    fn not_exchanged(&self, context: &RequestContext, why: &str) -> Rejection {
        self.count_bad_token(context).unwrap_or_else(|| invalid(why))
    }
}

/// Creates the token for a reservation, in a task of its own: the writer does not stop if the client leaves,
/// and the token counts only if there is one.
async fn exchange_reserved(
    records: Arc<dyn TokenLookup>,
    issuers: Arc<Issuers>,
    place: Reservation,
    id: TokenId,
    new: ExchangedToken,
) -> Result<CreatedToken, ChangeError> {
    let made = tokio::task::spawn_local(async move {
        let made = records.exchange(id, new).await;
        let may_exist = matches!(made, Ok(_) | Err(ChangeError::Unknown(_) | ChangeError::FenceIncomplete));
        if !may_exist {
            issuers.live.release(&place);
        }
        made
    });
    made.await.unwrap_or_else(|error| Err(ChangeError::Unknown(error.to_string())))
}

/// RFC 8693, section 2.2.2: an invalid or unacceptable subject token is an `invalid_request`.
fn invalid(description: impl Into<String>) -> Rejection {
    refused("invalid_request", description)
}

fn refused(error: &'static str, description: impl Into<String>) -> Rejection {
    Rejection::described(Reason::ExchangeRefused, StatusCode::BAD_REQUEST, error, description.into())
}

/// Reduces a rule's scope to the requested one, which has the form `tracker hub:read`.
fn narrow_scope(scope: &[(String, Access)], asked: &str) -> Result<Vec<(String, Access)>, Rejection> {
    let mut narrowed: Vec<(String, Access)> = Vec::new();
    for entry in asked.split(' ').filter(|entry| !entry.is_empty()) {
        let (key, access) = parse_scope_entry(entry)
            .map_err(|_| refused("invalid_scope", "The access of a service must be read or full"))?;
        let allowed = scope.iter().any(|(known, most)| known == key && access <= *most);
        if !allowed || narrowed.iter().any(|(known, _)| known == key) {
            return Err(refused("invalid_scope", "The scope must name services of the rule, each only once"));
        }
        narrowed.push((key.to_owned(), access));
    }
    narrowed.sort();
    if narrowed.is_empty() { Err(refused("invalid_scope", "The scope is empty")) } else { Ok(narrowed) }
}

/// The id of the permgate token that a subject token is exchanged for. It is derived from
/// `iss` and `jti`, so a second exchange fails.
fn id_of(claims: &Claims) -> Option<TokenId> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let (issuer, jti) = (text("iss")?, text("jti")?);
    let mut hasher = blake3::Hasher::new_derive_key("permgate 2026-11 exchanged token");
    hasher.update(&(issuer.len() as u64).to_le_bytes()).update(issuer.as_bytes()).update(jti.as_bytes());
    let mut output = hasher.finalize_xof();
    Some(TokenId::generate(&mut |bytes| output.fill(bytes)))
}

/// The `sub` claim, truncated and without control characters.
fn subject(claims: &Claims) -> String {
    let subject = claims.get("sub").and_then(Value::as_str).unwrap_or("(no sub)");
    subject.chars().filter(|char| !names::is_deceptive(*char)).take(MAX_SUBJECT).collect()
}

#[cfg(test)]
mod tests {
    use std::{net::Ipv4Addr, time::Duration};

    use tokio::{sync::oneshot, task::LocalSet};

    use super::*;
    use crate::{
        authz::time::Timestamp,
        proxy::builtin::Issuing,
        settings::ExchangeRule,
        store::{
            AdminError, ReadError,
            model::{TokenRecord, UserKind},
        },
    };

    /// A writer that ends a change as it is told.
    struct Writer(parking_lot::Mutex<Option<oneshot::Receiver<ChangeError>>>);

    impl TokenLookup for Writer {
        fn find(&self, _: TokenId) -> Result<Option<(TokenRecord, UserKind)>, ReadError> {
            Ok(None)
        }

        fn exchange(&self, _: TokenId, _: ExchangedToken) -> Issuing<'_> {
            let ended = self.0.lock().take().unwrap();
            Box::pin(async { Err(ended.await.unwrap()) })
        }
    }

    #[test]
    fn exchange_whose_client_leaves_counts_if_the_token_may_exist() {
        let check = |end: ChangeError, counts: bool| {
            let row = end.to_string();
            let rule = Arc::new(ExchangeRule {
                name: "ci".into(),
                issuer: "https://id.example".into(),
                audience: "gate".into(),
                claims: Vec::new(),
                account: "ci".into(),
                scope: Vec::new(),
                lifetime: Duration::from_secs(60),
                max_tokens: 1,
                tls: None,
            });
            let (issuers, now) = (Arc::<Issuers>::default(), Timestamp::from_millis(0));
            let place = issuers.live.reserve(&rule, now).unwrap();
            let (ends, ended) = oneshot::channel();
            let writer = Arc::new(Writer(Some(ended).into()));
            let new = ExchangedToken {
                rule: rule.author(),
                scope: Vec::new(),
                subject: String::new(),
                client: Ipv4Addr::LOCALHOST.into(),
                request_id: String::new(),
            };
            let id = TokenId::generate(&mut |bytes| bytes.fill(1));
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                let request = exchange_reserved(writer, Arc::clone(&issuers), place, id, new);
                let request = tokio::task::spawn_local(request);
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
                request.abort();
                assert!(request.await.unwrap_err().is_cancelled());
                assert!(issuers.live.reserve(&rule, now).is_none(), "{row}: the writer is at work");
                ends.send(end).unwrap();
                tokio::task::yield_now().await;
                tokio::task::yield_now().await;
            });
            assert_eq!(issuers.live.reserve(&rule, now).is_none(), counts, "{row}");
        };
        check(ChangeError::Unknown("a sync failed".into()), true);
        check(ChangeError::FenceIncomplete, true);
        check(AdminError::new(AdminErrorCode::NameTaken, "the token was already exchanged").into(), false);
        check(ChangeError::Closed("the disk is full".into()), false);
    }

    #[test]
    fn scope_is_reduced_and_never_widened() {
        let scope = [("hub".to_owned(), Access::Read), ("tracker".to_owned(), Access::Full)];
        let check = |asked: &str, expected: Option<&str>| {
            let found = narrow_scope(&scope, asked).ok();
            let found = found.map(|scope| scope_text(&scope));
            assert_eq!(found.as_deref(), expected, "{asked}");
        };
        check("tracker", Some("tracker"));
        check("tracker:read  hub:read", Some("hub:read tracker:read"));
        check("hub", None);
        check("other", None);
        check("tracker tracker:read", None);
        check("tracker:write", None);
        check(" ", None);
    }

    #[test]
    fn issuer_token_always_gets_the_same_id() {
        let id = |issuer: &str, jti: &str| {
            let claims = json!({"iss": issuer, "jti": jti});
            id_of(claims.as_object().unwrap()).map(|id| id.as_str().to_owned())
        };
        assert_eq!(id("a", "1"), id("a", "1"));
        assert_ne!(id("a", "1"), id("a", "2"));
        assert_ne!(id("a", "1"), id("b", "1"));
        assert_ne!(id("a", "b1"), id("ab", "1"));
        assert_eq!(id("a", ""), None);
    }
}
