//! Replaces the configuration: new rules for everybody, all or nothing.

use std::sync::Arc;

use serde_json::json;

use super::Transaction;
use crate::{
    authz::{rules::Rules, subject::Permission},
    fence::Affected,
    store::{
        ChangeError,
        change::{Actor, Configuration},
    },
};

impl Transaction {
    pub(crate) fn replace_configuration(
        &mut self,
        actor: &Actor,
        new: &Configuration,
    ) -> Result<(), ChangeError> {
        self.principal(actor)?.require(Permission::AdminWrite)?;
        let (services, public, settings) = (new.services.clone(), new.public.clone(), new.rules.clone());
        let rules = Rules::compile(services, public, settings, &mut self.ids).map_err(ChangeError::Rules)?;
        let change = json!({"services": rules.services().len()});
        self.audit_as(actor, "config.reload", "config".into(), Some(change));
        self.state.rules = Arc::new(rules);
        self.state.proxy = new.proxy.clone();
        self.state.policy = new.policy.clone();
        self.batch.effects.all_users = true;
        self.power_changes.all_users = true;
        self.affected = Some(Affected::All);
        Ok(())
    }
}
