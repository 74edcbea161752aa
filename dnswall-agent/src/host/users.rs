//! Takes a user's name or number, gives the other, or the home directory, as the host has it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use uzers::os::unix::UserExt as _;

use super::HostRoot;

/// Where the host's users are, when nothing but its files can be asked.
const PASSWD: &str = "/etc/passwd";
/// The longest of them that is read, in bytes.
pub const PASSWD_BYTES_MAX: u64 = 16 * 1024 * 1024;

impl HostRoot {
    /// The number of a user. On this process's own root the name service is asked (files, LDAP, systemd), elsewhere
    /// the file alone: its name service would have to be run there.
    pub fn uid(&self, name: &str) -> Option<u32> {
        if self.is_ours() {
            return uzers::get_user_by_name(name).map(|user| user.uid());
        }
        let passwd = self.passwd()?;
        users(&passwd).find(|user| user.name == name.as_bytes()).map(|user| user.uid)
    }

    /// The name of a user, in bytes somebody chose.
    pub fn user(&self, uid: u32) -> Option<Vec<u8>> {
        if self.is_ours() {
            return uzers::get_user_by_uid(uid).map(|user| user.name().as_bytes().to_vec());
        }
        let passwd = self.passwd()?;
        users(&passwd).find(|user| user.uid == uid).map(|user| user.name.to_vec())
    }

    /// The home directory of a user, as the host calls it.
    pub fn home(&self, uid: u32) -> Option<PathBuf> {
        let home = if self.is_ours() {
            uzers::get_user_by_uid(uid)?.home_dir().to_owned()
        } else {
            let passwd = self.passwd()?;
            PathBuf::from(OsStr::from_bytes(users(&passwd).find(|user| user.uid == uid)?.home))
        };
        home.is_absolute().then_some(home)
    }

    /// Whether users have names at all here.
    pub fn has_users(&self) -> bool {
        self.is_ours() || self.passwd().is_some()
    }

    fn passwd(&self) -> Option<Vec<u8>> {
        self.read(Path::new(PASSWD), PASSWD_BYTES_MAX).ok()
    }
}

/// A user, in bytes somebody chose.
#[derive(Debug, PartialEq, Eq)]
struct User<'p> {
    name: &'p [u8],
    uid: u32,
    home: &'p [u8],
}

/// Users of passwd(5), in order. Lines that are none (comments, NIS's `+`) are passed over.
fn users(passwd: &[u8]) -> impl Iterator<Item = User<'_>> {
    passwd.split(|byte| *byte == b'\n').filter_map(|line| {
        // name:password:uid:gid:gecos:home:…
        let mut fields = line.split(|byte| *byte == b':');
        let name = fields.next().filter(|name| !matches!(name.first(), None | Some(b'+' | b'-' | b'#')))?;
        let uid = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
        fields.next()?;
        Some(User { name, uid, home: fields.nth(1).unwrap_or_default() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_passwd() {
        let text = b"root:x:0:0:root:/root:/bin/bash\n# daemon:x:1:1::/:/x\n+:::::\n-bad::3:3::\n\
                     short:x:5\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\nodd\xff:*:1000:1000:::\n\
                     big:x:99999999999:1:::\npostgres:x:7:7:::";
        let found: Vec<_> = users(text).map(|user| (user.name, user.uid)).collect();
        let expected: [(&[u8], u32); 4] =
            [(b"root", 0), (b"postgres", 999), (b"odd\xff", 1000), (b"postgres", 7)];
        assert_eq!(found, expected);
        let homes: Vec<_> = users(text).map(|user| user.home).collect();
        assert_eq!(homes, [&b"/root"[..], b"/var/lib/postgresql", b"", b""]);
    }
}
