//! How a node of a cluster uses the shared log.

use super::{Unfenced, local_fence};
use crate::{
    fence::Cut,
    store::{
        ChangeError, Store,
        cluster::{MemberChange, Node, Protocol},
        log::Head,
        op::Op,
        writer::{Command, Transaction},
    },
};

impl Store {
    /// Number of removals that are in force on this node only, since etcd could not be written.
    pub fn unwritten(&self) -> u64 {
        self.shared.unwritten.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Applies what other nodes have appended to the log. Returns once that is in force here, with the head
    /// and the number of requests that were cut. `to`: a position known to be in the log; `None`: up to its
    /// end.
    pub async fn follow(&self, to: Option<u64>) -> Result<(Head, Cut), ChangeError> {
        let followed = self.ask(|reply| Command::Follow(to, reply)).await?.map_err(ChangeError::Closed)?;
        let mut cut = Cut(0);
        for completion in followed.completions {
            cut.0 += self.await_fence(local_fence(completion)).await?.cut.0;
        }
        Ok((followed.head, cut))
    }

    /// Appends to the log what this node proposes about the members of its cluster.
    #[cfg(feature = "etcd")]
    pub(crate) async fn propose_members(&self) -> Result<(), ChangeError> {
        self.change_members(Node::proposals).await
    }

    /// Removes this node from its cluster, so that no change waits for it. It serves no more.
    pub async fn leave(&self) -> Result<(), ChangeError> {
        self.change_members(|node| vec![node.update(Protocol::leave)]).await
    }

    async fn change_members(
        &self,
        changes: impl Fn(&Node) -> Vec<MemberChange> + Send + 'static,
    ) -> Result<(), ChangeError> {
        let Some(node) = self.shared.node.clone() else { return Ok(()) };
        let plan = move |tx: &mut Transaction| {
            changes(&node).into_iter().for_each(|change| tx.apply(Op::Node(change)));
            Ok(())
        };
        self.change(Unfenced, plan).await.map(drop)
    }
}
