//! What a tenant may do: whoever has Kubernetes' own role edit in one namespace, by a token and nothing else.

use anyhow::{Context, Result, anyhow, ensure};

use super::{NAMESPACE, Story};
use crate::lab::{Lab, OPERATOR_NAMESPACE};
use crate::traffic;

/// A namespace in which the tenant has no role.
const OTHER: &str = "not-the-tenants";
const URL: &str = "http://172.16.2.246/";

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "tenant_within_its_grants",
            tells: "with role edit of one namespace: its service works; another's pool, node, address, loopback and namespaces without a grant are refused by name, and disturb nobody",
            run: within_grants,
        },
        Story {
            name: "tenant_token_refused",
            tells: "the same token touches no router, plan, status, Lease, Secret or agent, and nothing of another namespace",
            run: token_refused,
        },
    ]
}

/// What the administrator gives: the namespace of stories one pool and one host, and nothing to anybody else.
const GRANTS: &str = "
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: tenants}
spec:
  directors: [{nodeName: lb-a}]
  addressPools:
  - {name: tenant, addresses: [172.16.2.246-172.16.2.247]}
  - {name: others, addresses: [172.16.2.248-172.16.2.249]}
  - {name: snat, addresses: [192.168.2.240], purpose: SourceNAT}
  grants:
  - namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: story}}}
    addressPoolNames: [tenant, snat]
    realServerCIDRs: [192.168.2.31/32, 172.16.2.246/32, 127.0.0.0/8]
";
const SERVICE: &str = "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: mine}
spec:
  virtualRouterName: tenants
  addresses: [172.16.2.246]
  ports: [{port: 80, realServerPort: 82}]
  forwarding: {type: FullNAT, fullNAT: {sourceAddressPoolName: snat}}
  realServerSelector: {matchLabels: {app: good}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: good, labels: {app: good}}
spec: {target: {type: Addresses, addresses: [192.168.2.31]}}
";
/// Selected by `greedy`, and none of them granted.
const GREEDY: &str = "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: greedy}
spec:
  virtualRouterName: tenants
  addresses: [172.16.2.247]
  ports: [{port: 80}]
  forwarding: {type: DR}
  realServerSelector: {matchLabels: {app: bad}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: loopback, labels: {app: bad}}
spec: {target: {type: Addresses, addresses: [127.0.0.1]}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: node, labels: {app: bad}}
spec: {target: {type: Node, node: {name: web-1}}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: node-by-address, labels: {app: bad}}
spec: {target: {type: Addresses, addresses: [192.168.2.21]}}
---
apiVersion: lvs.dev/v1alpha1
kind: RealServer
metadata: {name: virtual-address, labels: {app: bad}}
spec: {target: {type: Addresses, addresses: [172.16.2.246]}}
";

/// Somebody with role edit in the namespace of stories.
struct Tenant<'a> {
    lab: &'a Lab,
    token: String,
}

impl<'a> Tenant<'a> {
    fn new(lab: &'a Lab) -> Result<Self> {
        lab.cluster.apply_text(
            NAMESPACE,
            "
apiVersion: v1
kind: ServiceAccount
metadata: {name: developer}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: developer}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{kind: ServiceAccount, name: developer}]
",
        )?;
        let words = ["-n", NAMESPACE, "create", "token", "developer"];
        let token = lab.cluster.kubectl(&words)?.trim().to_owned();
        Ok(Self { lab, token })
    }

    fn kubectl(&self, words: &[&str], input: &str) -> Result<Result<String, String>> {
        self.lab.cluster.kubectl_as(&self.token, words, input)
    }

    fn apply(&self, yaml: &str) -> Result<()> {
        let words = ["-n", NAMESPACE, "apply", "-f", "-"];
        self.kubectl(&words, yaml)?
            .map(drop)
            .map_err(|said| anyhow!("the tenant may not: {said}"))
    }

    /// The API server must say of whom it forbids what.
    fn must_not(&self, resource: &str, words: &[&str], input: &str) -> Result<()> {
        let answer = self.kubectl(words, input)?;
        let said = answer
            .err()
            .with_context(|| format!("{words:?} was done"))?;
        let user = format!("system:serviceaccount:{NAMESPACE}:developer");
        ensure!(
            said.contains("(Forbidden)") && said.contains(resource) && said.contains(&user),
            "{words:?} was refused, but not for {resource} and {user}: {said}"
        );
        Ok(())
    }

    fn leave(&self) -> Result<()> {
        let words = [
            "-n",
            NAMESPACE,
            "delete",
            "rolebinding,serviceaccount",
            "developer",
        ];
        self.lab.cluster.kubectl(&words).map(drop)
    }
}

