//! What a server sends: takes it as it comes, puts it into a file, and says whether that is the whole of what may be a list.
//!
//! It is bounded in bytes, as it comes and as it unpacks; what unpacks to too much is given up on the way, and nothing of it kept.

use std::fs::File;
use std::io::{self, Read, Write};

use flate2::write::MultiGzDecoder;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::super::source::GZIP;
use crate::digest::hexadecimal;

/// Bytes of a list as it is sent, and once it is unpacked: 45 for each of as many names as all lists may have.
pub const FETCHED_BYTES_MAX: u64 = 512 << 20;
/// Bytes of a body that are looked at for signs of a web page.
const HEAD_BYTES: usize = 512;

/// Why there is no answer that could count, in words that hold no secret of the URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Nothing came, or not the whole.
    Failed(String),
    /// What came is no list.
    Refused(String),
}

impl From<String> for Miss {
    fn from(why: String) -> Self {
        Self::Failed(why)
    }
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// The server says that it packed it.
    is_packed: bool,
    /// Something says where it ends.
    has_end: bool,
}

impl Encoding {
    /// What the headers say.
    ///
    /// # Errors
    /// When it is in a way that was not asked for.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, String> {
        let text =
            |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).to_lowercase());
        let is_packed = match text(header::CONTENT_ENCODING).as_deref() {
            None | Some("identity" | "") => false,
            Some("gzip" | "x-gzip") => true,
            Some(_) => {
                return Err(
                    "the server packed it in a way that it was not asked for; gzip is fine".to_owned()
                );
            }
        };
        let is_chunked = text(header::TRANSFER_ENCODING).is_some_and(|coding| coding.contains("chunked"));
        Ok(Self { is_packed, has_end: is_chunked || headers.contains_key(header::CONTENT_LENGTH) })
    }
}

/// What comes, on its way into a file.
pub(super) struct Body<'f> {
    file: &'f mut File,
    encoding: Encoding,
    digest: Sha256,
    bytes: u64,
    unpacked: Unpacked,
}

/// What it unpacks to, of which only the beginning is kept.
enum Unpacked {
    /// Nothing has come.
    Unknown,
    Plain(Head),
    Packed(Box<MultiGzDecoder<Head>>),
}

#[derive(Default)]
struct Head {
    text: Vec<u8>,
    bytes: u64,
}

impl<'f> Body<'f> {
    /// Nothing of it is there yet.
    pub(super) fn new(file: &'f mut File, encoding: Encoding) -> Self {
        Self { file, encoding, digest: Sha256::new(), bytes: 0, unpacked: Unpacked::Unknown }
    }

    /// Takes what the reader gives, to its end.
    ///
    /// # Errors
    /// When it breaks off (`explain` has words for it), or it is too much.
    pub(super) fn copy(
        &mut self,
        mut reader: impl Read,
        explain: &dyn Fn(io::Error) -> String,
    ) -> Result<(), Miss> {
        let mut buffer = vec![0; 1 << 16];
        // Two bytes tell whether it is packed.
        let mut begun = 0;
        loop {
            let count = match reader.read(&mut buffer[begun..]) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(Miss::Failed(format!("it broke off after {} bytes", self.bytes)));
                }
                Err(error) => return Err(Miss::Failed(explain(error))),
            };
            begun += count;
            if count > 0 && begun < GZIP.len() && matches!(self.unpacked, Unpacked::Unknown) {
                continue;
            }
            self.take(&buffer[..begun])?;
            begun = 0;
            if count == 0 {
                return Ok(());
            }
        }
    }

    fn take(&mut self, part: &[u8]) -> Result<(), Miss> {
        if matches!(self.unpacked, Unpacked::Unknown) && !part.is_empty() {
            self.unpacked = match part.starts_with(&GZIP) {
                true => Unpacked::Packed(Box::new(MultiGzDecoder::new(Head::default()))),
                false => Unpacked::Plain(Head::default()),
            };
        }
        self.bytes += part.len() as u64;
        if self.bytes > FETCHED_BYTES_MAX {
            return Err(Miss::Refused(too_long()));
        }
        let unpacked = match &mut self.unpacked {
            Unpacked::Unknown => Ok(()),
            Unpacked::Plain(head) => head.write_all(part),
            Unpacked::Packed(decoder) => decoder.write_all(part),
        };
        unpacked.map_err(unpacking)?;
        self.digest.update(part);
        Ok(self.file.write_all(part).map_err(|error| format!("it cannot be kept: {error}"))?)
    }

    /// Gives its digest and its length.
    ///
    /// # Errors
    /// When it did not come whole, or is no list for sure.
    pub(super) fn finish(self) -> Result<(String, u64), Miss> {
        let Self { file, encoding, digest, bytes, unpacked } = self;
        let (head, is_packed) = match unpacked {
            Unpacked::Unknown => return Err(Miss::Refused("it is empty".to_owned())),
            Unpacked::Plain(head) => (head, false),
            Unpacked::Packed(decoder) => (decoder.finish().map_err(unpacking)?, true),
        };
        if encoding.is_packed && !is_packed {
            return Err(Miss::Failed(
                "the server says that it is packed with gzip, and it is not".to_owned(),
            ));
        }
        if !is_packed && !encoding.has_end {
            let why = "the server does not say how long it is, so that nobody knows whether it is whole";
            return Err(Miss::Failed(why.to_owned()));
        }
        if head.is_page() {
            return Err(Miss::Refused("it is a web page, and not a list".to_owned()));
        }
        file.sync_all().map_err(|error| format!("it cannot be kept: {error}"))?;
        Ok((hexadecimal(&digest.finalize()), bytes))
    }
}

