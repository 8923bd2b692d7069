//! The gateway itself: its services and the requests in flight.

use askama::Template;
use axum::response::Response;

use super::{Named, PageResult, Reader, Shell, render};
use crate::{
    admin::{Context, LiveView, ServiceView, offload::READS, users::READ_OTHERS, web::words},
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
    groups: Vec<Named>,
    readers: Vec<Named>,
    upstream: String,
    health: Health,
    line: u32,
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
    rows: Vec<LiveRow>,
    may_cut: bool,
    may_see_user: bool,
}

struct LiveRow {
    user: Option<Named>,
    age: String,
    received: String,
    sent: String,
    view: LiveView,
}

pub async fn services(context: Context, reader: Reader) -> PageResult {
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
            groups: named("/groups", view.readers.as_deref()),
            readers: named("/users", view.effective_readers.as_deref()),
            health: Health::from_reading(upstreams.iter().find(|reading| reading.name == upstream)),
            upstream,
            line: service.spec.origin.line,
            view,
        }
    });
    let page = ServicesPage { shell: reader.shell("Services", "/services"), services: services.collect() };
    render(&page)
}

fn named(section: &str, names: Option<&[String]>) -> Vec<Named> {
    names.unwrap_or_default().iter().map(|name| Named::new(section, name)).collect()
}

pub async fn live(context: Context, reader: Reader) -> PageResult {
    reader.caller.require(Permission::AdminRead)?;
    let rows = context.fence.list().await;
    READS.run(move || Ok(live_page(&context, &reader, rows))).await?
}

fn live_page(context: &Context, reader: &Reader, mut rows: Vec<crate::fence::LiveRow>) -> Response {
    // Without the request for this page.
    rows.retain(|row| *row.request_id != *reader.caller.request_id);
    rows.sort_by_key(|row| std::cmp::Reverse(row.age));
    let directory = context.state.snapshot().directory.clone();
    let row = |view: LiveView| LiveRow {
        user: view.user.as_ref().map(|login| Named::new("/users", login)),
        age: words::format_span(view.age_ms),
        received: words::bytes(view.bytes_in),
        sent: words::bytes(view.bytes_out),
        view,
    };
    let page = LivePage {
        shell: reader.shell("Live requests", "/live"),
        rows: rows.into_iter().map(|live| row(LiveView::new(&directory, live))).collect(),
        may_cut: reader.caller.may(Permission::AdminWrite),
        may_see_user: reader.caller.may_any(&READ_OTHERS),
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
