//! Which alerts somebody wants to see.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::severity::Severity;
use super::{Alert, AlertPod, AlertWorkload};
use crate::glob;

/// What somebody asks for, as text; what is not there leaves everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterText {
    /// Kinds, with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// The least severity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<String>,
    /// Unit, slice, cgroup, container (id or name) or pod (`namespace/name`), with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// The rule, with `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// A name that was asked for, or one above it; or a destination's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Not before: a time (RFC 3339), or how long ago.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Not after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The same, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    kind: Option<String>,
    severity: Option<Severity>,
    workload: Option<String>,
    rule: Option<String>,
    name: Option<String>,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Filter {
    /// Understands what somebody asks for at `now`.
    ///
    /// # Errors
    /// What is not understood, for people.
    pub fn parse(text: &FilterText, now: Timestamp) -> Result<Self, String> {
        let FilterText { kind, severity, workload, rule, name, since, until } = text;
        let time = |text: &Option<String>| text.as_deref().map(|text| time(text, now)).transpose();
        Ok(Self {
            kind: kind.clone(),
            severity: severity.as_deref().map(severity_named).transpose()?,
            workload: workload.clone(),
            rule: rule.clone(),
            name: name.as_deref().map(|name| name.trim_end_matches('.').to_ascii_lowercase()),
            since: time(since)?,
            until: time(until)?,
        })
    }

    /// Whether it leaves everything.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether somebody wants to see this.
    pub fn wants(&self, alert: &Alert) -> bool {
        let Self { kind, severity, workload, rule, name, since, until } = self;
        let like = |pattern: &Option<String>, texts: &[Option<&str>]| {
            pattern.as_deref().is_none_or(|pattern| {
                let mut texts = texts.iter().flatten();
                texts.any(|text| glob::matches(pattern.as_bytes(), text.as_bytes()))
            })
        };
        let pod = alert.workload.pod.as_ref().map(AlertPod::path);
        let places = places(&alert.workload, pod.as_deref());
        like(kind, &[Some(alert.kind.name())])
            && severity.is_none_or(|least| alert.severity >= least)
            && like(workload, &places)
            && like(rule, &[alert.rule.as_deref()])
            && name.as_deref().is_none_or(|name| is_about(alert, name))
            && since.is_none_or(|since| alert.time >= since)
            && until.is_none_or(|until| alert.time <= until)
    }

    /// The same of its JSON; what cannot be read is shown.
    pub fn wants_json(&self, json: &str) -> bool {
        self.is_empty() || serde_json::from_str(json).map_or(true, |alert| self.wants(&alert))
    }
}

/// What a workload may be called by. A name counts only if nobody else can give himself the same: not one that a user's or a
/// service's own runtime gives, nor a container's in a pod, which each pod has its own of. What is muted by name would be open to
/// whoever takes the name.
fn places<'a>(workload: &'a AlertWorkload, pod: Option<&'a str>) -> [Option<&'a str>; 6] {
    let AlertWorkload { cgroup, unit, slice, container, container_name, image: _, runtime: _, pod: _ } =
        workload;
    let name = container_name.as_deref().filter(|_| container.is_some() && pod.is_none());
    let pod = pod.filter(|_| container.is_some());
    let [unit, slice, container, cgroup] = [unit, slice, container, cgroup].map(Option::as_deref);
    [unit, slice, container, cgroup, name, pod]
}

/// A question for the name or one below it, or traffic to the address.
fn is_about(alert: &Alert, name: &str) -> bool {
    let asked = alert.dns.as_ref().map(|dns| dns.name.to_ascii_lowercase());
    let below =
        |asked: &String| asked.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let destination = alert.flow.as_ref().and_then(|flow| flow.destination);
    asked.as_ref().is_some_and(below)
        || destination
            .is_some_and(|address| name.parse().is_ok_and(|wanted: std::net::IpAddr| address == wanted))
}

fn severity_named(text: &str) -> Result<Severity, String> {
    Severity::named(text)
        .ok_or_else(|| format!("{text:?} is no severity; there are {}", Severity::NAMES.join(", ")))
}

