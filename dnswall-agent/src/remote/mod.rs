//! What all have in common that ask servers elsewhere: takes where a server is and whom it is known by, gives connections
//! that are bounded in time. Nothing here shows what is secret in a URL or a file.

mod hidden;
mod http;
mod secret;
mod shown;
mod stream;
mod trust;
mod url;
mod words;

pub use hidden::Hidden;
pub use http::{Client, NoReply, Reply, Scheme, Server};
pub use secret::Secret;
pub use stream::{Peer, Place, Stream, Transport};
pub use trust::{Identity, Trust};
pub use url::{BadUrl, ServerUrl, without_secrets};
pub use words::http_words;
