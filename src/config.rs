//! `gateway.toml` to values that are valid; every error at once with file, line and column.
