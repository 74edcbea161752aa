//! Takes a user id, gives the name the host has for it, remembered for a while.

use std::fmt;
use std::sync::Arc;

use super::text::printable;
use crate::host::HostRoot;
use crate::lru::Lru;

/// User names remembered.
pub const USERS_MAX: usize = 1_024;
/// How long a name is used without asking again, in nanoseconds.
pub const USER_FRESH_NS: u64 = 300_000_000_000;
/// Bytes of a user name that are shown (useradd allows 32, directories more).
const USER_BYTES_MAX: usize = 256;

type Lookup = Box<dyn FnMut(u32) -> Option<String> + Send>;

/// User names by id.
pub struct Users {
    lookup: Lookup,
    names: Lru<u32, (u64, Option<Arc<str>>)>,
}

impl Users {
    /// The host's users.
    pub fn of(host: HostRoot) -> Self {
        Self::with(move |uid| Some(printable(&host.user(uid)?, USER_BYTES_MAX)))
    }

    /// Users from elsewhere.
    pub fn with(lookup: impl FnMut(u32) -> Option<String> + Send + 'static) -> Self {
        Self { lookup: Box::new(lookup), names: Lru::new(USERS_MAX) }
    }

    /// The name, if there is one. `now_ns` is the monotonic clock.
    pub fn name(&mut self, uid: u32, now_ns: u64) -> Option<Arc<str>> {
        if let Some((asked_ns, name)) = self.names.get(&uid)
            && now_ns.saturating_sub(*asked_ns) < USER_FRESH_NS
        {
            return name.clone();
        }
        let name: Option<Arc<str>> = (self.lookup)(uid).map(Arc::from);
        self.names.insert(uid, (now_ns, name.clone()));
        name
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Users").field("names", &self.names).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_for_once_in_a_while() {
        let mut asked = 0;
        let mut users = Users::with(move |uid| {
            asked += 1;
            (uid == 7).then(|| format!("seven-{asked}"))
        });
        assert_eq!(users.name(7, 0).as_deref(), Some("seven-1"));
        assert_eq!(users.name(7, USER_FRESH_NS - 1).as_deref(), Some("seven-1"));
        assert_eq!(users.name(8, 0), None);
        assert_eq!(users.name(7, USER_FRESH_NS).as_deref(), Some("seven-3"));
    }

    #[test]
    fn root_has_its_name() {
        assert_eq!(Users::of(HostRoot::default()).name(0, 0).as_deref(), Some("root"));
    }
}
