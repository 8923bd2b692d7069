//! Composition: binds, wires, reloads, drains.
