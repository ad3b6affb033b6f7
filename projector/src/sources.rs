//! The sources of events. A source hands events to an [applier](crate::applier) and acknowledges, where they came from, those that
//! the applier has settled. The applier does not know which source drives it.
//!
//! The live source is the only one so far. A backfill, a requeued dead letter and a repair will be others.

pub mod live;
