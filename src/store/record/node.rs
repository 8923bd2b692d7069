//! Changes of a cluster's members.

use serde::{Deserialize, Serialize};

use super::record;
use crate::store::cluster::MemberChange;

#[derive(Serialize, Deserialize)]
#[serde(remote = "MemberChange")]
enum NodeV1 {
    Put { node: String, incarnation: [u8; 16], format: u8, rules: [u8; 32], since: u64 },
    Drop { node: String, incarnation: [u8; 16], over: bool },
}

record!(MemberChange, "node", NodeV1);
