//! `permgate cluster ...`: several gateways over one store.

use clap::Subcommand;
use serde_json::Value;

use super::{
    Global,
    client::Client,
    failure::Failure,
    output::{Format, print},
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
            Self::Init => init(global),
            Self::Adopt => adopt(global),
            Self::Leave => leave(global),
        }
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
    for member in cluster["members"].as_array().into_iter().flatten() {
        let rules = if member["same_rules"] == true { "" } else { ", other rules" };
        let position = member["acknowledged"].as_u64().map_or("-".to_owned(), |at| at.to_string());
        print(&format!("member    {} at {position}{rules}", text(&member["node"])))?;
    }
    for node in cluster["departed"].as_array().into_iter().flatten() {
        print(&format!("dropped   {}", text(node)))?;
    }
    Ok(())
}

#[cfg(feature = "etcd")]
mod engine {
    use super::{super::target, Failure, Global};
    use crate::{
        cli::failure::{chain, print_stderr},
        config::Config,
        store::cluster::{self, JoinError, Settings},
    };

    fn settings(global: &Global) -> Result<(Config, Settings), Failure> {
        let config = target::load(global.config())?;
        let cluster = config
            .cluster
            .clone()
            .ok_or_else(|| Failure::usage(format!("{} has no [store.cluster]", global.config().display())))?;
        Ok((config, cluster))
    }

    fn failed(error: &JoinError) -> Failure {
        Failure::failed(chain(error))
    }

    pub(super) fn init(global: &Global) -> Result<(), Failure> {
        let (config, cluster) = settings(global)?;
        let (store, position) =
            cluster::init(&config.store, &cluster, config.configuration()).map_err(|error| failed(&error))?;
        print_stderr(&format!(
            "etcd has store {store} up to position {position}, under {}",
            cluster.etcd.prefix
        ));
        print_stderr(&format!(
            "{} is now this node's copy; start the other nodes with empty directories",
            config.store.path.display()
        ));
        Ok(())
    }

    pub(super) fn adopt(global: &Global) -> Result<(), Failure> {
        let (config, cluster) = settings(global)?;
        let position = cluster::adopt(&config.store, &cluster).map_err(|error| failed(&error))?;
        print_stderr(&format!(
            "etcd has the state of this node's copy, position {position}: start the gateways again"
        ));
        Ok(())
    }

    pub(super) fn leave(global: &Global) -> Result<(), Failure> {
        let (config, cluster) = settings(global)?;
        cluster::leave(&config.store, &cluster).map_err(|error| failed(&error))?;
        print_stderr(&format!("{} has left the cluster", cluster.node));
        Ok(())
    }
}

#[cfg(feature = "etcd")]
use engine::{adopt, init, leave};

#[cfg(not(feature = "etcd"))]
mod engine {
    use super::{Failure, Global};

    pub(super) fn missing(_: &Global) -> Result<(), Failure> {
        Err(Failure::usage("this permgate was built without the feature `etcd`"))
    }
}

#[cfg(not(feature = "etcd"))]
use engine::{missing as adopt, missing as init, missing as leave};
