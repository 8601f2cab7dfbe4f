//! Power cuts at every step.
