//! The keys of `[store.cluster]`.

use super::{Key, Kind, key};

pub(super) const CLUSTER: &[Key] = &[
    key("endpoints", Kind::Texts, "The members of etcd: `\"https://HOST:2379\"`.").required(),
    key("prefix", Kind::Text, "In front of every key in etcd. One for each cluster of gateways.")
        .or(r#""/permgate""#),
    key("node", Kind::Text, "This gateway's name among the others.").required(),
    // Longer than an election of etcd takes, short enough to wait for.
    key(
        "lease",
        Kind::Duration(5000),
        "How long a gateway that is cut off goes on serving, and how long a revocation may wait for it; the same on all.",
    )
    .or(r#""10s""#),
    key("tls", Kind::Table(TLS), "TLS of `https://` endpoints."),
    key("user", Kind::Table(USER), "A user of etcd, where certificates do not say who asks."),
];

const TLS: &[Key] = &[
    key("ca", Kind::Text, "PEM file: the authorities that are trusted for etcd.").required(),
    key("cert", Kind::Text, "PEM file: the certificate that is shown to etcd."),
    key("key", Kind::Text, "PEM file: its private key."),
];

const USER: &[Key] = &[
    key("name", Kind::Text, "The user's name.").required(),
    key("password", Kind::Secret, "`\"file:PATH\"`, read at each sign-in.").required(),
];
