//! The suite on Azure Blob Storage, as Azurite has it.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::harness::Objects;
use common::url_of;

tenure_conformance::conformance!(|| Objects::at("az", url_of("TENURE_TEST_AZURE")));
