//! `permgate service ...`: the services of the configuration.

use clap::Subcommand;

use super::{Global, client::Client, failure::Failure, output::ListView};

#[derive(Debug, Subcommand)]
pub(super) enum Service {
    /// List services, and the groups that may read them
    #[command(visible_alias = "ls")]
    List,
}

const VIEW: ListView = ListView::new("services", "key", "service=key title paths hosts readers");

impl Service {
    pub(super) fn run(&self, global: &Global) -> Result<(), Failure> {
        let client = Client::new(global)?;
        // The list with readers needs admin-read; without it, list the services that the caller may read.
        let listed = match client.list("/v1/services?detailed=true", None) {
            Err(failure) if failure.error == "permission_denied" => client.list("/v1/services", None),
            other => other,
        };
        global.output.list(listed?, VIEW)
    }
}
