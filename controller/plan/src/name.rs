//! Names of plans and tokens: short, stable digests.

use lvs_crds::node_plan::SourceKind;

/// Name of the NodePlan of a node for a source: `vs-` or `vr-` and 16 hexadecimal digits. The
/// node's name, not its uid, goes in: a node that is registered again keeps its plan.
pub fn plan_name(kind: SourceKind, node_name: &str, source_uid: &str) -> String {
    let prefix = match kind {
        SourceKind::VirtualService => "vs",
        SourceKind::VirtualRouter => "vr",
    };
    format!("{prefix}-{:016x}", digest([node_name, source_uid]))
}

/// Name in a plan of a check that a RealServer has instead of its VirtualService's, after what it says: `override-` and 16
/// hexadecimal digits. All checks of a plan are of one namespace, so a collision is nobody else's.
pub fn check_name(question: &str) -> String {
    format!("override-{:016x}", digest([question]))
}

/// Token that confirms the removal of exactly these things.
pub fn removal_token<'a>(removed: impl IntoIterator<Item = &'a str>) -> String {
    format!("{:016x}", digest(removed))
}

/// FNV-1a over the parts, each closed by a zero byte so that ("ab", "c") and ("a", "bc") differ.
/// Object uids are made by the API server, so nobody can aim for a collision.
fn digest<'a>(parts: impl IntoIterator<Item = &'a str>) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut take = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    for part in parts {
        part.bytes().for_each(&mut take);
        take(0);
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_stable_and_differ_by_each_part() {
        let name = plan_name(SourceKind::VirtualService, "node-a", "0c1e");
        assert_eq!(name, "vs-feb4e4535331304e");
        assert_ne!(
            name,
            plan_name(SourceKind::VirtualService, "node-a0", "c1e")
        );
        assert!(plan_name(SourceKind::VirtualRouter, "node-a", "0c1e").starts_with("vr-"));
    }
}
