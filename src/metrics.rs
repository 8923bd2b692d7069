//! Counters and histograms with handles resolved before the hot path; Prometheus text on demand.
