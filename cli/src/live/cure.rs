//! What to do about a reason: the rows of docs/troubleshooting.md, which people can read there as well.

/// The document.
const DOCUMENT: &str = include_str!("../../../docs/troubleshooting.md");

/// What the document says of a reason, without its marks of Markdown.
pub fn of(reason: &str) -> Option<String> {
    let word = format!("`{reason}`");
    let mut rows = DOCUMENT.lines().filter_map(|line| {
        let line = line.strip_prefix("| ")?.strip_suffix(" |")?;
        line.split_once(" | ")
    });
    rows.find(|(reasons, _)| reasons.split(", ").any(|one| one == word))
        .map(|(_, text)| plain(text))
}

/// `[text](target)` becomes text (docs/target), and code loses its marks.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        plain.push_str(before);
        let Some((name, target, end)) = link_parts(link) else {
            plain.push('[');
            rest = link;
            continue;
        };
        let file = target.split('#').next().unwrap_or_default();
        if name == file {
            plain.push_str("docs/");
            plain.push_str(file);
        } else {
            plain.push_str(name);
            plain.push_str(" (docs/");
            plain.push_str(file);
            plain.push(')');
        }
        rest = end;
    }
    plain.push_str(rest);
    plain.replace('`', "")
}

/// Name, target and what follows, of what stands behind an opening bracket, if it is a link.
fn link_parts(text: &str) -> Option<(&str, &str, &str)> {
    let (name, after) = text.split_once("](")?;
    let (target, end) = after.split_once(')')?;
    (!name.contains(['[', ']'])).then_some((name, target, end))
}

#[cfg(test)]
mod tests {
    use lvs_crds::condition::Reason;

    use super::*;

    #[test]
    fn every_reason_has_a_cure_without_marks() {
        for reason in Reason::ALL {
            let cure = of(reason.as_str());
            let cure = cure.unwrap_or_default();
            assert!(!cure.is_empty(), "{reason}");
            assert!(!cure.contains('`') && !cure.contains("]("), "{cure}");
        }
        assert_eq!(of("NoSuchReason"), None);
        assert_eq!(of(""), None);
    }

    #[test]
    fn links_become_files() {
        assert_eq!(
            plain("see [nodes.md](nodes.md), [rules](health-checks.md#draining)"),
            "see docs/nodes.md, rules (docs/health-checks.md)"
        );
        assert_eq!(plain("`a[0]`, [a](b.md)"), "a[0], a (docs/b.md)");
    }
}
