//! systemd-nspawn: the machine's name is in its unit, `systemd-nspawn@NAME.service` in `machine.slice`, which only the system
//! manager makes (systemd.unit(5): `\xNN` stands for a byte).

use super::{Container, Runtime, text};

/// The machine of a unit, when it is one.
pub fn machine(unit: &str, slice: Option<&str>) -> Option<Container> {
    let name = unit.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?;
    (slice == Some("machine.slice")).then(|| Container {
        name: text(&unescaped(name)),
        image: None,
        runtime: Runtime::Nspawn,
        pod: None,
    })
}

fn unescaped(name: &str) -> String {
    let mut bytes = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let byte = rest.get(at + 2..at + 4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match byte {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(&rest.as_bytes()[at..at + 2]),
        }
        rest = &rest[at + if byte.is_some() { 4 } else { 2 }..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_named_by_its_unit() {
        let name = |unit, slice| machine(unit, Some(slice)).and_then(|machine| machine.name);
        assert_eq!(name("systemd-nspawn@web\\x2d1.service", "machine.slice").as_deref(), Some("web-1"));
        assert_eq!(name("systemd-nspawn@a\\xzz\\x.service", "machine.slice").as_deref(), Some("a\\xzz\\x"));
        assert_eq!(name("systemd-nspawn@web.service", "system.slice"), None);
        assert_eq!(name("web.service", "machine.slice"), None);
    }
}
