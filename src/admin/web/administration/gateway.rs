//! The gateway itself: its services and the requests in flight.

use askama::Template;
use axum::response::Response;

use super::{ApiResult, Reader, Shell, render};
use crate::{
    admin::{
        Context, LiveView, ServiceView,
        offload::READS,
        users::READ_OTHERS,
        web::{example_url, explain_link, words},
    },
    authz::subject::Permission,
    metrics::UpstreamReading,
};

#[derive(Template)]
#[template(path = "services.html")]
struct ServicesPage {
    shell: Shell,
    services: Vec<ServiceRow>,
}

struct ServiceRow {
    view: ServiceView,
    upstream: String,
    health: Health,
    line: u32,
    /// The link to the page that explains a request to it.
    explain: Option<String>,
}

/// An upstream's health as a word, with its colour.
pub struct Health {
    pub tone: &'static str,
    pub text: String,
}

#[derive(Template)]
#[template(path = "live.html")]
struct LivePage {
    shell: Shell,
    rows: Vec<LiveView>,
}

pub async fn services(context: Context, reader: Reader) -> ApiResult {
    reader.caller.require(Permission::AdminRead)?;
    READS.run(move || Ok(services_page(&context, &reader))).await?
}

fn services_page(context: &Context, reader: &Reader) -> Response {
    let snapshot = context.state.snapshot();
    let upstreams = context.metrics.upstreams();
    let services = snapshot.rules.services().iter().map(|service| {
        let view = ServiceView::new(service).with_readers(service, &snapshot.directory);
        let upstream = service.spec.upstream.to_string();
        ServiceRow {
            health: Health::from_reading(upstreams.iter().find(|reading| reading.name == upstream)),
            upstream,
            line: service.spec.origin.line,
            explain: example_url(&service.spec).map(|url| explain_link(Some(&url), None)),
            view,
        }
    });
    let page = ServicesPage { shell: reader.shell("Services", "/services"), services: services.collect() };
    render(&page)
}

pub async fn live(context: Context, reader: Reader) -> ApiResult {
    reader.caller.require(Permission::AdminRead)?;
    let rows = context.fence.list().await;
    READS.run(move || Ok(live_page(&context, &reader, rows))).await?
}

fn live_page(context: &Context, reader: &Reader, mut rows: Vec<crate::fence::LiveRow>) -> Response {
    // Without the request for this page.
    rows.retain(|row| *row.request_id != *reader.caller.request_id);
    rows.sort_by_key(|row| std::cmp::Reverse(row.age));
    let directory = context.state.snapshot().directory.clone();
    let page = LivePage {
        shell: reader.shell("Live requests", "/live"),
        rows: rows.into_iter().map(|row| LiveView::new(&directory, row)).collect(),
    };
    render(&page)
}

impl Health {
    pub fn from_reading(reading: Option<&UpstreamReading>) -> Self {
        let Some(reading) = reading else {
            return Self { tone: "", text: "no upstream".to_owned() };
        };
        let all = reading.urls.len();
        let up = reading.urls.iter().filter(|url| url.up && !url.ejected).count();
        match all - up {
            0 if !reading.is_checked => Self { tone: "", text: "not checked".to_owned() },
            0 => Self { tone: "good", text: "up".to_owned() },
            down if down == all => Self { tone: "bad", text: "down".to_owned() },
            down => Self { tone: "warn", text: format!("{} of {all} down", words::count(down, "URL")) },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::UrlReading;

    #[test]
    fn an_upstream_without_health_checks_is_not_called_up() {
        let check = |is_checked: bool, ups: &[bool], expected: &str| {
            let url = |up: &bool| UrlReading { url: String::new(), up: *up, ejected: false };
            let urls = ups.iter().map(url).collect();
            let name = "tracker".to_owned();
            let reading = UpstreamReading { name, urls, is_checked, requests: None, connections: None };
            assert_eq!(Health::from_reading(Some(&reading)).text, expected, "{is_checked} {ups:?}");
        };
        check(true, &[true], "up");
        check(false, &[true], "not checked");
        check(false, &[true, true], "not checked");
        check(false, &[true, false], "1 URL of 2 down");
        check(true, &[false], "down");
        assert_eq!(Health::from_reading(None).text, "no upstream");
    }
}
