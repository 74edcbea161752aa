//! What the dashboard shows, row by row. Every metric has to be one of docs/monitoring.md; a test asks a real Prometheus each
//! of these expressions after it has read a real agent.

use super::delivery::DELIVERY;
use super::{Kind, Panel, Row};

const HALF: (u32, u32) = (12, 8);
pub(super) const THIRD: (u32, u32) = (8, 8);
const SIXTH: (u32, u32) = (4, 4);

/// All of them.
pub const ROWS: &[Row] = &[
    Row { title: "At a glance", panels: GLANCE },
    Row { title: "Drops", panels: DROPS },
    Row { title: "Top offenders", panels: OFFENDERS },
    Row { title: "DNS", panels: DNS },
    Row { title: "Delivery", panels: DELIVERY },
    Row { title: "Policy and lists", panels: POLICY },
    Row { title: "Proof", panels: PROOF },
    Row { title: "The agent", panels: AGENT },
];

const GLANCE: &[Panel] = &[
    Panel {
        title: "Hosts",
        description: "Agents that answer.",
        kind: Kind::Number,
        unit: "none",
        queries: &[("count(dnswall_build_info{@})", "")],
        size: SIXTH,
    },
    Panel {
        title: "Walls down",
        description: "Hosts where the kernel does not do what the policy says.",
        kind: Kind::Fault,
        unit: "none",
        queries: &[("count(dnswall_wall_stands{@} == 0) or vector(0)", "")],
        size: SIXTH,
    },
    Panel {
        title: "Refused",
        description: "Packets and attempts refused in a second.",
        kind: Kind::Number,
        unit: "cps",
        queries: &[("sum(rate(dnswall_refusals_total{@,verdict=\"denied\"}[$__rate_interval]))", "")],
        size: SIXTH,
    },
    Panel {
        title: "Longest unproven",
        description: "Since the host that was proven the longest ago was.",
        kind: Kind::Number,
        unit: "s",
        queries: &[("time() - min(dnswall_proof_last_proven_timestamp_seconds{@})", "")],
        size: SIXTH,
    },
    Panel {
        title: "Alerts not delivered",
        description: "In the time shown: lost or rejected, counted for each sink, and those that the spool refused.",
        kind: Kind::Fault,
        unit: "none",
        queries: &[(
            "(sum(increase(dnswall_sink_alerts_lost_total{@}[$__range])) or vector(0)) \
             + (sum(increase(dnswall_sink_alerts_rejected_total{@}[$__range])) or vector(0)) \
             + sum(increase(dnswall_spool_alerts_refused_total{@}[$__range]))",
            "",
        )],
        size: SIXTH,
    },
    Panel {
        title: "Tampered",
        description: "How often, in the time shown, somebody changed a wall.",
        kind: Kind::Fault,
        unit: "none",
        queries: &[("sum(increase(dnswall_tamper_total{@}[$__range]))", "")],
        size: SIXTH,
    },
];

const DROPS: &[Panel] = &[
    Panel {
        title: "Refused, by rule",
        description: "`default` is what no rule allows. A new generation of the policy begins anew.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (rule) (rate(dnswall_rule_refusals_total{@,verdict=\"denied\"}[$__rate_interval])) > 0 \
             or sum by (rule) (dnswall_rule_refusals_total{@,rule=\"default\",verdict=\"denied\"} * 0)",
            "{{rule}}",
        )],
        size: HALF,
    },
    Panel {
        title: "Refused, by reason",
        description: "docs/enforcement.md says what each reason means.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (reason) (rate(dnswall_refusals_total{@,verdict=\"denied\"}[$__rate_interval])) > 0 \
             or sum by (reason) (dnswall_refusals_total{@,reason=\"no-rule\",verdict=\"denied\"} * 0)",
            "{{reason}}",
        )],
        size: HALF,
    },
    Panel {
        title: "Would be refused, by rule",
        description: "In audit mode: what to look at before a policy enforces.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (rule) (rate(dnswall_rule_refusals_total{@,verdict=\"would-deny\"}[$__rate_interval]))",
            "{{rule}}",
        )],
        size: HALF,
    },
    Panel {
        title: "New flows allowed, by rule",
        description: "A rule that never allows anything can go.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (rule) (rate(dnswall_rule_allowed_flows_total{@}[$__rate_interval]))",
            "{{rule}}",
        )],
        size: HALF,
    },
];

