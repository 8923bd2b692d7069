//! `permgate service ...`: what the configuration offers to scopes.

use clap::Subcommand;

use super::{
    Global,
    client::Client,
    failure::Failure,
    output::{Columns, ListView},
};

#[derive(Debug, Subcommand)]
pub(super) enum Service {
    /// List services, and who may read them
    #[command(visible_alias = "ls")]
    List,
}

const COLUMNS: Columns =
    &[("SERVICE", "key"), ("TITLE", "title"), ("PATHS", "paths"), ("HOSTS", "hosts"), ("READERS", "readers")];
const VIEW: ListView = ListView { nouns: "services", sort: &["key"], columns: COLUMNS };

impl Service {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        // Readers are for who holds admin-read; everybody else sees the services that they may read.
        let listed = match client.list("/v1/services?detailed=true", None) {
            Err(failure) if failure.error() == "permission_denied" => client.list("/v1/services", None),
            other => other,
        };
        global.output.list(listed?, VIEW)
    }
}
