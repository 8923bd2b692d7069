//! Metric names of the previous release, reported while `metrics.old_names` is set. The next release removes
//! this file and the key.

use std::{fmt, sync::Arc};

use prometheus_client::{collector::Collector, encoding::DescriptorEncoder};

use super::{
    collectors::{Scrape, counted, in_flight, queued},
    exposition::family,
    worker::STATUS_CLASSES,
};
use crate::authz::reason::Reason;

#[derive(Debug)]
pub(super) struct OldNames(pub(super) Arc<Scrape>);

impl Collector for OldNames {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let (scrape, encoder) = (&self.0, &mut encoder);
        let services = scrape.by_service();
        let responses = services.iter().flat_map(|(service, tables)| {
            STATUS_CLASSES.into_iter().enumerate().filter_map(move |(class, name)| {
                let reasons = Reason::ALL.iter().copied();
                let counts =
                    reasons.flat_map(|reason| tables.iter().map(move |table| table.requests(reason, class)));
                counted([("service", *service), ("outcome", name)], counts)
            })
        });
        let help = "Deprecated: use permgate_requests_total with its label status_class.";
        family(encoder, "responses", help, responses)?;
        let help = "Deprecated: use permgate_tls_certificate_not_after_timestamp_seconds.";
        scrape.certificates(encoder, "tls_certificate_not_after_seconds", help)?;
        let help = "Deprecated: use permgate_upstream_requests_in_flight.";
        scrape.encode_upstream_gauge(encoder, "upstream_in_flight", help, in_flight)?;
        let help = "Deprecated: use permgate_upstream_requests_queued.";
        scrape.encode_upstream_gauge(encoder, "upstream_queued", help, queued)
    }
}
