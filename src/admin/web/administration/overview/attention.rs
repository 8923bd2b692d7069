//! The alerts and token counts of the overview page.

use crate::{
    admin::{
        Context, Overview,
        cluster::ClusterView,
        tokens::last_used,
        web::{
            token_list::{EXPIRING, LoadedTokens, is_alive},
            words,
        },
        wire::Time,
    },
    metrics::UpstreamReading,
    store::TokenFilter,
};

/// A problem, with a link to where to look.
pub struct Alert {
    /// `bad` or `warn`.
    pub tone: &'static str,
    pub text: String,
    pub link: Option<(&'static str, String)>,
}

/// Counts of tokens that may need attention.
pub struct Attention {
    pub expiring: usize,
    /// Older than 90 days, and not used within them.
    pub unused: usize,
    pub never: usize,
    /// Without an expiry.
    pub endless: usize,
    /// The store has more tokens than were read.
    pub incomplete: bool,
}

const UNUSED_DAYS: i64 = 90;
/// The number of steps in the last ten minutes.
const RECENT: usize = 60;

impl Attention {
    /// Reads many tokens, so it must not run on the control thread.
    pub fn count(context: &Context) -> Result<Self, crate::store::ReadError> {
        let LoadedTokens { all, incomplete } = LoadedTokens::read(context, &TokenFilter::default())?;
        let (accounts, now) = (context.store.accounts(), Time::now());
        let mut found = Self { expiring: 0, unused: 0, never: 0, endless: 0, incomplete };
        let (soon, long_ago) =
            (now.plus_seconds(i64::from(EXPIRING) * 86_400), now.plus_seconds(-UNUSED_DAYS * 86_400));
        for record in all {
            let banned =
                accounts.user_by_id(&record.owner).is_some_and(|owner| owner.record.banned.is_some());
            if !is_alive(record.state(banned, now)) {
                continue;
            }
            let used = last_used(context, &record).map(|used| used.at);
            found.expiring += usize::from(record.expires_at.is_some_and(|end| end < soon));
            found.unused += usize::from(record.created_at < long_ago && used < Some(long_ago));
            found.never += usize::from(used.is_none());
            found.endless += usize::from(record.expires_at.is_none());
        }
        Ok(found)
    }
}

/// Problems with this node's membership of its cluster.
pub fn of_cluster(cluster: &ClusterView) -> Vec<Alert> {
    let alert = |tone, text: String| Alert { tone, text, link: None };
    let mut found = Vec::new();
    if cluster.standing != "member" {
        let text = format!("Node {} is not a member of its cluster: {}.", cluster.node, cluster.standing);
        found.push(alert("bad", text));
    } else if cluster.permitted_ms.is_none() {
        let text = format!("Node {} has lost touch with its cluster and answers 503.", cluster.node);
        found.push(alert("bad", text));
    }
    for member in cluster.members.iter().filter(|member| !member.same_rules) {
        let text = format!("Node {} decides by another configuration than this node.", member.node);
        found.push(alert("warn", text));
    }
    found
}

pub fn alerts(overview: &Overview, upstreams: &[UpstreamReading], attention: &Attention) -> Vec<Alert> {
    let bad = |text: &str| Alert { tone: "bad", text: text.to_owned(), link: None };
    let mut found = Vec::new();
    if !overview.ready {
        found.push(bad("The gateway accepts no requests right now. The log says why."));
    }
    if !overview.writable {
        found.push(bad("The store accepts no changes right now. The log says why."));
    }
    for upstream in upstreams {
        let down: Vec<&str> =
            upstream.urls.iter().filter(|url| !url.up || url.ejected).map(|url| url.url.as_str()).collect();
        if down.is_empty() {
            continue;
        }
        let all = down.len() == upstream.urls.len();
        let verb = if down.len() == 1 { "is" } else { "are" };
        let text = format!("Upstream {}: {} {verb} not answering.", upstream.name, down.join(", "));
        let link = Some(("Services", "/services".to_owned()));
        found.push(Alert { tone: if all { "bad" } else { "warn" }, text, link });
    }
    let recent = |counts: &[u64]| counts.iter().rev().take(RECENT).sum::<u64>();
    let (failed, requests) = (recent(&overview.all.failed), recent(&overview.all.requests));
    if failed > 0 {
        let (many, tone) = if failed * 20 > requests { ("", "bad") } else { ("only ", "warn") };
        let share = failed * 100 / requests.max(1);
        let count = words::count(usize::try_from(failed).unwrap_or(usize::MAX), "request");
        let text = format!("{count} failed at an upstream in the last 10 minutes ({many}{share} % of all).");
        found.push(Alert { tone, text, link: Some(("Services", "/services".to_owned())) });
    }
    if attention.expiring > 0 {
        let verb = if attention.expiring == 1 { "expires" } else { "expire" };
        let text = format!("{} {verb} within {EXPIRING} days.", words::count(attention.expiring, "token"));
        let link = Some(("Show", "/tokens?tab=expiring&sort=expires".to_owned()));
        found.push(Alert { tone: "warn", text, link });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::cluster::MemberView;

    #[test]
    fn a_node_says_what_is_wrong_about_its_cluster() {
        let check = |standing: &str, permitted_ms, same_rules, expected: &[&str]| {
            let member = MemberView { node: "b".to_owned(), acknowledged: None, same_rules };
            let cluster = ClusterView {
                node: "a".to_owned(),
                standing: standing.to_owned(),
                position: 7,
                in_force: 7,
                permitted_ms,
                members: vec![member],
                departed: Vec::new(),
                waiting: 0,
            };
            let texts: Vec<String> = of_cluster(&cluster).into_iter().map(|alert| alert.text).collect();
            assert_eq!(texts, expected);
        };
        check("member", Some(900), true, &[]);
        check("member", None, true, &["Node a has lost touch with its cluster and answers 503."]);
        check("displaced", None, true, &["Node a is not a member of its cluster: displaced."]);
        check("member", Some(1), false, &["Node b decides by another configuration than this node."]);
    }
}
