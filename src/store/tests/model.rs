//! Random verbs against the state functions: both end alike.
