//! Every keyword of keepalived, ldirectord and ipvsadm, and what becomes of it here: one table for the importer
//! and for docs/dictionary.md.

pub mod ipvsadm;
pub mod keepalived;
pub mod ldirectord;

use crate::import::Fate;

/// A tool whose configuration is imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// keepalived.conf(5).
    Keepalived,
    /// ldirectord(8), ldirectord.cf.
    Ldirectord,
    /// What `ipvsadm --save` writes, ipvsadm(8).
    Ipvsadm,
}

impl Tool {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Keepalived, Self::Ldirectord, Self::Ipvsadm];

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Keepalived => "keepalived",
            Self::Ldirectord => "ldirectord",
            Self::Ipvsadm => "ipvsadm",
        }
    }

    /// Characters that begin a comment.
    pub const fn comment(self) -> &'static [char] {
        match self {
            Self::Keepalived => &['#', '!'],
            Self::Ldirectord | Self::Ipvsadm => &['#'],
        }
    }

    /// Its keywords.
    pub const fn rows(self) -> &'static [Row] {
        match self {
            Self::Keepalived => keepalived::ROWS,
            Self::Ldirectord => ldirectord::ROWS,
            Self::Ipvsadm => ipvsadm::ROWS,
        }
    }

    /// The row of a keyword in a place.
    pub fn find(self, place: &str, word: &str) -> Option<&'static Row> {
        self.rows().iter().find(|row| {
            row.places().any(|known| known == place) && row.words().any(|known| known == word)
        })
    }
}

/// Keywords that mean the same, and what becomes of them.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    places: &'static str,
    words: &'static str,
    /// What becomes of them.
    pub fate: Fate,
    /// Kind and field that say the same, or nothing.
    pub field: &'static str,
    /// What is different, what does it instead, or why nothing does.
    pub remark: &'static str,
}

impl Row {
    /// Blocks in which the keywords stand.
    pub fn places(&self) -> impl Iterator<Item = &'static str> {
        self.places.split(' ')
    }

    /// The keywords.
    pub fn words(&self) -> impl Iterator<Item = &'static str> {
        self.words.split(' ')
    }
}

const fn translated(
    places: &'static str,
    words: &'static str,
    field: &'static str,
    remark: &'static str,
) -> Row {
    Row {
        places,
        words,
        fate: Fate::Translated,
        field,
        remark,
    }
}

const fn changed(
    places: &'static str,
    words: &'static str,
    field: &'static str,
    remark: &'static str,
) -> Row {
    Row {
        places,
        words,
        fate: Fate::Changed,
        field,
        remark,
    }
}

const fn replaced(
    places: &'static str,
    words: &'static str,
    field: &'static str,
    remark: &'static str,
) -> Row {
    Row {
        places,
        words,
        fate: Fate::Replaced,
        field,
        remark,
    }
}

const fn not_offered(places: &'static str, words: &'static str, remark: &'static str) -> Row {
    Row {
        places,
        words,
        fate: Fate::NotOffered,
        field: "",
        remark,
    }
}
