//! Which pod a container is in, in the words of who started it.

use super::text;

/// A pod, as a runtime knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid; of a static pod, what the kubelet has instead.
    pub uid: Option<String>,
}

impl PodName {
    /// A pod of this namespace and name, if it has both.
    pub fn new(namespace: Option<&str>, name: Option<&str>, uid: Option<&str>) -> Option<Self> {
        Some(Self { namespace: text(namespace?)?, name: text(name?)?, uid: uid.and_then(text) })
    }

    /// With the uid that the cgroup's path has, where the runtime says none.
    pub fn or_uid_of(self, cgroup: &str) -> Self {
        let uid = self.uid.or_else(|| uid_in(cgroup));
        Self { uid, ..self }
    }
}

/// The uid in a path that the kubelet made: `/kubepods/burstable/podUID/…`, or with systemd
/// `kubepods-burstable-podU_I_D.slice` (`pkg/kubelet/cm` of Kubernetes, since 1.6).
pub fn uid_in(cgroup: &str) -> Option<String> {
    cgroup.split('/').filter(|component| !component.is_empty()).find_map(|component| {
        let stem = component.strip_suffix(".slice").unwrap_or(component);
        let (before, uid) = stem.rsplit_once("pod").filter(|(_, uid)| !uid.is_empty())?;
        let is_kubelets = before.is_empty() || (before.starts_with("kubepods") && before.ends_with('-'));
        let uid = uid.replace('_', "-");
        let is_uid =
            uid.len() <= UID_BYTES_MAX && uid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
        (is_kubelets && is_uid).then_some(uid)
    })
}

/// A UUID has 36.
const UID_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelets_paths_have_a_uid() {
        let uid = "0123abcd-0123-0123-0123-0123456789ab";
        for path in [
            "/kubepods/burstable/pod0123abcd-0123-0123-0123-0123456789ab/x",
            "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod0123abcd_0123_0123_0123_0123456789ab.slice/x",
            "/kubepods.slice/kubepods-pod0123abcd_0123_0123_0123_0123456789ab.slice",
        ] {
            assert_eq!(uid_in(path).as_deref(), Some(uid), "{path}");
        }
        for path in [
            "/system.slice/tripod.service",
            "/kubepods.slice/kubepods-pod.slice",
            "/podman",
            "/a-podabc.slice",
        ] {
            assert_eq!(uid_in(path), None, "{path}");
        }
    }
}
