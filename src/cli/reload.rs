//! `permgate reload`.

use serde_json::json;

use super::{
    Global,
    client::{Client, tell_cut},
    failure::{Failure, say},
};

pub(super) fn run(global: &Global) -> Result<(), Failure> {
    let answer = Client::new(global)?.post("/v1/reload", &json!({}))?;
    say("the configuration is in force");
    tell_cut(&answer);
    Ok(())
}
