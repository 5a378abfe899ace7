//! Does the body of an answer hold what it must? No more of it is read, or kept, than it takes to tell.

use bytes::Bytes;
use lvs_crds::health_check::{HttpBody, HttpBodyType};
use memchr::memmem;
use ring::digest;

use super::pattern::{PatternSearch, Progress};
use super::{TimeLimit, hexadecimal, quoted};

/// A body that comes in pieces.
pub trait Pieces {
    /// How many bytes it has at least, where the answer says so.
    fn least_bytes(&self) -> u64;

    /// The next bytes; none at its end. An error is what broke it off, in words.
    async fn next(&mut self) -> Option<Result<Bytes, String>>;
}

/// A body that is looked at while it comes.
pub struct BodySearch {
    wanted: String,
    found: Found,
    maximum_bytes: usize,
    seen_bytes: usize,
}

/// What was found so far, by what is looked for.
enum Found {
    /// The end of what came, as long as a part of the text may begin in it.
    Text(Vec<u8>),
    /// The state after everything that came.
    Regex(PatternSearch),
    /// The digest of everything that came.
    SHA256(digest::Context),
}

impl BodySearch {
    /// A search for what `body` says in as many bytes. An error is why that cannot be looked for, in words.
    pub fn new(body: &HttpBody, maximum_bytes: usize) -> Result<Self, String> {
        let found = match body.type_ {
            HttpBodyType::Text => Found::Text(Vec::new()),
            HttpBodyType::Regex => Found::Regex(PatternSearch::new(&body.value)?),
            HttpBodyType::SHA256 => Found::SHA256(digest::Context::new(&digest::SHA256)),
        };
        Ok(Self {
            wanted: body.value.clone(),
            found,
            maximum_bytes,
            seen_bytes: 0,
        })
    }

    /// Reads until it is clear whether the body is right. An error is why it is not, in words.
    pub async fn read(mut self, mut body: impl Pieces, limit: TimeLimit) -> Result<(), String> {
        // A longer one has no digest that could be told; of one that says its length nothing needs to come.
        if body.least_bytes() > self.maximum_bytes as u64 && self.needs_the_end() {
            return Err(self.too_long());
        }
        while self.seen_bytes < self.maximum_bytes || self.needs_the_end() {
            let piece = limit.within("body not complete within", body.next());
            let Some(piece) = piece.await? else {
                return self.verdict("in its");
            };
            let piece = piece.map_err(|why| {
                let bytes = self.seen_bytes;
                format!("{why} after {bytes} bytes of the body")
            })?;
            let rest = self.maximum_bytes - self.seen_bytes;
            if piece.len() > rest && self.needs_the_end() {
                return Err(self.too_long());
            }
            match self.take(&piece[..piece.len().min(rest)])? {
                Progress::Matches => return Ok(()),
                Progress::Never => return Err(self.mismatch("in its first")),
                Progress::Open => {}
            }
        }
        self.verdict("in its first")
    }

    const fn needs_the_end(&self) -> bool {
        matches!(self.found, Found::SHA256(_))
    }

    /// Looks at the next bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<Progress, String> {
        self.seen_bytes += bytes.len();
        match &mut self.found {
            Found::Text(tail) => {
                let wanted = self.wanted.as_bytes();
                tail.extend_from_slice(bytes);
                if memmem::find(tail, wanted).is_some() {
                    return Ok(Progress::Matches);
                }
                let done = tail.len().saturating_sub(wanted.len().saturating_sub(1));
                tail.drain(..done);
                Ok(Progress::Open)
            }
            Found::Regex(search) => search.take(bytes),
            Found::SHA256(context) => {
                context.update(bytes);
                Ok(Progress::Open)
            }
        }
    }

    /// The verdict once no more is to come, with words for the part of the body that it is about.
    fn verdict(self, part: &str) -> Result<(), String> {
        let mismatch = self.mismatch(part);
        match self.found {
            Found::Text(_) => Err(mismatch),
            Found::Regex(search) => search.end()?.then_some(()).ok_or(mismatch),
            Found::SHA256(context) => {
                let digest = hexadecimal(context.finish().as_ref());
                if digest.eq_ignore_ascii_case(&self.wanted) {
                    return Ok(());
                }
                let wanted = self.wanted.to_ascii_lowercase();
                Err(format!("body has SHA256 {digest}, expected {wanted}"))
            }
        }
    }

    fn mismatch(&self, part: &str) -> String {
        let wanted = quoted(&self.wanted);
        let bytes = self.seen_bytes;
        let verb = match self.found {
            Found::Text(_) => "hold",
            Found::Regex(_) | Found::SHA256(_) => "match",
        };
        format!("body does not {verb} {wanted} {part} {bytes} bytes")
    }

    fn too_long(&self) -> String {
        let maximum = self.maximum_bytes;
        format!(
            "body is longer than the {maximum} bytes of maximumBodyBytes, its SHA256 is not told"
        )
    }
}
