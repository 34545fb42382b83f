//! What finished mail leaves behind goes after its time, and nothing else does.