/// The tenant's service works, before and after what `meanwhile` does; then the tenant and the other namespace go.
fn beside_its_service(lab: &Lab, meanwhile: fn(&Tenant<'_>) -> Result<()>) -> Result<()> {
    lab.cluster.apply(GRANTS)?;
    lab.cluster.namespace(OTHER)?;
    let tenant = Tenant::new(lab)?;
    tenant.apply(SERVICE)?;
    lab.await_true(
        &["-n", NAMESPACE, "virtualservices.lvs.dev", "mine"],
        "Programmed",
    )?;
    let rules = || -> Result<Vec<String>> {
        let rules = lab.ipvs_rules("lb-a")?.into_iter();
        Ok(rules
            .filter(|rule| rule.contains("172.16.2.246:80"))
            .collect())
    };
    let before = rules()?;
    ensure!(before.len() == 2, "{before:?}");
    meanwhile(&tenant)?;
    let after = rules()?;
    ensure!(before == after, "{before:?} and then {after:?}");
    traffic::get(&lab.guest, "client", URL)?;
    tenant.leave()?;
    lab.cluster
        .kubectl(&["delete", "namespace", OTHER, "--wait"])
        .map(drop)
}

fn within_grants(lab: &Lab) -> Result<()> {
    beside_its_service(lab, |tenant| {
        let lab = tenant.lab;
        tenant.apply(GREEDY)?;
        for name in ["loopback", "node", "node-by-address", "virtual-address"] {
            let words = ["-n", NAMESPACE, "realservers.lvs.dev", name];
            let message = lab.await_reason(&words, "Accepted", "TargetNotPermitted")?;
            ensure!(
                message.len() > 20,
                "{name}: the message says nothing: {message}"
            );
        }
        let rules = lab.ipvs_rules("lb-a")?;
        let targets: Vec<_> = rules
            .iter()
            .filter(|rule| rule.starts_with("-a -t 172.16.2.247"))
            .collect();
        ensure!(targets.is_empty(), "programmed all the same: {targets:?}");
        // Addresses and pools of others.
        let service = |choice: &str| {
            format!(
                "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: grasping}}
spec:
  virtualRouterName: tenants
  {choice}
  ports: [{{port: 81}}]
  forwarding: {{type: DR}}
  realServerSelector: {{matchLabels: {{app: good}}}}
"
            )
        };
        let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "grasping"];
        for (choice, reason) in [
            ("addresses: [172.16.2.248]", "AddressNotPermitted"),
            ("addresses: [172.16.2.11]", "AddressNotPermitted"),
            ("addressPoolName: others", "AddressPoolNotPermitted"),
        ] {
            let _ = tenant.kubectl(&["-n", NAMESPACE, "delete", words[2], words[3]], "")?;
            tenant.apply(&service(choice))?;
            let message = lab.await_reason(&words, "Accepted", reason)?;
            ensure!(
                message.contains("tenant"),
                "{choice}: the message does not name the pool that is granted: {message}"
            );
        }
        // Who has no grant gets nothing, were it an administrator who asks.
        lab.cluster
            .apply_text(OTHER, &service("addressPoolName: tenant"))?;
        let words = ["-n", OTHER, "virtualservices.lvs.dev", "grasping"];
        lab.await_reason(&words, "Accepted", "AddressPoolNotPermitted")?;
        lab.cluster
            .kubectl(&["-n", OTHER, "delete", words[2], words[3]])?;
        Ok(())
    })
}

