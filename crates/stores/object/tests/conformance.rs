//! The suite on S3, as LocalStack has it; or on any bucket that `cargo xtask conformance object
//! --url` names.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Objects;
use common::url_of;

tenure_conformance::conformance!(|| Objects::at("s3", url_of("TENURE_TEST_S3")));