const OFFENDERS: &[Panel] = &[
    Panel {
        title: "Hosts with most refusals",
        description: "Who it was there is in the alerts, and in `dnswall events` on the host: no process makes a series.",
        kind: Kind::Bars,
        unit: "none",
        queries: &[(
            "topk(10, sum by (instance) (increase(dnswall_refusals_total{@}[$__range])))",
            "{{instance}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "Rules with most refusals",
        description: "Refused, and would be refused.",
        kind: Kind::Bars,
        unit: "none",
        queries: &[(
            "topk(10, sum by (rule) (increase(dnswall_rule_refusals_total{@}[$__range])))",
            "{{rule}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "Reasons with most refusals",
        description: "Refused, and would be refused.",
        kind: Kind::Bars,
        unit: "none",
        queries: &[(
            "topk(10, sum by (reason) (increase(dnswall_refusals_total{@}[$__range])))",
            "{{reason}}",
        )],
        size: THIRD,
    },
];

const DNS: &[Panel] = &[
    Panel {
        title: "Questions refused, by reason",
        description: "Listed and denied names, types, limits, and what is no whole question.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (reason) (rate(dnswall_refusals_total{@,reason=~\".*question.*|.*name.*|label-.*|too-many-labels|\
             nxdomain-rate|answer-bytes\"}[$__rate_interval]))",
            "{{reason}}",
        )],
        size: HALF,
    },
    Panel {
        title: "Refused by block lists",
        description: "Refused, and would be refused.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[(
            "sum by (rule) (rate(dnswall_rule_refusals_total{@,rule=~\"blocklist.*\"}[$__rate_interval]))",
            "{{rule}}",
        )],
        size: HALF,
    },
    Panel {
        title: "Questions and answers told",
        description: "With `events` in `[dns]`: what the kernel told the agent of, what did not fit, what nobody answered.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[
            ("sum(rate(dnswall_dns_messages_told_total{@}[$__rate_interval]))", "told"),
            ("sum(rate(dnswall_dns_messages_lost_total{@}[$__rate_interval]))", "lost"),
            ("sum(rate(dnswall_dns_questions_unanswered_total{@}[$__rate_interval]))", "unanswered"),
        ],
        size: HALF,
    },
    Panel {
        title: "Addresses learned from answers",
        description: "For rules that lead to names. What is not learned is refused.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[
            ("sum(rate(dnswall_addresses_learned_total{@}[$__rate_interval]))", "learned"),
            ("sum(rate(dnswall_addresses_not_learned_total{@}[$__rate_interval]))", "not learned"),
        ],
        size: HALF,
    },
    Panel {
        title: "Questions, by resolver",
        description: "With `events` in `[dns]`. `other` are resolvers that the policy does not name.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[
            (
                "sum by (resolver) (rate(dnswall_resolver_questions_total{@,verdict=\"asked\"}[$__rate_interval]))",
                "{{resolver}}",
            ),
            (
                "sum by (resolver) (rate(dnswall_resolver_questions_unanswered_total{@}[$__rate_interval]))",
                "{{resolver}}, unanswered",
            ),
        ],
        size: HALF,
    },
    Panel {
        title: "Time to an answer, by resolver",
        description: "Of a hundred answers, 95 came sooner.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[(
            "histogram_quantile(0.95, sum by (resolver, le) \
             (rate(dnswall_resolver_answer_seconds_bucket{@}[$__rate_interval])))",
            "{{resolver}}",
        )],
        size: HALF,
    },
    Panel {
        title: "Answers, by code",
        description: "Many NXDOMAIN of one host: generated names, or a broken search list.",
        kind: Kind::Lines,
        unit: "cps",
        queries: &[("sum by (code) (rate(dnswall_resolver_answers_total{@}[$__rate_interval]))", "{{code}}")],
        size: HALF,
    },
];