fn token_refused(lab: &Lab) -> Result<()> {
    beside_its_service(lab, |tenant| {
        // What it may see: its own, and the routers' state is the administrator's.
        let own = [
            "-n",
            NAMESPACE,
            "get",
            "virtualservices.lvs.dev,realservers.lvs.dev",
        ];
        let table = tenant.kubectl(&own, "")?.map_err(|said| anyhow!(said))?;
        ensure!(table.contains("172.16.2.246"), "{table}");
        let grant_all = r#"{"spec": {"grants": [{"namespaces": {"from": "All"}, "addressPoolNames": ["tenant", "others"]}]}}"#;
        let hand_over = r#"{"metadata": {"annotations": {"lvs.dev/hand-over-to": "lb-b"}}}"#;
        let ready = r#"{"status": {"master": "lb-b"}}"#;
        let withdrawn = r#"{"spec": {"state": "Withdrawn"}}"#;
        let patch = |change| ["patch", "--type=merge", "-p", change];
        let router = ["virtualrouters.lvs.dev", "tenants"];
        let plans = ["-n", OPERATOR_NAMESPACE, "nodeplans.lvs.dev"];
        let plan = tenant
            .lab
            .cluster
            .get(&[&plans[..2], &["nodeplans.lvs.dev"]].concat())?;
        let plan = plan["items"][0]["metadata"]["name"]
            .as_str()
            .context("no NodePlan")?
            .to_owned();
        let status = [
            "-n",
            NAMESPACE,
            "--subresource=status",
            "virtualservices.lvs.dev",
            "mine",
        ];
        let others = ["-n", OTHER];
        let refused: [(&str, Vec<&str>, &str); 15] = [
            (
                "virtualrouters",
                [&patch(grant_all)[..], &router].concat(),
                "",
            ),
            (
                "virtualrouters",
                [&patch(hand_over)[..], &router].concat(),
                "",
            ),
            ("virtualrouters", [&["delete"][..], &router].concat(), ""),
            ("virtualrouters", vec!["create", "-f", "-"], GRANTS),
            ("nodeplans", [&["get"][..], &plans].concat(), ""),
            (
                "nodeplans",
                [&patch(withdrawn)[..], &plans, &[&plan]].concat(),
                "",
            ),
            (
                "nodeplans",
                [&["delete"][..], &plans, &[&plan]].concat(),
                "",
            ),
            ("virtualservices", [&patch(ready)[..], &status].concat(), ""),
            (
                "virtualservices",
                [&others[..], &["create", "-f", "-"]].concat(),
                SERVICE,
            ),
            (
                "realservers",
                [&others[..], &["get", "realservers.lvs.dev"]].concat(),
                "",
            ),
            (
                "virtualservices",
                vec!["get", "--all-namespaces", "virtualservices.lvs.dev"],
                "",
            ),
            (
                "leases",
                vec!["-n", OPERATOR_NAMESPACE, "get", "leases"],
                "",
            ),
            (
                "leases",
                vec![
                    "-n",
                    OPERATOR_NAMESPACE,
                    "delete",
                    "lease",
                    "lvs-router-tenants",
                ],
                "",
            ),
            (
                "secrets",
                vec!["-n", OPERATOR_NAMESPACE, "get", "secrets"],
                "",
            ),
            ("pods", vec!["-n", OPERATOR_NAMESPACE, "get", "pods"], ""),
        ];
        for (resource, words, input) in refused {
            tenant.must_not(resource, &words, input)?;
        }
        Ok(())
    })
}
