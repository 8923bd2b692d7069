//! The reload: new rules for everybody, all or nothing.

use std::sync::Arc;

use serde_json::json;

use super::Desk;
use crate::{
    authz::{rules::Rules, subject::Permission},
    fence::Affected,
    store::{
        ChangeError,
        change::{Actor, Configuration},
    },
};

impl Desk {
    pub(crate) fn replace_configuration(
        &mut self,
        actor: &Actor,
        new: &Configuration,
    ) -> Result<(), ChangeError> {
        let parent = self.parent(actor)?;
        self.acting(actor, &parent)?.require(Permission::AdminWrite)?;
        let (services, public, settings) = (new.services.clone(), new.public.clone(), new.rules.clone());
        let rules = Rules::compile(services, public, settings, &mut self.ids).map_err(ChangeError::Rules)?;
        let change = json!({"services": rules.services().len()});
        self.note(actor, "config.reload", "config".into(), Some(change));
        self.standing.rules = Arc::new(rules);
        self.standing.proxy = new.proxy.clone();
        self.standing.policy = new.policy.clone();
        self.pending.everybody = true;
        self.affected = Some(Affected::Everybody);
        Ok(())
    }
}
