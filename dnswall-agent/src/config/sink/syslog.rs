//! Takes the keys of a receiver of syslog, gives where it is and what a message is.

use super::{ALL_FORMATS, NAME_BYTES_MAX, SinkTarget, read_format};
use crate::config::remote::read_remote;
use crate::config::section::Section;
use crate::format::syslog::{Facility, Syslog};
use crate::policy::Problem;
use crate::remote::{Place, Transport};
use crate::sink::syslog::Framing;

pub(super) fn read_syslog(section: &mut Section<'_, '_>) -> Option<SinkTarget> {
    let hint = "write address = \"tls://siem.example.net:6514\"; tcp:// and udp:// are there, too";
    section.require("address", hint);
    let place = section.name("address", NAME_BYTES_MAX).and_then(|text| {
        let place = Place::new(&text);
        if place.is_none() {
            let problem = Problem::error(section.value_span("address"), "this is no address of a receiver");
            section.note(problem.hint(hint));
        }
        place
    });
    let remote = read_remote(section);
    if let Some(Place { transport: Transport::Udp | Transport::Tcp, .. }) = &place {
        for key in ["ca", "certificate", "key"] {
            section.refuse(key, "only tls:// has certificates");
        }
    }
    let framings = [("octets", Framing::Octets), ("lines", Framing::Lines)];
    let framing = section.choice("framing", &framings).map_or(Framing::Octets, |(_, framing)| framing);
    let usual = Syslog::default();
    let facilities: Vec<(&str, Facility)> =
        Facility::NAMES.iter().filter_map(|name| Some((*name, Facility::named(name)?))).collect();
    let facility = section.choice("facility", &facilities).map_or(usual.facility, |(_, facility)| facility);
    let enterprise = section.integer("enterprise", (1, i64::from(u32::MAX)));
    let enterprise = enterprise.and_then(|number| u32::try_from(number).ok()).unwrap_or(usual.enterprise);
    let body = read_format(section, ALL_FORMATS).unwrap_or(usual.body);
    let syslog = Syslog { facility, enterprise, process: None, body };
    Some(SinkTarget::Syslog { place: place?, remote, framing, syslog })
}
