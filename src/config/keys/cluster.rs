//! The keys of `[store.cluster]`.

use crate::config::key::{Key, ValueKind, duration, key, table, text, texts};

pub(super) const CLUSTER: &[Key] = &[
    texts("endpoints", "The members of etcd: `\"https://HOST:2379\"`.").required(),
    text("prefix", "In front of every key in etcd. One for each cluster of gateways.")
        .or(r#""/permgate""#),
    text("node", "This gateway's name among the others.").required(),
    // Longer than an election of etcd takes, and short enough to wait for.
    duration("lease", 5000, "How long a gateway that is cut off goes on serving, and how long a revocation may wait for it; the same on all.")
    .or(r#""10s""#),
    table("tls", TLS, "TLS of `https://` endpoints."),
    table("user", USER, "A user of etcd, where certificates do not say who asks."),
];

const TLS: &[Key] = &[
    text("ca", "PEM file: the authorities that are trusted for etcd.").required(),
    text("cert", "PEM file: the certificate that is shown to etcd."),
    text("key", "PEM file: its private key."),
];

const USER: &[Key] = &[
    text("name", "The user's name.").required(),
    key("password", ValueKind::Secret, "`\"file:PATH\"`, read at each sign-in.").required(),
];
