//! `permgate cluster ...`: several gateways over one store.

use clap::Subcommand;
use serde_json::Value;

use super::{
    Global,
    client::Client,
    failure::Failure,
    output::{Format, items, print},
};

#[derive(Debug, Subcommand)]
pub(super) enum Cluster {
    /// Copy this gateway's store to etcd, or an empty one if it has none. Run it once, while the gateway is
    /// stopped
    Init,
    /// Show the members of the cluster, and the position of each
    Status,
    /// Make this node's copy the cluster's state after etcd has lost changes. Run it on the node that is
    /// furthest ahead, while that node is stopped
    Adopt,
    /// Remove this node from the cluster while it is stopped, so that changes do not wait for it
    Leave,
}

impl Cluster {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        match self {
            Self::Status => status(global),
            #[cfg(feature = "etcd")]
            change => change.make(global),
            #[cfg(not(feature = "etcd"))]
            _ => Err(Failure::usage("this permgate was built without the feature `etcd`")),
        }
    }

    /// Changes the store and etcd while this node is stopped.
    #[cfg(feature = "etcd")]
    fn make(&self, global: &Global) -> Result<(), Failure> {
        use super::{
            failure::{chain, print_stderr},
            owner::{StoreOwner, with_owner_advice},
        };
        use crate::{config::Errors, store::cluster};
        let config = super::target::load(global.config())?;
        let Some(settings) = &config.cluster else {
            return Err(Failure::usage(format!("{} has no [store.cluster]", global.config().display())));
        };
        let unreadable = config.etcd_errors();
        if !unreadable.is_empty() {
            return Err(Failure::usage(Errors(unreadable).to_string()));
        }
        let failed =
            |error: cluster::JoinError| with_owner_advice(Failure::failed(chain(&error)), &config.store.path);
        let _owner = StoreOwner::detect(&config.store.path);
        let made = match self {
            Self::Init => {
                let made = cluster::init(&config.store, settings);
                let (store, position) = made.map_err(failed)?;
                let (prefix, path) = (&settings.etcd.prefix, config.store.path.display());
                format!(
                    "etcd has store {store} up to position {position}, under {prefix}\n\
                     {path} is now this node's copy; start the other nodes with empty directories"
                )
            }
            Self::Adopt => {
                let position = cluster::adopt(&config.store, settings).map_err(failed)?;
                let state = format!("the state of this node's copy, position {position}");
                format!("etcd has {state}: start the gateways again")
            }
            Self::Leave => {
                cluster::leave(&config.store, settings).map_err(failed)?;
                format!("{} has left the cluster", settings.node)
            }
            Self::Status => return status(global),
        };
        print_stderr(&made);
        Ok(())
    }
}

fn status(global: &Global) -> Result<(), Failure> {
    let cluster = Client::new(global)?.get("/v1/cluster")?;
    if global.output != Format::Table {
        return global.output.record(&cluster, "node");
    }
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    print(&format!("node      {} ({})", text(&cluster["node"]), text(&cluster["standing"])))?;
    print(&format!("position  {}, in force {}", cluster["position"], cluster["in_force"]))?;
    let permitted = match cluster["permitted_ms"].as_u64() {
        Some(left) => format!("for {}.{} s more", left / 1000, left % 1000 / 100),
        None => "no: it answers 503".to_owned(),
    };
    print(&format!("serves    {permitted}"))?;
    for member in items(&cluster["members"]) {
        let rules = if member["same_rules"] == true { "" } else { ", other rules" };
        let position = member["acknowledged"].as_u64().map_or("-".to_owned(), |at| at.to_string());
        print(&format!("member    {} at {position}{rules}", text(&member["node"])))?;
    }
    for node in items(&cluster["departed"]) {
        print(&format!("dropped   {}", text(node)))?;
    }
    Ok(())
}
