//! What makes a program a good process: how it is set, seen, stopped and spoken to. No word of the business is in here.
//!
//! Read it in the order of a program's life.

// 1. It is started: settings from the environment, a clock, logs and traces, or lines on the standard output.
pub mod clock;
pub mod settings;
pub mod stdout;
pub mod telemetry;

// 2. It shows how it is doing, on a port of its own.
pub mod lifecycle;
pub mod metrics;
pub mod ops;

// 3. It answers requests: who calls, what they send, what is wrong with it.
pub mod bearer;
pub mod http;
pub mod problem;
pub mod serve;

// 4. It asks a server that may come and go.
pub mod basic_auth;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;

// 5. It is stopped, and ends in order.
pub mod run;

/// Every request allocates in layers of small futures and frees them on another thread; glibc's allocator spent a fifth of the
/// time of a cached read on it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
