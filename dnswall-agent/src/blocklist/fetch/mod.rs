//! Lists that are fetched: takes a URL, keeps the last version that counted, and what is known of it.
//!
//! ```text
//! lists/KEY.list   the version that counts, as the server sent it (KEY: of the URL's SHA-256)
//! lists/KEY.json   when it came, what the server calls it, and what became of the last try
//! lists/KEY.new    a version that is on its way or looked at; a start removes it
//! ```
//! `request` talks to the server, `body` takes what it sends, `judge` says whether that may count, `record` when to ask again,
//! [`depot`] puts them together. A version takes the place of the one before by a rename, and only once it was read to its end.

mod body;
pub mod depot;
mod judge;
mod record;
mod request;

pub use depot::{Depot, Fetched, Job, Outcome};
pub use record::Record;
pub use request::Asked;
