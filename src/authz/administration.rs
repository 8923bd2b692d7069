//! Who may do what on the admin listener: the table of domain.md, "Administration", as functions.
