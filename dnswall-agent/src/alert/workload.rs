//! Takes an event, gives its workload as an alert has it: cgroup, unit, container and pod.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::{Container, Named};
use crate::event::{EnrichedEvent, Workload};

/// Which workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertWorkload {
    /// Path of the cgroup.
    pub cgroup: Option<String>,
    /// Unit.
    pub unit: Option<String>,
    /// Slice.
    pub slice: Option<String>,
    /// Container id; `null` also for one in a cgroup that a user or a service has named.
    pub container: Option<String>,
    /// What its runtime calls the container; in a pod, what the pod does.
    #[serde(default)]
    pub container_name: Option<String>,
    /// The container's image, as it was asked for.
    #[serde(default)]
    pub image: Option<String>,
    /// Who runs the container: `docker`, `podman`, `containerd`, `cri-o`, …
    #[serde(default)]
    pub runtime: Option<String>,
    /// The Kubernetes pod that it is in.
    #[serde(default)]
    pub pod: Option<AlertPod>,
}

/// A Kubernetes pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertPod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: Option<String>,
    /// The container in it; `null` for its sandbox.
    pub container: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// Its labels; `null` where nobody was there to ask.
    pub labels: Option<BTreeMap<String, String>>,
}

impl AlertWorkload {
    /// The workload of an event.
    pub(crate) fn new(event: &EnrichedEvent) -> Self {
        let workload = Self::from(&*event.workload);
        let Some(Named { container: named, labels, node }) = &event.named else { return workload };
        let Container { name, image, runtime, pod } = (**named).clone();
        let pod = pod.map(|pod| AlertPod {
            namespace: pod.namespace,
            name: pod.name,
            uid: pod.uid,
            container: name.clone(),
            node: node.as_deref().map(str::to_owned),
            labels: labels.as_deref().cloned(),
        });
        let runtime = Some(runtime.name().to_owned());
        Self { container_name: name, image, runtime, pod, ..workload }
    }

    /// What a person would call it: pod, container, unit or cgroup.
    pub fn short_name(&self) -> Option<String> {
        let id = || self.container.as_ref().map(|id| id.chars().take(CONTAINER_DIGITS).collect());
        let pod = self.pod.as_ref().map(AlertPod::path);
        pod.or_else(|| self.container_name.clone())
            .or_else(id)
            .or_else(|| self.unit.clone())
            .or_else(|| self.cgroup.clone())
    }
}

impl From<&Workload> for AlertWorkload {
    fn from(workload: &Workload) -> Self {
        let Workload { cgroup, unit, slice, container, claimed: _ } = workload.clone();
        Self { cgroup, unit, slice, container, ..Self::default() }
    }
}

/// Digits of a container id that are shown.
const CONTAINER_DIGITS: usize = 12;

impl AlertPod {
    /// `NAMESPACE/NAME`.
    pub fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}
