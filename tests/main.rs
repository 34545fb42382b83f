//! Everything that is seen from outside: the real binary, real sockets, real disks. One binary, so that it links once.
//!
//! `support` starts the relay and plays its clients and upstreams; `dialogs` runs `dialogs/*.smtp` against the real
//! listener; `journey` has one file a behaviour; `clients` has the programs that people submit mail with; `standins`
//! holds the stand-ins of the ESPs to what the vendors publish; `floors` holds the table of `src/lib.rs`.
//!
//! | variable | what it does |
//! |---|---|
//! | `POSTROAD_LONG=1` | the runs that take minutes or ten thousand sockets |
//! | `POSTROAD_CRASH_ROUNDS=200` | rounds of `kill -9` (20) |
//! | `POSTROAD_SEED=7` | the seed that a failed random test printed |
//! | `POSTROAD_REQUIRE_CLIENTS=1` | a missing program fails its test, which otherwise says so and passes |
//! | `POSTROAD_NODEMAILER=DIR` | the `node_modules` that has nodemailer |
//! | `POSTROAD_VECTORS=DIR` | published signatures of webhooks, for the library's own tests |
//! | `POSTROAD_OPENAPI=DIR` | the vendors' own descriptions of their APIs, for Prism |
//! | `POSTROAD_PRISM=FILE` | Prism, which judges requests by such a description |
//! | `POSTROAD_MINISTACK=FILE` | ministack, which takes mail as Amazon SES does |
//! | `POSTROAD_TEST_BINARY=FILE` | another relay than the one just built |

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::dbg_macro,
    missing_docs,
    reason = "a test stops at the first thing that is not as it should be, and says so"
)]

mod bad_config;
mod clients;
mod dialogs;
mod floors;
mod journey;
mod standins;
mod support;
