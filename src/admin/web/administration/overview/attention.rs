//! What somebody should look at.

use super::super::Failed;
use crate::{
    admin::{
        Context, Overview,
        offload::READS,
        tokens::last_used,
        web::{
            token_list::{EXPIRING, Records, is_alive},
            words,
        },
        wire::Time,
    },
    metrics::UpstreamReading,
    store::TokenFilter,
};

/// Something that is wrong, and where to look.
pub struct Alert {
    /// `bad` or `warn`.
    pub tone: &'static str,
    pub text: String,
    pub link: Option<(&'static str, String)>,
}

/// Tokens that somebody may want to do something about.
pub struct Attention {
    pub expiring: usize,
    /// Not used for 90 days, and older than that.
    pub unused: usize,
    pub never: usize,
    /// Without an expiry.
    pub endless: usize,
    /// The store has more tokens than were looked at.
    pub incomplete: bool,
}

const UNUSED_DAYS: i64 = 90;
/// The steps that count as now: ten minutes.
const RECENT: usize = 60;

impl Attention {
    pub async fn read(context: &Context) -> Result<Self, Failed> {
        let context = context.clone();
        Ok(READS.run(move || Self::count(&context)).await??)
    }

    fn count(context: &Context) -> Result<Self, crate::store::ReadError> {
        let Records { all, incomplete } = Records::read(context, &TokenFilter::default())?;
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
        let text = format!("Upstream {}: {} not answering.", upstream.name, down.join(", "));
        let text = text.replace(
            " not answering",
            if down.len() == 1 { " is not answering" } else { " are not answering" },
        );
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
        found.push(Alert {
            tone: "warn",
            text,
            link: Some(("Show", "/tokens?tab=expiring&sort=expires".to_owned())),
        });
    }
    found
}
