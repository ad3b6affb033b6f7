//! What the marketplace promises, told as stories. Each runs against real servers and real processes.

mod dead_letters;
mod harness;
mod hostile_questions;
mod pages;
mod projections_wait;
mod projectors_share;
mod query_metrics;
mod read_your_writes;
mod relay_broker;
mod relay_dies;
mod relay_late_row;
mod relay_rewind;
mod relay_takeover;
mod stores_away;
mod visibility;
