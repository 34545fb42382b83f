//! The `postroad` program: see `postroad --help`, and the library's documentation for how it is built.

use std::process::ExitCode;

fn main() -> ExitCode {
    // One TLS provider for every crate. It fails only where one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    postroad::cli::run(std::env::args_os())
}