fn time(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let ago = text.parse::<SignedDuration>().ok().filter(|ago| !ago.is_negative());
    ago.and_then(|ago| now.checked_sub(ago).ok()).ok_or_else(|| {
        format!("{text:?} is no time: write like 2026-03-01T12:00:00Z, or 2h for two hours ago")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alert::sample;

    fn wants(change: impl FnOnce(&mut FilterText)) -> bool {
        let mut text = FilterText::default();
        change(&mut text);
        let now = "2026-03-01T13:00:00Z".parse().unwrap();
        let filter = Filter::parse(&text, now).unwrap();
        let alert = sample::alert();
        assert_eq!(filter.wants(&alert), filter.wants_json(&alert.to_json()));
        filter.wants(&alert)
    }

    /// `dns.direct`, medium, orders.service, `example.com` at 198.51.100.53, at noon and two seconds.
    #[test]
    fn each_key_leaves_some() {
        assert!(wants(|_| {}));
        let some = |text: &str| Some(text.to_owned());
        for (text, expected) in [("dns.*", true), ("dns.direct", true), ("egress.*", false)] {
            assert_eq!(wants(|filter| filter.kind = some(text)), expected, "{text}");
        }
        for (text, expected) in [("info", true), ("medium", true), ("high", false)] {
            assert_eq!(wants(|filter| filter.severity = some(text)), expected, "{text}");
        }
        for (text, expected) in
            [("orders*", true), ("/system.slice/*", true), ("*.slice", true), ("orders", false)]
        {
            assert_eq!(wants(|filter| filter.workload = some(text)), expected, "{text}");
        }
        for (text, expected) in [("default", true), ("deny.*", false)] {
            assert_eq!(wants(|filter| filter.rule = some(text)), expected, "{text}");
        }
        for (text, expected) in [
            ("example.com", true),
            ("COM.", true),
            ("ample.com", false),
            ("198.51.100.53", true),
            ("198.51.100.5", false),
        ] {
            assert_eq!(wants(|filter| filter.name = some(text)), expected, "{text}");
        }
        for (since, until, expected) in [
            (Some("1h"), None, true),
            (Some("59m"), None, false),
            (Some("2026-03-01T12:00:02Z"), Some("2026-03-01T12:00:02Z"), true),
            (None, Some("2026-03-01T12:00:01Z"), false),
        ] {
            let wanted = wants(|filter| {
                (filter.since, filter.until) = (since.map(str::to_owned), until.map(str::to_owned));
            });
            assert_eq!(wanted, expected, "{since:?} {until:?}");
        }
    }

    #[test]
    fn a_workload_is_called_by_its_container_or_pod() {
        let mut alert = sample::alert();
        let wants = |alert: &Alert, text: &str| {
            let filter = FilterText { workload: Some(text.to_owned()), ..FilterText::default() };
            Filter::parse(&filter, Timestamp::UNIX_EPOCH).unwrap().wants(alert)
        };
        alert.workload.container_name = Some("shop-api".to_owned());
        assert!(!wants(&alert, "shop-*"), "a user's own word");
        alert.workload.container = Some("ab".repeat(32));
        assert!(wants(&alert, "shop-*") && wants(&alert, "abab*"));
        alert.workload.pod =
            Some(AlertPod { namespace: "shop".to_owned(), name: "api-1".to_owned(), ..AlertPod::default() });
        assert!(wants(&alert, "shop/*") && wants(&alert, "shop/api-1") && wants(&alert, "orders.service"));
        assert!(!wants(&alert, "shop-*"), "each pod has its own");
    }

    #[test]
    fn what_is_not_understood_is_said() {
        let error = |text: FilterText| Filter::parse(&text, Timestamp::UNIX_EPOCH).unwrap_err();
        assert!(
            error(FilterText { since: Some("yesterday".to_owned()), ..FilterText::default() })
                .contains("two hours ago")
        );
        assert!(
            error(FilterText { severity: Some("bad".to_owned()), ..FilterText::default() })
                .contains("critical")
        );
    }
}
