//! The Prometheus text formats: chooses one for a scraper, and encodes metric families, while
//! `metrics.old_names` is set also under the names of the previous release. The next release removes
//! these and the key.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{
        DescriptorEncoder, EncodeLabel as _, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder,
        NoLabelSet, prometheus_text, text,
    },
    metrics::{MetricType, TypedMetric},
    registry::Registry,
};

use super::{
    cell::{BOUNDS, Distribution},
    collectors::{Scrape, counted, in_flight, queued},
    worker::STATUS_CLASSES,
};
use crate::authz::reason::Reason;

/// The format of the response to a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4, which every scraper reads.
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// Chooses by the values of `Accept`. OpenMetrics writes `le="1.0"` for what was always `le="1"`, so it
    /// is only for scrapers that accept nothing else. Prometheus accepts both.
    pub fn accepted<'a>(accept: impl IntoIterator<Item = &'a str>) -> Self {
        let ranges = accept.into_iter().flat_map(|value| value.split(','));
        let mut openmetrics = false;
        for range in ranges {
            let mut parts = range.split(';').map(str::trim);
            let media_type = parts.next().unwrap_or_default().to_ascii_lowercase();
            let refused = parts.any(|part| {
                part.split_once('=').is_some_and(|(name, weight)| {
                    name.trim().eq_ignore_ascii_case("q") && weight.trim().parse() == Ok(0.0)
                })
            });
            match media_type.as_str() {
                "text/plain" | "text/*" | "*/*" if !refused => return Self::Prometheus,
                "application/openmetrics-text" | "application/*" if !refused => openmetrics = true,
                _ => {}
            }
        }
        if openmetrics { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Encodes both collectors. Their names get the prefixes `permgate_` and `process_`.
pub(super) fn encode(
    permgate: impl IntoIterator<Item = Box<dyn Collector>>,
    process: Box<dyn Collector>,
    format: Format,
) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    let with_prefix = registry.sub_registry_with_prefix("permgate");
    permgate.into_iter().for_each(|collector| with_prefix.register_collector(collector));
    registry.sub_registry_with_prefix("process").register_collector(process);
    let mut page = String::with_capacity(16 << 10);
    match format {
        Format::Prometheus => prometheus_text::encode(&mut page, &registry)?,
        Format::OpenMetrics => text::encode(&mut page, &registry)?,
    }
    Ok(page)
}

/// Encodes a family. The encoder adds the prefix and the suffix `_total` or `_info`, so `name` has neither.
pub(super) fn family<L: EncodeLabelSet, M: EncodeMetric + TypedMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (L, M)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, M::TYPE)?;
    for (labels, metric) in samples {
        metric.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

/// The labels of one sample. Labels with an empty value are omitted, which means the same to Prometheus.
pub(super) struct Labels<'a, const N: usize>(pub(super) [(&'static str, &'a str); N]);

pub(super) const NO_LABELS: Labels<'static, 0> = Labels([]);

impl<const N: usize> EncodeLabelSet for Labels<'_, N> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for label in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            label.encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

impl TypedMetric for Distribution {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Distribution {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets).collect();
        let count = self.buckets.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(self.nanos), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[expect(clippy::cast_precision_loss, reason = "loses only nanoseconds, beyond 104 days")]
fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scraper_gets_the_format_it_accepts() {
        fn check(name: &str, accept: &[&str], expected: Format) {
            assert_eq!(Format::accepted(accept.iter().copied()), expected, "{name}");
        }
        check("no Accept", &[], Format::Prometheus);
        check("anything", &["*/*"], Format::Prometheus);
        let prometheus =
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        check("Prometheus", &[prometheus], Format::Prometheus);
        check("OpenMetrics alone", &["application/openmetrics-text; version=1.0.0"], Format::OpenMetrics);
        check("in any case", &["Application/OpenMetrics-Text"], Format::OpenMetrics);
        check("text refused", &["application/openmetrics-text", "text/plain; q=0"], Format::OpenMetrics);
        check("OpenMetrics refused", &["application/openmetrics-text;q=0"], Format::Prometheus);
        check("neither", &["application/json"], Format::Prometheus);
    }
}
