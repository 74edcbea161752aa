//! Takes block lists, gives what the kernel refuses names by, and what the agent says of a name that was refused.
//!
//! `file → Source → Lines → Entry → Record → Lists`: the table that goes into the kernel, and the exact index that stays. A list
//! with a URL is a file too, which [`fetch`] keeps up to date.

pub mod bounds;
pub mod build;
pub mod difference;
mod exceptions;
pub mod fetch;
pub mod format;
pub mod index;
pub mod known_good;
pub mod lists;
pub mod name;
pub mod shelf;
pub mod source;
pub mod table;

pub use known_good::{KnownGoodNames, Pattern};
pub use lists::{Answer, Entry, ExactLists, List, ListAccount, ListAction, ListSource, Lists};
pub use shelf::{Library, Shelf, Trouble, Wanted, Which};
