//! `/v1/services`: the services that a token's scope may name.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    ApiResult, Caller, Context, Problem,
    offload::READS,
    pagination::Params,
    tokens::READ_OTHERS_TOKENS,
    wire::{Page, ok},
};
use crate::authz::{
    rules::{BUILT_IN_SERVICE, Service},
    subject::{Directory, Permission},
};

/// A service, as the dialog for a new token shows it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Service)]
pub struct ServiceView {
    pub key: String,
    pub title: String,
    pub about: String,
    pub paths: Vec<String>,
    pub hosts: Vec<String>,
    /// The admin listener itself.
    pub built_in: bool,
    /// Groups that the configuration lets read it; only with `detailed`, which needs `admin-read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub readers: Option<Vec<String>>,
    /// Logins of the users who may read it now, by a group or by `read-service`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effective_readers: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct Filter {
    /// `me` or a login.
    readable_by: Option<String>,
    /// Adds the readers, which needs `admin-read`.
    detailed: Option<bool>,
}

/// Lists the services that the caller may read, because other names are not disclosed. `readable_by` keeps
/// those that this user may read too.
pub async fn list(context: Context, caller: Caller, Params(filter): Params<Filter>) -> ApiResult {
    let snapshot = context.state.snapshot();
    let other = match filter.readable_by.as_deref() {
        None | Some("me") => None,
        Some(login) => {
            let user = snapshot.directory.user_by_login(login);
            if !user.is_some_and(|user| caller.is(&user.id)) {
                caller.require_any(&READ_OTHERS_TOKENS)?;
            }
            Some(user.ok_or_else(|| Problem::not_found("user"))?.clone())
        }
    };
    let detailed = filter.detailed.unwrap_or_default();
    if detailed {
        caller.require(Permission::AdminRead)?;
    }
    let read = move || {
        let user = caller.user();
        let reads = |service: &&Service| user.as_ref().is_none_or(|user| user.readable.contains(service.id));
        let items = snapshot
            .rules
            .services()
            .iter()
            .filter(reads)
            .filter(|service| other.as_ref().is_none_or(|user| user.readable.contains(service.id)))
            .map(|service| {
                let view = ServiceView::new(service);
                if detailed { view.with_readers(service, &snapshot.directory) } else { view }
            })
            .collect();
        ok(&Page { items, next: None })
    };
    // Only the readers may be many.
    if detailed { READS.run(read).await } else { Ok(read()) }
}

impl ServiceView {
    pub(super) fn new(service: &Service) -> Self {
        let spec = &service.spec;
        Self {
            key: spec.key.as_str().to_owned(),
            title: spec.title.clone(),
            about: spec.about.clone(),
            paths: spec.paths.clone(),
            hosts: spec.hosts.clone(),
            built_in: spec.key.as_str() == BUILT_IN_SERVICE,
            readers: None,
            effective_readers: None,
        }
    }

    pub(super) fn with_readers(self, service: &Service, directory: &Directory) -> Self {
        let users = directory.users.iter().filter(|user| !user.deleted && user.readable.contains(service.id));
        let mut logins: Vec<String> = users.map(|user| user.login.to_string()).collect();
        logins.sort_unstable();
        Self { readers: Some(service.spec.readers.clone()), effective_readers: Some(logins), ..self }
    }
}
