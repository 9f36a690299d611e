//! Scripted processes and judges for the promise tests.
