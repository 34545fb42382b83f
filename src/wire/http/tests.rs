//! The HTTP wire.