const POLICY: &[Panel] = &[
    Panel {
        title: "Policies",
        description: "Which decides where.",
        kind: Kind::Table,
        unit: "none",
        queries: &[("count by (instance, name, digest, origin) (dnswall_policy_info{@})", "")],
        size: HALF,
    },
    Panel {
        title: "Hosts by mode",
        description: "`none` is a host whose kernel has no policy.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[
            ("sum by (mode) (dnswall_policy_mode{@})", "{{mode}}"),
            ("sum(dnswall_policy_pending{@})", "on trial"),
        ],
        size: HALF,
    },
    Panel {
        title: "Since a list was confirmed",
        description: "By its server: sent, or said to be still the one.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[("time() - min by (list) (dnswall_blocklist_confirmed_timestamp_seconds{@})", "{{list}}")],
        size: THIRD,
    },
    Panel {
        title: "Entries that count",
        description: "The least of any host.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[("min by (list) (dnswall_blocklist_entries{@})", "{{list}}")],
        size: THIRD,
    },
    Panel {
        title: "Hosts where a list is in trouble",
        description: "It does not count, an older reading does, or it cannot be fetched.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[("sum by (list) (dnswall_blocklist_in_trouble{@})", "{{list}}")],
        size: THIRD,
    },
];

const PROOF: &[Panel] = &[
    Panel {
        title: "Since the wall was proven",
        description: "The agent tries what is forbidden, once a minute unless told otherwise.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[(
            "time() - max by (instance) (dnswall_proof_last_proven_timestamp_seconds{@})",
            "{{instance}}",
        )],
        size: THIRD,
    },
    Panel {
        title: "Hosts by proof",
        description: "What came of the last try.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[("sum by (state) (dnswall_proof_state{@})", "{{state}}")],
        size: THIRD,
    },
    Panel {
        title: "From a try to its event",
        description: "How long a refusal takes to the agent's hands.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[("max by (protocol) (dnswall_proof_latency_seconds{@})", "{{protocol}}")],
        size: THIRD,
    },
    Panel {
        title: "Failed proofs and tampering",
        description: "In the time that one point stands for.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[
            ("sum(increase(dnswall_proof_failures_total{@}[$__rate_interval]))", "failed proofs"),
            ("sum(increase(dnswall_tamper_total{@}[$__rate_interval]))", "found changed"),
            ("sum(dnswall_tamper_standing{@})", "not mended"),
        ],
        size: HALF,
    },
    Panel {
        title: "Hooks by state",
        description: "`not-available` are hooks that a kernel does not have.",
        kind: Kind::Lines,
        unit: "none",
        queries: &[("sum by (state) (dnswall_hook_state{@})", "{{state}}")],
        size: HALF,
    },
];

const AGENT: &[Panel] = &[
    Panel {
        title: "Processor",
        description: "1 is one processor.",
        kind: Kind::Lines,
        unit: "percentunit",
        queries: &[("rate(process_cpu_seconds_total{@}[$__rate_interval])", "{{instance}}")],
        size: THIRD,
    },
    Panel {
        title: "Memory",
        description: "Of the process; the kernel's maps are not in it.",
        kind: Kind::Lines,
        unit: "bytes",
        queries: &[("process_resident_memory_bytes{@}", "{{instance}}")],
        size: THIRD,
    },
    Panel {
        title: "How late it is",
        description: "Since the reader of events was round, and since the agent could be looked at.",
        kind: Kind::Lines,
        unit: "s",
        queries: &[
            ("max(dnswall_reader_quiet_seconds{@})", "reader"),
            ("time() - min(dnswall_metrics_sample_timestamp_seconds{@})", "page"),
        ],
        size: THIRD,
    },
];
