//! A request's way from a worker's connection to an upstream and back.
