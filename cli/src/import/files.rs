//! The files that a configuration includes.

use std::path::{Path, PathBuf};

/// Where included files are read.
pub trait Files {
    /// Files that a pattern names, seen from a folder, in order of their names, with their contents.
    fn matching(&self, folder: &Path, pattern: &str) -> Result<Vec<(PathBuf, String)>, String>;
}

/// No file can be included.
pub struct NoFiles;

impl Files for NoFiles {
    fn matching(&self, _: &Path, _: &str) -> Result<Vec<(PathBuf, String)>, String> {
        Ok(Vec::new())
    }
}

/// Files of this machine.
pub struct LocalFiles;

/// Files that one pattern may name; more is a mistake.
const MOST_FILES: usize = 1024;

impl Files for LocalFiles {
    fn matching(&self, folder: &Path, pattern: &str) -> Result<Vec<(PathBuf, String)>, String> {
        let mut files = Vec::new();
        for path in expand(folder, pattern)? {
            let text = read(&path)?;
            files.push((path, text));
        }
        Ok(files)
    }
}

/// The text of a file; bytes that are not UTF-8 are replaced.
pub fn read(path: &Path) -> Result<String, String> {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|error| format!("read {}: {error}", path.display()))
}

/// Paths that a pattern names: `*`, `?`, `[…]` within a component, `{a,b}` anywhere.
fn expand(folder: &Path, pattern: &str) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for pattern in braces(pattern) {
        let mut paths = vec![folder.to_owned()];
        for component in Path::new(&pattern).components() {
            let name = component.as_os_str().to_string_lossy().into_owned();
            if name.contains(['*', '?', '[']) {
                let mut next = Vec::new();
                for path in &paths {
                    let Ok(entries) = std::fs::read_dir(path) else {
                        continue;
                    };
                    let mut names: Vec<String> = entries
                        .flatten()
                        .map(|entry| entry.file_name().to_string_lossy().into_owned())
                        .collect();
                    names.sort_unstable();
                    next.extend(
                        names
                            .into_iter()
                            .filter(|entry| !entry.starts_with('.') && matches(&name, entry))
                            .map(|entry| path.join(entry)),
                    );
                }
                paths = next;
            } else {
                for path in &mut paths {
                    path.push(component);
                }
            }
            if paths.len() > MOST_FILES {
                return Err(format!("{pattern} names more than {MOST_FILES} files"));
            }
        }
        found.extend(paths.into_iter().filter(|path| path.is_file()));
    }
    Ok(found)
}

/// The patterns that one with braces stands for, at most `MOST_FILES`.
fn braces(pattern: &str) -> Vec<String> {
    let mut patterns = vec![pattern.to_owned()];
    loop {
        let mut changed = false;
        let mut next = Vec::new();
        for pattern in patterns {
            // The innermost braces first: those that hold no other.
            let inner = pattern
                .find('}')
                .and_then(|close| pattern[..close].rfind('{').map(|open| (open, close)));
            match inner {
                Some((open, close)) if next.len() < MOST_FILES => {
                    changed = true;
                    for part in pattern[open + 1..close].split(',') {
                        next.push(format!(
                            "{}{part}{}",
                            &pattern[..open],
                            &pattern[close + 1..]
                        ));
                    }
                }
                Some(_) | None => next.push(pattern),
            }
        }
        patterns = next;
        if !changed || patterns.len() >= MOST_FILES {
            return patterns;
        }
    }
}

/// Whether a name matches a pattern of one component.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    let (mut at, mut position) = (0, 0);
    // Where to go on when what follows the last `*` does not match: it takes one character more.
    let mut star: Option<(usize, usize)> = None;
    while position < name.len() {
        match single(&pattern[at..], name[position]) {
            Some(length) if pattern.get(at) != Some(&'*') => {
                at += length;
                position += 1;
            }
            _ if pattern.get(at) == Some(&'*') => {
                star = Some((at + 1, position));
                at += 1;
            }
            _ => match star {
                Some((after, taken)) => {
                    star = Some((after, taken + 1));
                    at = after;
                    position = taken + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|character| *character == '*')
}

/// Length of the beginning of a pattern that stands for one character, if it stands for this one.
fn single(pattern: &[char], character: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => {
            let close = pattern.iter().skip(2).position(|end| *end == ']')? + 2;
            let (negated, set) = match pattern.get(1) {
                Some('!' | '^') => (true, pattern.get(2..close)?),
                _ => (false, pattern.get(1..close)?),
            };
            let mut found = false;
            let mut rest = set;
            while let Some(first) = rest.first() {
                if let [low, '-', high, ..] = rest {
                    found |= (*low..=*high).contains(&character);
                    rest = rest.get(3..).unwrap_or_default();
                } else {
                    found |= *first == character;
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
            (found != negated).then_some(close + 1)
        }
        other => (*other == character).then_some(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*.conf", "web.conf", true),
            ("*.conf", "web.conf.old", false),
            ("w?b*", "web", true),
            ("[a-c]*", "b1", true),
            ("[!a-c]*", "b1", false),
            ("**x", "aax", true),
            ("a[", "a[", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
        assert_eq!(braces("a{1,2{x,y}}b"), ["a1b", "a2xb", "a1b", "a2yb"]);
        assert_eq!(braces("plain}"), ["plain}"]);
    }

    #[test]
    fn includes_are_found_beside_the_file() {
        let folder = std::env::temp_dir().join(format!("lvs-import-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("conf.d")).unwrap();
        for name in ["b.conf", "a.conf", "c.txt"] {
            std::fs::write(folder.join("conf.d").join(name), name).unwrap();
        }
        let found = LocalFiles.matching(&folder, "conf.d/*.conf").unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let texts: Vec<&str> = found.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["a.conf", "b.conf"]);
    }
}
