//! Takes options, gives what names processes, containers and pods, with the threads that help it.

use std::path::Path;
use std::sync::Arc;

use super::connected;
use super::daemon::{host_name, spawn};
use super::hasher::Hasher;
use super::options::Options;
use super::reader::Hashing;
use crate::container::Seeker;
use crate::event::{Cgroups, Enricher, Hashes, Users};
use crate::host::HostRoot;
use crate::kubernetes::{self, Cluster, Pods};

/// Where hashes are to be had, and who makes them, if they are wanted.
pub(super) fn hashing(is_wanted: bool) -> std::io::Result<Option<Hashing>> {
    if !is_wanted {
        return Ok(None);
    }
    let (hashes, programs) = Hashes::new()?;
    let hashes = Arc::new(hashes);
    // Not waited for at the end: a file may hang.
    let hasher = Hasher::start(Arc::clone(&hashes), programs)?;
    Ok(Some(Hashing { hashes, hasher }))
}

/// Pods, and the thread that asks for their labels, if somebody is to be asked; or why nobody can be, which is no reason to be
/// without a wall.
pub(super) fn pods(options: &Options) -> anyhow::Result<(Option<Arc<Pods>>, Option<String>)> {
    let Some(config) = &options.kubernetes else { return Ok((None, None)) };
    let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let cluster = match Cluster::of(config, &options.host, &host_name(), &environment) {
        Ok(cluster) => cluster,
        Err(why) => {
            let note = format!("kubernetes: pods have no labels: {why}");
            tracing::warn!("{note}");
            return Ok((None, Some(note)));
        }
    };
    let pods = Arc::new(Pods::new(cluster.server.url.origin(), Some(cluster.node.clone())));
    let (asked, refresh) = (Arc::clone(&pods), config.refresh);
    // Not waited for at the end: a server may take its time.
    spawn("pods", move || kubernetes::run(&asked, &cluster, refresh))?;
    Ok((Some(pods), None))
}

/// What names who was refused.
pub(super) fn enricher(
    cgroup: &Path,
    host: &HostRoot,
    hashes: Option<Arc<Hashes>>,
    pods: Option<Arc<Pods>>,
) -> anyhow::Result<Enricher> {
    let roots = connected::roots(cgroup, host)?;
    let seeker = Seeker::new(host.clone(), roots.cgroup_mount.clone());
    let watched = Cgroups::watch(roots.cgroup_mount.clone(), &roots.wall);
    let mut enricher = Enricher::new(roots, Users::of(host.clone()), hashes).with_containers(seeker, pods);
    match watched {
        Ok(cgroups) => enricher = enricher.with_cgroups(cgroups),
        // Others may have taken all there is of inotify.
        Err(error) => tracing::warn!(%error, "a cgroup that is gone at once has no name: watch cgroups"),
    }
    enricher.learn_programs();
    Ok(enricher)
}
