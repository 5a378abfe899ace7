//! Writes the CustomResourceDefinitions to every directory named on the command line.
//! `make generate` names crds/generated and charts/lvs-operator/charts/crds/crds.

use std::path::PathBuf;
use std::process::ExitCode;

use lvs_crds::manifest::manifests;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("crdgen: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let directories: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if directories.is_empty() {
        return Err("name at least one directory to write to".into());
    }
    let manifests = manifests()?;
    for directory in directories {
        std::fs::create_dir_all(&directory)
            .map_err(|error| format!("create {}: {error}", directory.display()))?;
        for manifest in &manifests {
            let path = directory.join(&manifest.file_name);
            std::fs::write(&path, &manifest.yaml)
                .map_err(|error| format!("write {}: {error}", path.display()))?;
        }
    }
    Ok(())
}
