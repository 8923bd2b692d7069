//! Registers tokens by digest, so that pipelines keep the secrets that they have.

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    super::{
        ApiResult, Caller, Context,
        wire::{Json, Time, ok},
    },
    view::{ScopeEntry, entries, scope},
};
use crate::{
    authz::{secret::Digest, subject::Permission},
    store::{AcceptedImport, AdminError, AdminErrorCode, ImportedToken},
};

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    pub tokens: Vec<ImportLine>,
    /// Create owners that do not exist.
    #[serde(default)]
    pub make_owners: bool,
}

#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportLine {
    /// BLAKE3 of the text as clients send it, 64 hexadecimal digits.
    pub digest: String,
    /// Login.
    pub owner: String,
    pub name: String,
    pub scope: Vec<ScopeEntry>,
    #[serde(default)]
    pub expires_at: Option<Time>,
}

impl From<ImportedToken> for ImportLine {
    fn from(token: ImportedToken) -> Self {
        let ImportedToken { digest, owner, name, scope, expires_at } = token;
        let (digest, expires_at) = (digest.to_hex(), expires_at.map(Time));
        Self { digest, owner, name, scope: entries(scope), expires_at }
    }
}

/// The result for one token, in the order of the request.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportOutcome {
    pub id: Option<String>,
    /// The digest was registered for this owner already; nothing was changed.
    #[serde(default)]
    pub known: bool,
    pub error: Option<String>,
    pub error_description: Option<String>,
}

#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct Imported {
    imported: usize,
    /// Tokens that were registered already.
    known: usize,
    refused: usize,
    tokens: Vec<ImportOutcome>,
}

/// Tokens in one change, so that other changes, such as a ban, do not wait for a long one.
const BATCH: usize = 100;

/// Imports each token by itself: a bad one does not stop the others.
pub async fn import(context: Context, caller: Caller, Json(body): Json<ImportRequest>) -> ApiResult {
    caller.require(Permission::AdminWrite)?;
    let mut outcomes: Vec<Option<ImportOutcome>> = Vec::with_capacity(body.tokens.len());
    let mut tokens = Vec::with_capacity(body.tokens.len());
    for line in body.tokens {
        let parsed = parse(line);
        outcomes.push(parsed.as_ref().err().map(refused));
        tokens.extend(parsed);
    }
    let mut changes = Vec::new();
    let mut tokens = tokens.into_iter();
    while tokens.len() > 0 {
        let some = tokens.by_ref().take(BATCH).collect();
        changes.push(context.store.import_tokens(caller.actor(), some, body.make_owners));
    }
    // All are sent at once, so that the writer makes several durable together. If one fails, the error is
    // answered only once the others have ended.
    let changes: Vec<_> = join_all(changes).await.into_iter().collect::<Result<_, _>>()?;
    let mut results = changes.into_iter().flat_map(|change| change.record);
    let tokens: Vec<ImportOutcome> = outcomes
        .into_iter()
        .filter_map(|outcome| outcome.or_else(|| results.next().map(|result| import_outcome(&result))))
        .collect();
    let known = tokens.iter().filter(|outcome| outcome.known).count();
    let refused = tokens.iter().filter(|outcome| outcome.id.is_none()).count();
    Ok(ok(&Imported { imported: tokens.len() - known - refused, known, refused, tokens }))
}

fn parse(line: ImportLine) -> Result<ImportedToken, AdminError> {
    let digest = Digest::from_hex(&line.digest).ok_or_else(|| AdminError {
        code: AdminErrorCode::InvalidValue,
        message: "A digest has 64 hexadecimal digits".into(),
    })?;
    let ImportLine { owner, name, scope: entries, expires_at, .. } = line;
    Ok(ImportedToken {
        digest,
        owner,
        name,
        scope: scope(entries),
        expires_at: expires_at.map(|time| time.0),
    })
}

fn import_outcome(result: &Result<AcceptedImport, AdminError>) -> ImportOutcome {
    match result {
        Ok(AcceptedImport { id, known }) => {
            ImportOutcome { id: Some(id.to_string()), known: *known, error: None, error_description: None }
        }
        Err(refusal) => refused(refusal),
    }
}

fn refused(refusal: &AdminError) -> ImportOutcome {
    let error = Some(refusal.code.word().to_owned());
    ImportOutcome { id: None, known: false, error, error_description: Some(refusal.message.clone()) }
}
