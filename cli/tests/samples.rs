//! Every sample configuration of Debian's packages keepalived and ldirectord: imported, each line accounted for, and
//! counted in docs/import.md. `LVS_WRITE_GOLDENS=1` writes the count anew. Without the packages, which the lab
//! installs, there is nothing to see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod schema;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kubectl_lvs::import::{Fate, LocalFiles, Source, import};
use kubectl_lvs::keyword::Tool;

const BEGIN: &str =
    "<!-- samples: written by LVS_WRITE_GOLDENS=1 cargo test -p kubectl-lvs --test samples -->\n";
const END: &str = "<!-- end of samples -->\n";

fn samples() -> Vec<(Tool, PathBuf)> {
    let mut found = Vec::new();
    for (tool, folder, prefix) in [
        (
            Tool::Keepalived,
            "/usr/share/doc/keepalived/samples",
            "keepalived.conf.",
        ),
        (
            Tool::Ldirectord,
            "/usr/share/doc/ldirectord/examples",
            "ldirectord.cf",
        ),
    ] {
        let Ok(entries) = std::fs::read_dir(folder) else {
            continue;
        };
        let mut paths: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with(prefix))
            })
            .collect();
        paths.sort();
        found.extend(paths.into_iter().map(|path| (tool, path)));
    }
    found
}

fn row(tool: Tool, path: &Path, name: &str, text: &str) -> String {
    let source = Source {
        path: path.to_owned(),
        text: text.to_owned(),
        node_name: Some("lb-a".to_owned()),
        config_id: "lb-a".to_owned(),
    };
    let imported = import(tool, &[source], "default", &LocalFiles);
    schema::objects_are_valid(&imported.objects);
    let significant = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with(tool.comment()))
        .count();
    assert_eq!(
        imported.report.lines().count(),
        significant,
        "{}",
        path.display()
    );
    assert!(
        !imported.report.text().contains("not understood"),
        "{}",
        path.display()
    );
    let counts: Vec<String> = Fate::ALL
        .into_iter()
        .map(|fate| imported.report.count(fate).to_string())
        .collect();
    format!("| {name} | {significant} | {} |", counts.join(" | "))
}

#[test]
fn every_sample_is_imported_and_counted() {
    let samples = samples();
    if !samples.iter().any(|(tool, _)| *tool == Tool::Keepalived)
        || !samples.iter().any(|(tool, _)| *tool == Tool::Ldirectord)
    {
        return;
    }
    let mut table = "| file | lines | translated | changed | replaced | not offered |\n|---|---|---|---|---|---|\n".to_owned();
    for (tool, path) in samples {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        writeln!(table, "{}", row(tool, &path, &format!("`{name}`"), &text)).unwrap();
        if tool == Tool::Ldirectord {
            // Its sample has most of its services in comments: all of them at once.
            let text = text
                .lines()
                .map(|line| {
                    line.strip_prefix('#')
                        .filter(|rest| {
                            rest.starts_with(|first: char| {
                                first == '\t' || first.is_ascii_lowercase()
                            })
                        })
                        .unwrap_or(line)
                })
                .collect::<Vec<_>>()
                .join("\n");
            writeln!(
                table,
                "{}",
                row(
                    tool,
                    &path,
                    &format!("`{name}`, with what is commented out"),
                    &text
                )
            )
            .unwrap();
        }
    }
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/import.md");
    let stored = std::fs::read_to_string(&document).unwrap();
    let (before, rest) = stored.split_once(BEGIN).unwrap();
    let (inside, after) = rest.split_once(END).unwrap();
    if std::env::var_os("LVS_WRITE_GOLDENS").is_some() {
        std::fs::write(&document, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    assert!(
        inside == table,
        "docs/import.md is stale; it would say:\n{table}"
    );
}
