//! The memory limit of the process's control group, from which a default is derived.

use std::fs;
use std::path::Path;

use crate::features::Feature;

/// Returns the default of [`Limits::pending_bytes`](crate::config::Limits::pending_bytes) for messages of at most
/// `message_bytes`.
pub(super) fn default_pending_bytes(message_bytes: usize) -> usize {
    if !Feature::Full.is_built_in() {
        return MOST_PENDING_BYTES;
    }
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = memory_limit(&groups, Path::new("/sys/fs/cgroup"));
    let most = limit.map_or(MOST_PENDING_BYTES, |limit| (limit / 4).min(MOST_PENDING_BYTES));
    // A buffer that grows with its content may have twice the size, and there may be a second one.
    most.max(message_bytes.saturating_mul(4))
}

/// Returns the smallest memory limit of these control groups and of all groups that they are in. `groups` is
/// the content of `/proc/self/cgroup`, and `mounted` the directory that the hierarchies are mounted in
/// (cgroups(7)).
fn memory_limit(groups: &str, mounted: &Path) -> Option<usize> {
    let limits = groups.lines().filter_map(|line| {
        let (_, line) = line.split_once(':')?;
        let (controllers, group) = line.split_once(':')?;
        let (hierarchy, file) = match controllers {
            "" => ("", "memory.max"),
            "memory" => ("memory", "memory.limit_in_bytes"),
            _ => return None,
        };
        let hierarchy = mounted.join(hierarchy);
        // A group that has no limit has the text `max`.
        let limit_of = |group: &Path| {
            let file = hierarchy.join(group.strip_prefix("/").ok()?).join(file);
            fs::read_to_string(file).ok()?.trim_ascii().parse().ok()
        };
        Path::new(group).ancestors().filter_map(limit_of).min()
    });
    limits.min()
}

/// The default without a memory limit: as much as the messages of all topics may take.
const MOST_PENDING_BYTES: usize = 8 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_limit_of_a_group_and_of_those_around_it_counts() {
        let mounted = std::env::temp_dir().join(format!("falconet-cgroup-{}", std::process::id()));
        let files = [
            ("memory.max", "max"),
            ("a/memory.max", "3000"),
            ("a/b/memory.max", "5000"),
            ("memory/memory.limit_in_bytes", "9223372036854771712"),
            ("memory/c/memory.limit_in_bytes", "7000"),
        ];
        for (file, limit) in files {
            let file = mounted.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, format!("{limit}\n")).unwrap();
        }
        let limit = |groups: &str| memory_limit(groups, &mounted);
        assert_eq!(limit("0::/a/b\n"), Some(3000));
        assert_eq!(limit("0::/\n"), None);
        assert_eq!(limit("5:cpu:/a\n4:memory:/c\n0::/\n"), Some(7000));
        assert_eq!(limit("0::/../outside\nnonsense\n"), None);
        fs::remove_dir_all(&mounted).unwrap();
    }
}
