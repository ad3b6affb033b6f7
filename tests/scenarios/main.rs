//! What the marketplace promises, told as stories. Each runs against real servers and real processes.

mod harness;
