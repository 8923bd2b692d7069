//! Pure edits of a header map: what would be sent upstream, and what goes back.
//! (The authz work package defines the functions; the proxy calls them on its hot path.)
