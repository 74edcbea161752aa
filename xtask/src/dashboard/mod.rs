//! The dashboard for Grafana: takes the rows of [`rows`], gives `deploy/grafana/dnswall.json`.
//!
//! The file is what people import; nobody writes it by hand. `cargo xtask tidy` says when it is not what this gives.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::{host::Host, step};

mod delivery;
mod rows;

/// Where the dashboard is, from the root of the clone.
pub const PATH: &str = "deploy/grafana/dnswall.json";
/// Grafana's grid is so wide.
const COLUMNS: u32 = 24;

/// One row and what is in it.
pub struct Row {
    /// Its title.
    pub title: &'static str,
    /// From left to right, and then below.
    pub panels: &'static [Panel],
}

/// One panel.
pub struct Panel {
    /// Its title.
    pub title: &'static str,
    /// What to make of it, for who looks at it first.
    pub description: &'static str,
    /// How it is drawn.
    pub kind: Kind,
    /// Of what, as Grafana calls units.
    pub unit: &'static str,
    /// Expressions and what their series are called. `@` is the chosen jobs and hosts.
    pub queries: &'static [(&'static str, &'static str)],
    /// Columns and rows of the grid.
    pub size: (u32, u32),
}

/// How a panel is drawn.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lines over time.
    Lines,
    /// The last value, green.
    Number,
    /// The last value: green at 0, red above.
    Fault,
    /// The last values as bars.
    Bars,
    /// The last labels, line by line.
    Table,
}

/// Writes the file.
pub fn write(host: &Host) -> Result<()> {
    let path = host.root.join(PATH);
    fs::write(&path, text()).with_context(|| format!("write {}", path.display()))?;
    step::say(&format!("{PATH} is written"));
    Ok(())
}

/// The whole file.
pub fn text() -> String {
    // A map of strings has no value that cannot be written.
    let text = serde_json::to_string_pretty(&dashboard(rows::ROWS)).unwrap_or_default();
    format!("{text}\n")
}

fn dashboard(rows: &[Row]) -> Value {
    json!({
        "uid": "dnswall",
        "title": "dnswall",
        "description": "What the wall refuses, whether it stands, and whether anybody hears of it.",
        "tags": ["dnswall", "security"],
        "schemaVersion": 38,
        "editable": true,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "graphTooltip": 1,
        "templating": {"list": variables()},
        "panels": panels(rows),
    })
}

fn variables() -> Value {
    let label = |name: &str, label: &str, of: &str| {
        json!({
            "type": "query",
            "name": name,
            "label": label,
            "datasource": source(),
            "query": {"query": of, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        })
    };
    json!([
        {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus", "current": {}},
        label("job", "Job", "label_values(dnswall_build_info, job)"),
        label("instance", "Host", "label_values(dnswall_build_info{job=~\"$job\"}, instance)"),
    ])
}

fn panels(rows: &[Row]) -> Vec<Value> {
    let mut drawn = Vec::new();
    let mut top = 0;
    for row in rows {
        drawn.push(json!({
            "id": drawn.len() + 1,
            "type": "row",
            "title": row.title,
            "collapsed": false,
            "panels": [],
            "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
        }));
        top += 1;
        let (mut left, mut tallest) = (0, 0);
        for panel in row.panels {
            let (width, height) = panel.size;
            if left + width > COLUMNS {
                top += tallest;
                (left, tallest) = (0, 0);
            }
            let place = json!({"x": left, "y": top, "w": width, "h": height});
            drawn.push(draw(panel, drawn.len() + 1, &place));
            left += width;
            tallest = tallest.max(height);
        }
        top += tallest;
    }
    drawn
}

fn draw(panel: &Panel, id: usize, place: &Value) -> Value {
    let Panel { title, description, kind, unit, queries, size: _ } = panel;
    let is_momentary = *kind != Kind::Lines;
    let targets: Vec<Value> = queries
        .iter()
        .zip('A'..)
        .map(|((expression, legend), id)| {
            json!({
                "refId": id.to_string(),
                "datasource": source(),
                "expr": expression.replace('@', CHOSEN),
                "legendFormat": legend,
                "instant": is_momentary,
                "range": !is_momentary,
                "format": if *kind == Kind::Table { "table" } else { "time_series" },
            })
        })
        .collect();
    json!({
        "id": id,
        "type": kind.name(),
        "title": title,
        "description": description,
        "datasource": source(),
        "gridPos": place,
        "targets": targets,
        "options": kind.options(),
        "fieldConfig": {"defaults": kind.field(unit), "overrides": []},
    })
}

/// What `@` in an expression is.
const CHOSEN: &str = "job=~\"$job\",instance=~\"$instance\"";

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Lines => "timeseries",
            Self::Number | Self::Fault => "stat",
            Self::Bars => "bargauge",
            Self::Table => "table",
        }
    }

    fn options(self) -> Value {
        let last = json!({"calcs": ["lastNotNull"], "fields": "", "values": false});
        match self {
            Self::Lines => json!({
                "legend": {"displayMode": "list", "placement": "bottom"},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
            Self::Number | Self::Fault => {
                json!({"reduceOptions": last, "colorMode": "value", "graphMode": "none"})
            }
            Self::Bars => {
                json!({"reduceOptions": last, "orientation": "horizontal", "displayMode": "gradient"})
            }
            Self::Table => json!({"showHeader": true}),
        }
    }

    fn field(self, unit: &str) -> Value {
        let mut steps = vec![json!({"color": "green", "value": null})];
        if self == Self::Fault {
            // Half of one: a count has no halves, a sum of rates may.
            steps.push(json!({"color": "red", "value": 0.5}));
        }
        json!({"unit": unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_panel_has_a_number_a_place_and_something_to_show() {
        let dashboard = dashboard(rows::ROWS);
        let panels = dashboard["panels"].as_array().expect("panels");
        let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels.len());
        let mut taken = BTreeSet::new();
        for panel in panels {
            let [x, y, w, h] =
                ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().expect("a place"));
            assert!(x + w <= u64::from(COLUMNS) && w > 0 && h > 0, "{panel}");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(taken.insert(cell), "two panels at {cell:?}: {}", panel["title"]);
            }
            let targets = panel["targets"].as_array().map_or(0, Vec::len);
            assert!(panel["type"] == "row" || targets > 0, "{}", panel["title"]);
        }
    }

    #[test]
    fn every_expression_asks_for_the_chosen_hosts() {
        for (expression, _) in rows::ROWS.iter().flat_map(|row| row.panels).flat_map(|panel| panel.queries) {
            let metrics = expression.matches("dnswall_").count() + expression.matches("process_").count();
            assert_eq!(expression.matches("{@").count(), metrics, "{expression}");
        }
    }
}
