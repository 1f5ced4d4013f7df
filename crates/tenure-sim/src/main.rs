//! `cargo run -p tenure-sim -- --seeds 1000`: the sweep of `cargo xtask sim`, by itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure_sim::command(std::env::args().skip(1))
}
