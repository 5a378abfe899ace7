//! Prints the reference of the API, which `make generate` keeps in docs/reference.md.
#![allow(clippy::print_stdout)]

use lvs_crds::manifest::{ManifestError, definitions};
use lvs_crds::reference::reference;

fn main() -> Result<(), ManifestError> {
    print!("{}", reference(&definitions()?));
    Ok(())
}
