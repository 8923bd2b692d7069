//! The keys of `[store.cluster]`.

use crate::config::key::{Key, duration, secret, table, text, texts};

pub(super) const CLUSTER: &[Key] = &[
    texts("endpoints", "The members of etcd: `\"https://HOST:2379\"`.").required(),
    text("prefix", "Prefix of every key in etcd; one for each cluster.")
        .with_default(r#""/permgate""#),
    text("node", "This gateway's name in the cluster; unique.").required(),
    // Longer than an election of etcd takes, and short enough to wait for.
    duration("lease", 5000, "How long a gateway that has lost etcd still serves, and how long a revocation may wait for it; the same on every gateway.")
    .with_default(r#""10s""#),
    table("tls", TLS, "TLS of `https://` endpoints."),
    table("user", USER, "An etcd user, if client certificates do not identify one."),
];

const TLS: &[Key] = &[
    text("ca", "PEM file: certificate authorities for etcd.").required(),
    text("cert", "PEM file: permgate's client certificate for etcd."),
    text("key", "PEM file: its private key."),
];

const USER: &[Key] = &[
    text("name", "The user's name.").required(),
    secret("password", "`\"file:PATH\"`, read at every sign-in.").required(),
];
