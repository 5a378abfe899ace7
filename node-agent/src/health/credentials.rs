//! Credentials that checks log in with: files of a Secret that is mounted into the agent, read anew for each question, so
//! that an edit of the Secret counts as soon as the kubelet has brought it.
//!
//! The files are named NAMESPACE.NAME.FIELD. A namespace has no dot, so that the first part of a file's name is nobody
//! else's namespace. What is in them goes to real servers and nowhere else: nothing here can be printed.

use std::fs::read;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::probe::NOT_ASKED;

/// Longest user name, password or secret that is sent, in bytes: what RADIUS can carry, and more than people have.
const LONGEST_TEXT_BYTES: usize = 253;

/// The Secret that this agent was given. Without one no check that names credentials is asked.
#[derive(Clone, Debug, Default)]
pub struct CredentialFiles(Option<Mounted>);

#[derive(Clone, Debug)]
struct Mounted {
    directory: PathBuf,
    secret_name: String,
}

impl CredentialFiles {
    /// Files of the Secret of this name, in this directory.
    pub const fn new(directory: PathBuf, secret_name: String) -> Self {
        Self(Some(Mounted {
            directory,
            secret_name,
        }))
    }

    /// Credentials `name` of a namespace.
    pub const fn of<'a>(&'a self, namespace: &'a str, name: &'a str) -> Credentials<'a> {
        Credentials {
            files: self,
            namespace,
            name,
        }
    }
}

/// Credentials by their name. Errors say in words what is missing, as [`NOT_ASKED`]: they are no fault of the real server.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    files: &'a CredentialFiles,
    namespace: &'a str,
    name: &'a str,
}

/// A user and how he proves it.
pub struct Login {
    /// User.
    pub username: String,
    /// Password; may be empty.
    pub password: String,
}

impl Credentials<'_> {
    /// User and password, both of which must be there.
    pub fn login(&self) -> Result<Login, String> {
        Ok(Login {
            username: self.required("username")?,
            password: self.required("password")?,
        })
    }

    /// A text that must be there.
    pub fn required(&self, field: &str) -> Result<String, String> {
        self.optional(field)?.ok_or_else(|| self.missing(field))
    }

    /// A text that may be missing.
    pub fn optional(&self, field: &str) -> Result<Option<String>, String> {
        let Some(bytes) = self.content(field)? else {
            return Ok(None);
        };
        let key = self.key(field);
        let text = String::from_utf8(bytes).map_err(|_| format!("{NOT_ASKED}{key} is no text"))?;
        // Editors and `echo` end a file with one.
        let text = text.strip_suffix('\n').unwrap_or(&text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        // It would end a line of the conversation, and what follows would be a command.
        if text.chars().any(char::is_control) {
            return Err(format!(
                "{NOT_ASKED}{key} has a control character: remove it"
            ));
        }
        if text.len() > LONGEST_TEXT_BYTES {
            return Err(format!(
                "{NOT_ASKED}{key} is longer than {LONGEST_TEXT_BYTES} bytes"
            ));
        }
        Ok(Some(text.to_owned()))
    }

    /// Bytes that must be there.
    pub fn file(&self, field: &str) -> Result<Vec<u8>, String> {
        self.content(field)?.ok_or_else(|| self.missing(field))
    }

    fn content(&self, field: &str) -> Result<Option<Vec<u8>>, String> {
        let Some(mounted) = &self.files.0 else {
            return Ok(None);
        };
        let is_label = |text: &str| !text.is_empty() && !text.contains(['.', '/']);
        if !is_label(self.namespace) || !is_label(self.name) {
            return Ok(None);
        }
        match read(mounted.directory.join(self.key(field))) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => {
                let key = self.key(field);
                Err(format!("{NOT_ASKED}reading {key}: {error}"))
            }
        }
    }

    /// Key of the Secret.
    pub fn key(&self, field: &str) -> String {
        format!("{}.{}.{field}", self.namespace, self.name)
    }

    fn missing(&self, field: &str) -> String {
        let (namespace, name) = (self.namespace, self.name);
        let cure = match &self.files.0 {
            Some(mounted) => format!("add key {} to Secret {}", self.key(field), mounted.secret_name),
            None => "agents are given none, name a Secret in the chart's agent.healthCheckCredentials.secretName".to_owned(),
        };
        format!("{NOT_ASKED}no credentials {name} for namespace {namespace}: {cure}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn with(files: &[(&str, &[u8])]) -> (tempfile::TempDir, CredentialFiles) {
        let directory = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(directory.path().join(name), content).unwrap();
        }
        let mounted = CredentialFiles::new(directory.path().to_owned(), "checks".to_owned());
        (directory, mounted)
    }

    #[test]
    fn a_namespace_reaches_its_own_keys_and_no_other() {
        let (_directory, files) = with(&[
            ("shop.db.username", b"alice"),
            ("shop.db.password", b"one"),
            ("b.shop.db.username", b"bob"),
        ]);
        let login = files.of("shop", "db").login().unwrap();
        assert_eq!(
            (&*login.username, &*login.password),
            ("alice", "one"),
            "its own"
        );
        // Whatever a namespace and a name are made of, the first part is the namespace.
        let others = [
            ("bank", "db"),
            ("b", "db"),
            ("b.shop", "db"),
            ("b", "shop.db"),
            ("", "db"),
            ("shop", ""),
            ("..", "db"),
            ("x/../shop", "db"),
            ("x", "../shop.db"),
        ];
        for (namespace, name) in others {
            let why = files.of(namespace, name).required("username").unwrap_err();
            assert!(why.starts_with(NOT_ASKED), "{namespace} {name}: {why}");
        }
    }

    #[test]
    fn what_is_missing_is_said_with_the_cure() {
        let (_directory, files) = with(&[("shop.db.username", b"alice")]);
        assert_eq!(
            files.of("shop", "db").login().err().unwrap(),
            "not asked: no credentials db for namespace shop: add key shop.db.password to Secret checks"
        );
        let none = CredentialFiles::default();
        assert_eq!(
            none.of("shop", "db").login().err().unwrap(),
            "not asked: no credentials db for namespace shop: agents are given none, name a Secret in the chart's \
             agent.healthCheckCredentials.secretName"
        );
    }

    #[test]
    fn an_edit_counts_at_once_and_the_end_of_a_line_does_not_count() {
        let (directory, files) = with(&[("shop.db.password", b"one\n")]);
        let password = || files.of("shop", "db").required("password");
        assert_eq!(password().unwrap(), "one");
        let path = directory.path().join("shop.db.password");
        std::fs::write(&path, "two\r\n").unwrap();
        assert_eq!(password().unwrap(), "two");
        std::fs::write(&path, "").unwrap();
        assert_eq!(password().unwrap(), "");
        std::fs::remove_file(&path).unwrap();
        assert!(password().is_err());
    }

    #[test]
    fn what_cannot_be_sent_is_refused_without_being_shown() {
        let long = [b'x'; 254];
        for content in [&b"one\r\nQUIT"[..], b"one\0two", b"\xff\xfe", &long] {
            let (_directory, files) = with(&[("shop.db.password", content)]);
            let why = files.of("shop", "db").required("password").unwrap_err();
            assert!(
                why.starts_with("not asked: shop.db.password "),
                "{content:?}: {why}"
            );
            assert!(!why.contains("one"), "{why}");
        }
    }
}
