//! The admin listener: `/v1`, health and metrics.
