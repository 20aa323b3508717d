//! Point models: against the authors' own numbers, and as a config describes them.
#![allow(clippy::print_stderr)] // a test that is skipped says so

mod config;
mod pointmamba;
#[path = "../../../core/tests/support/mod.rs"]
mod support;
mod walks;

use support::{shared, table};
