//! Takes what a server answers, gives pods: uid and labels. The names and labels are whoever's who made the pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::pods::Labels;
use crate::event::text::printable;

/// Pods of one node. Kubernetes supports 110, some run 500.
pub const PODS_MAX: usize = 4_096;
/// Labels of one pod that are kept, in the order of their keys.
pub const LABELS_MAX: usize = 32;
/// Bytes of them all, keys and values.
pub const LABELS_BYTES_MAX: usize = 4_096;
/// Bytes of a uid.
const UID_BYTES_MAX: usize = 64;
/// A pod that comes from a file on the node has one uid for the kubelet, and its picture at the API another; this annotation
/// (`pkg/kubelet/types`, `ConfigMirrorAnnotationKey`) has the first.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// Pods whole, or their metadata alone.
const KINDS: [&str; 2] = ["PodList", "PartialObjectMetadataList"];

/// A part of the list.
#[derive(Debug)]
pub struct Part {
    /// Labels by uid.
    pub pods: Vec<(Box<str>, Arc<Labels>)>,
    /// What to ask with for the next part.
    pub next: Option<String>,
}

/// What is read of a `PodList`, or of its metadata alone.
#[derive(Deserialize)]
struct List {
    kind: String,
    #[serde(default)]
    metadata: ListMetadata,
    // Go writes an empty list as null.
    #[serde(default)]
    items: Option<Vec<Item>>,
}

#[derive(Default, Deserialize)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMetadata,
}

#[derive(Deserialize)]
struct ItemMetadata {
    uid: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Reads a part of the list.
///
/// # Errors
/// When it is something else.
pub fn parse(body: &[u8]) -> Result<Part, String> {
    let List { kind, metadata, items } =
        serde_json::from_slice(body).map_err(|error| format!("its answer is no list of pods: {error}"))?;
    if !KINDS.contains(&kind.as_str()) {
        return Err("its answer is no list of pods: it is of another kind".to_owned());
    }
    let mut pods = Vec::new();
    for Item { metadata } in items.unwrap_or_default().into_iter().take(PODS_MAX) {
        let ItemMetadata { uid, labels, annotations } = metadata;
        let labels = Arc::new(bounded(labels.unwrap_or_default()));
        let mirrored = annotations.and_then(|mut annotations| annotations.remove(MIRROR));
        for uid in [Some(uid), mirrored].into_iter().flatten().filter(|uid| uid.len() <= UID_BYTES_MAX) {
            pods.push((uid.into_boxed_str(), Arc::clone(&labels)));
        }
    }
    Ok(Part { pods, next: metadata.next.filter(|next| !next.is_empty()) })
}

fn bounded(labels: BTreeMap<String, String>) -> Labels {
    let mut left = LABELS_BYTES_MAX;
    let clean = |text: String| printable(text.as_bytes(), LABELS_BYTES_MAX);
    let labels = labels.into_iter().take(LABELS_MAX).map(|(key, value)| (clean(key), clean(value)));
    labels
        .take_while(|(key, value)| {
            let bytes = key.len() + value.len();
            let fits = bytes <= left;
            left = left.saturating_sub(bytes);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_kept_by_uid() {
        let body = br#"{"kind":"PodList","metadata":{"resourceVersion":"7","continue":"next"},"items":[
            {"metadata":{"uid":"u1","labels":{"app":"shop","tier":"a\u001bb"}},"spec":{"x":[1]}},
            {"metadata":{"uid":"u2","annotations":{"kubernetes.io/config.mirror":"hash"}}}]}"#;
        let Part { pods, next } = parse(body).unwrap();
        assert_eq!(next.as_deref(), Some("next"));
        let labels =
            |uid: &str| pods.iter().find(|(known, _)| **known == *uid).map(|(_, labels)| labels.len());
        assert_eq!(
            (labels("u1"), labels("u2"), labels("hash"), labels("u3")),
            (Some(2), Some(0), Some(0), None)
        );
        assert_eq!(pods[0].1["tier"], "a\\x1bb");
        let empty = parse(br#"{"kind":"PartialObjectMetadataList","items":null,"metadata":{"continue":""}}"#)
            .unwrap();
        assert!(empty.pods.is_empty() && empty.next.is_none());
        for strange in [
            "[]",
            "7",
            "",
            r#"{"items":[]}"#,
            r#"{"kind":"Status","items":[]}"#,
            r#"{"kind":"PodList","items":[{}]}"#,
            r#"{"kind":"PodList","items":[{"metadata":{"uid":7}}]}"#,
        ] {
            assert!(
                parse(strange.as_bytes()).unwrap_err().starts_with("its answer is no list of pods"),
                "{strange}"
            );
        }
    }

    #[test]
    fn labels_are_bounded_in_number_and_bytes() {
        let many = (0..100).map(|number| (format!("key{number:02}"), "v".to_owned())).collect();
        assert_eq!(bounded(many).len(), LABELS_MAX);
        let long = (0..10).map(|number| (format!("key{number}"), "v".repeat(1_000))).collect();
        assert_eq!(bounded(long).len(), 4);
        assert_eq!(bounded([("k".to_owned(), "v".repeat(1 << 20))].into()).len(), 0);
    }
}
