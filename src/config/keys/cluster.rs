//! The keys of `[store.cluster]`.

use super::{Key, ValueKind, key};

pub(super) const CLUSTER: &[Key] = &[
    key("endpoints", ValueKind::Texts, "The members of etcd: `\"https://HOST:2379\"`.").required(),
    key("prefix", ValueKind::Text, "In front of every key in etcd. One for each cluster of gateways.")
        .or(r#""/permgate""#),
    key("node", ValueKind::Text, "This gateway's name among the others.").required(),
    // Longer than an election of etcd takes, and short enough to wait for.
    key(
        "lease",
        ValueKind::Duration(5000),
        "How long a gateway that is cut off goes on serving, and how long a revocation may wait for it; the same on all.",
    )
    .or(r#""10s""#),
    key("tls", ValueKind::Table(TLS), "TLS of `https://` endpoints."),
    key("user", ValueKind::Table(USER), "A user of etcd, where certificates do not say who asks."),
];

const TLS: &[Key] = &[
    key("ca", ValueKind::Text, "PEM file: the authorities that are trusted for etcd.").required(),
    key("cert", ValueKind::Text, "PEM file: the certificate that is shown to etcd."),
    key("key", ValueKind::Text, "PEM file: its private key."),
];

const USER: &[Key] = &[
    key("name", ValueKind::Text, "The user's name.").required(),
    key("password", ValueKind::Secret, "`\"file:PATH\"`, read at each sign-in.").required(),
];
