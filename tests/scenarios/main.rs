//! What the marketplace promises. Each scenario runs against real servers and real processes.

#![expect(clippy::unwrap_used, reason = "a scenario fails by panicking, in its own functions too")]
#![expect(clippy::similar_names, reason = "a patch goes along a path, and a stream has a last message")]
#![expect(clippy::float_cmp, reason = "counters are whole numbers")]

mod a_catalogue_comes_in;
mod a_delete_is_final;
mod a_listing_is_found;
mod a_retry_changes_nothing;
mod a_stop_loses_nothing;
mod any_order;
mod commands_come_back;
mod dead_letters;
mod generations;
mod harness;
mod hostile_questions;
mod hostile_requests;
mod mixed_versions;
mod one_trace;
mod only_the_version_that_was_read;
mod pages;
mod projections_wait;
mod projectors_share;
mod provisioning;
mod query_metrics;
mod read_your_writes;
mod readiness;
mod relay_broker;
mod relay_dies;
mod relay_late_row;
mod relay_loss;
mod relay_rewind;
mod relay_takeover;
mod search_filters;
mod search_languages;
mod somebody_elses_listing;
mod stores_away;
mod the_documents_agree;
mod the_metrics_move;
mod two_variants_reach_zero;
mod visibility;
