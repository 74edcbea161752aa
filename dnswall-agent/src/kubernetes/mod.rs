//! Takes the uid of a pod, gives its labels, as the Kubernetes API or the kubelet of this node has them.
//!
//! `server → list of this node's pods → labels by uid`. A thread of its own asks ([`watch`]), now and then and when a pod shows up
//! that is not known; whoever wants labels takes what is there and never waits. Without a server, or with one that is down, alerts
//! have the names that the container's runtime knows, and no labels.

mod cluster;
mod list;
mod pods;
mod watch;

pub use cluster::{Cluster, Environment};
pub use list::{LABELS_BYTES_MAX, LABELS_MAX, PODS_MAX};
pub use pods::{KubernetesStatus, Labels, Pods};
pub use watch::run;