fn unpacking(error: io::Error) -> Miss {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => Miss::Failed("it is cut off: its gzip has no end".to_owned()),
        io::ErrorKind::FileTooLarge => Miss::Refused(error.to_string()),
        _ => Miss::Failed(format!("it cannot be unpacked: {error}")),
    }
}

fn too_long() -> String {
    format!("it is longer than {FETCHED_BYTES_MAX} bytes")
}

impl Head {
    /// Whether it begins as HTML does.
    fn is_page(&self) -> bool {
        let text = String::from_utf8_lossy(&self.text).to_lowercase();
        let text = text.trim_start_matches('\u{feff}').trim_start();
        ["<!doctype", "<html", "<head", "<?xml", "<!--"].iter().any(|begin| text.starts_with(begin))
    }
}

impl Write for Head {
    fn write(&mut self, part: &[u8]) -> io::Result<usize> {
        self.bytes += part.len() as u64;
        if self.bytes > FETCHED_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, too_long()));
        }
        let wanted = HEAD_BYTES.saturating_sub(self.text.len()).min(part.len());
        self.text.extend_from_slice(&part[..wanted]);
        Ok(part.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;

    fn taken(parts: &[&[u8]], encoding: Encoding) -> Result<u64, Miss> {
        let mut file = tempfile::tempfile().unwrap();
        let mut body = Body::new(&mut file, encoding);
        let all: Vec<u8> = parts.concat();
        body.copy(all.as_slice(), &|error| error.to_string())?;
        body.finish().map(|(_, bytes)| bytes)
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    const PLAIN: Encoding = Encoding { is_packed: false, has_end: true };

    #[test]
    fn bodies_have_to_be_whole() {
        let whole = packed(b"evil.example\n");
        let endless = Encoding { has_end: false, ..PLAIN };
        assert_eq!(taken(&[b"evil.example\n"], PLAIN), Ok(13));
        assert_eq!(taken(&[&whole], PLAIN), Ok(whole.len() as u64));
        assert!(taken(&[&whole, &whole], endless).is_ok(), "its own end tells");
        assert!(taken(&[b"a"], PLAIN).is_ok());
        for (wrong, encoding) in [
            (&b"evil.example\n"[..], endless),
            (b"", PLAIN),
            (&whole[..whole.len() - 1], PLAIN),
            (&whole[..12], PLAIN),
            (&whole[..2], PLAIN),
            (b"evil.example\n", Encoding { is_packed: true, has_end: true }),
            (b"  <!DOCTYPE html><p>evil.example", PLAIN),
            (&packed("\u{feff}<HTML>".as_bytes()), PLAIN),
        ] {
            assert!(taken(&[wrong], encoding).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn what_unpacks_to_too_much_is_noticed_on_the_way() {
        let mut head = Head { bytes: FETCHED_BYTES_MAX - 3, ..Head::default() };
        assert!(head.write_all(b"abc").is_ok());
        assert_eq!(head.write_all(b"d").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn headers_say_how_it_is_sent() {
        let of = |pairs: &[(header::HeaderName, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap()));
            Encoding::of(&HeaderMap::from_iter(pairs))
        };
        assert_eq!(of(&[]), Ok(Encoding { is_packed: false, has_end: false }));
        assert_eq!(of(&[(header::CONTENT_LENGTH, "7")]), Ok(PLAIN));
        let both = [(header::TRANSFER_ENCODING, "Chunked"), (header::CONTENT_ENCODING, "GZIP")];
        assert_eq!(of(&both), Ok(Encoding { is_packed: true, has_end: true }));
        assert!(of(&[(header::CONTENT_ENCODING, "br")]).is_err());
    }
}
