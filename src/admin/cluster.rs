//! `/v1/cluster`: the cluster as this node sees it.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{ApiResult, Caller, Context, Problem, wire::ok};
use crate::{authz::subject::Permission, store::cluster::Status};

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = Cluster)]
pub struct ClusterView {
    pub node: String,
    /// `member`, or one of `joining`, `displaced`, `forked` and `left`, which do not serve, or not for long.
    pub standing: String,
    /// The position in the log up to which changes are applied here.
    pub position: u64,
    /// The position up to which every worker has put changes in force.
    pub in_force: u64,
    /// How long this node may still forward, in milliseconds; `null`: it answers 503.
    pub permitted_ms: Option<u64>,
    pub members: Vec<MemberView>,
    /// Removed nodes that may still forward for a moment.
    pub departed: Vec<String>,
    /// Changes of this node that other nodes have yet to acknowledge.
    pub waiting: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = ClusterMember)]
pub struct MemberView {
    pub node: String,
    /// The last position that it has acknowledged, as far as this node knows.
    pub acknowledged: Option<u64>,
    /// Whether it decides by the same rules as this node.
    pub same_rules: bool,
}

pub async fn show(context: Context, caller: Caller) -> ApiResult {
    caller.require(Permission::AdminRead)?;
    let single = || {
        let text = "This gateway is not part of a cluster: its configuration has no [store.cluster]";
        Problem::new(StatusCode::NOT_FOUND, "not_found", text)
    };
    let node = context.store.node().ok_or_else(single)?;
    Ok(ok(&ClusterView::from(node.status())))
}

impl From<Status> for ClusterView {
    fn from(status: Status) -> Self {
        let Status { node, membership, head, in_force, permitted_for, members, departed, waiting } = status;
        let members = members.into_iter().map(|member| MemberView {
            node: member.node,
            acknowledged: member.acknowledged,
            same_rules: member.same_rules,
        });
        Self {
            node,
            standing: membership.into_str().to_owned(),
            position: head.position,
            in_force,
            permitted_ms: permitted_for.map(|left| u64::try_from(left.as_millis()).unwrap_or(u64::MAX)),
            members: members.collect(),
            departed,
            waiting: waiting as u64,
        }
    }
}
