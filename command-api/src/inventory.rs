//! Stock: how many pieces of each variant there are. It is an aggregate of its own; its listing changes only when the stock reaches or
//! leaves zero.

// 1. The verbs.
pub mod record_movement;
pub mod set_stock;

// 2. What they share.
mod change;

pub use change::INSUFFICIENT_STOCK;

#[cfg(test)]
mod tests;
