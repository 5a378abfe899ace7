//! Whose is what: foreign objects, addresses, an agent's token, names, and bad input that disturbs nobody else.

use anyhow::{Context, Result, ensure};

use super::{NAMESPACE, Story, plan_of};
use crate::await_condition::until;
use crate::guest::quote;
use crate::lab::{LIMIT, Lab, OPERATOR_NAMESPACE};
use crate::traffic;

pub(super) fn stories() -> Vec<Story> {
    vec![
        Story {
            name: "foreign_objects_survive",
            tells: "a foreign IPVS service, address and nftables table survive everything; a foreign key is not taken over",
            run: foreign,
        },
        Story {
            name: "address_conflicts",
            tells: "the older VirtualService keeps working, the younger hears AddressInUse; outside the pool AddressNotPermitted",
            run: conflicts,
        },
        Story {
            name: "stolen_token_refused",
            tells: "an agent's token cannot touch another node's plan",
            run: token,
        },
        Story {
            name: "istio_beside",
            tells: "a CRD named virtualservices.networking.istio.io beside ours",
            run: istio,
        },
        Story {
            name: "bad_input_disturbs_nobody",
            tells: "no scheduler module, no such interface: a condition on the right object, the others go on",
            run: bad_input,
        },
        Story {
            name: "crippled_agent_says_why",
            tells: "no CAP_NET_ADMIN, a read-only /proc/sys: the reason on the plan and the service, the others go on",
            run: crippled,
        },
    ]
}

fn foreign(lab: &Lab) -> Result<()> {
    for node in ["lb-a", "lb-b", "web-1"] {
        lab.guest.on(
            node,
            "ipvsadm -A -t 192.0.2.7:80 -s rr && ipvsadm -a -t 192.0.2.7:80 -r 192.168.2.31 -g
             ipvsadm -A -t 172.16.2.215:81 -s lc
             ip address add 192.0.2.7/32 dev in
             nft 'table inet foreign { chain c { type filter hook input priority 0; }; }'",
        )?;
    }
    let before = lab.hosts()?;
    let told = (|| {
        lab.cluster
            .apply_example(NAMESPACE, "direct-routing.yaml")?;
        lab.await_serving(NAMESPACE, "web")?;
        let master = lab.await_holder("172.16.2.200")?;
        let rules = lab.ipvs_rules(&master)?;
        ensure!(
            rules.iter().any(|rule| rule == "-A -t 192.0.2.7:80 -s rr"),
            "foreign rules: {rules:#?}"
        );
        // A service of the administrator stands where a VirtualService wants to be.
        lab.cluster.apply_text(
            NAMESPACE,
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: late}
spec:
  addresses: [172.16.2.215]
  ports: [{port: 81}]
  forwarding: {type: DR}
  realServerSelector: {matchLabels: {app: web}}
",
        )?;
        let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "late"];
        let message = lab.await_reason(&words, "Programmed", "ForeignObject")?;
        ensure!(
            message.contains("172.16.2.215:81"),
            "the message names no service: {message}"
        );
        let rules = lab.ipvs_rules(&master)?;
        ensure!(
            rules
                .iter()
                .any(|rule| rule == "-A -t 172.16.2.215:81 -s lc"),
            "taken over: {rules:#?}"
        );
        super::clean(lab)
    })()
    .and_then(|()| lab.await_hosts(&before));
    for node in ["lb-a", "lb-b", "web-1"] {
        lab.guest.on(
            node,
            "ipvsadm -D -t 192.0.2.7:80; ipvsadm -D -t 172.16.2.215:81; ip address del 192.0.2.7/32 dev in; nft delete table inet foreign",
        )?;
    }
    told
}

fn conflicts(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    lab.cluster.namespace("younger")?;
    let service = |address: &str| {
        format!(
            "
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: same}}
spec:
  addresses: [{address}]
  ports: [{{port: 8080}}]
  forwarding: {{type: DR}}
  realServerSelector: {{}}
"
        )
    };
    lab.cluster
        .apply_text("younger", &service("172.16.2.200"))?;
    let words = ["-n", "younger", "virtualservices.lvs.dev", "same"];
    lab.await_reason(&words, "Accepted", "AddressInUse")?;
    lab.cluster.apply_text("younger", &service("172.16.2.77"))?;
    let message = lab.await_reason(&words, "Accepted", "AddressNotPermitted")?;
    ensure!(
        message.contains("public"),
        "the message does not name the pools that are granted: {message}"
    );
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 3)?;
    ensure!(
        !spread.keys().any(|answer| answer.starts_with("failed")),
        "the older one: {spread:?}"
    );
    lab.cluster
        .kubectl(&["delete", "namespace", "younger", "--wait"])?;
    Ok(())
}

fn token(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    let selector = "spec.nodeName=web-1";
    let pods = lab.cluster.get(&[
        "-n",
        OPERATOR_NAMESPACE,
        "pods",
        "--field-selector",
        selector,
    ])?;
    let pod = pods["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|pod| pod["spec"]["hostNetwork"] == true)
        .context("no agent pod on web-1")?;
    let account = pod["spec"]["serviceAccountName"]
        .as_str()
        .context("service account")?;
    let token = lab.cluster.kubectl(&[
        "-n",
        OPERATOR_NAMESPACE,
        "create",
        "token",
        account,
        "--bound-object-kind=Pod",
        &format!(
            "--bound-object-name={}",
            pod["metadata"]["name"].as_str().unwrap_or_default()
        ),
        &format!(
            "--bound-object-uid={}",
            pod["metadata"]["uid"].as_str().unwrap_or_default()
        ),
    ])?;
    let plans = lab.cluster.get(&["-n", OPERATOR_NAMESPACE, "nodeplans"])?;
    let plan = |node: &str| -> Result<String> {
        plans["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|plan| {
                plan["spec"]["nodeName"] == node
                    && plan["spec"]["source"]["kind"] == "VirtualService"
            })
            .and_then(|plan| plan["metadata"]["name"].as_str().map(str::to_owned))
            .with_context(|| format!("no plan for {node}"))
    };
    let write = |name: &str| {
        let path = format!(
            "/apis/lvs.dev/v1alpha1/namespaces/{OPERATOR_NAMESPACE}/nodeplans/{name}/status"
        );
        let body = r#"{"status":{"agentVersion":"x"}}"#;
        lab.cluster.merge_patch_as(token.trim(), &path, body)
    };
    let (status, body) = write(&plan("web-1")?)?;
    ensure!(status == 200, "its own plan: {status} {body}");
    let (status, body) = write(&plan("web-2")?)?;
    ensure!(
        (400..500).contains(&status) && body.contains("denied"),
        "the token of web-1 wrote the status of web-2's plan: {status} {body}"
    );
    Ok(())
}

fn istio(lab: &Lab) -> Result<()> {
    let crd = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: virtualservices.networking.istio.io}
spec:
  group: networking.istio.io
  scope: Namespaced
  names: {kind: VirtualService, plural: virtualservices, singular: virtualservice, shortNames: [vs]}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
";
    lab.cluster.apply(crd)?;
    let told = (|| {
        lab.cluster.kubectl(&[
            "wait",
            "--for=condition=Established",
            "crd/virtualservices.networking.istio.io",
            "--timeout=60s",
        ])?;
        lab.cluster
            .apply_example(NAMESPACE, "direct-routing.yaml")?;
        lab.await_serving(NAMESPACE, "web")?;
        for kind in ["lvsvs", "virtualservices.lvs.dev"] {
            let table = lab.cluster.kubectl(&["-n", NAMESPACE, "get", kind])?;
            ensure!(
                table.contains("172.16.2.200") && table.contains("VIP"),
                "kubectl get {kind}:\n{table}"
            );
        }
        Ok(())
    })();
    lab.cluster.delete(crd)?;
    told
}

fn bad_input(lab: &Lab) -> Result<()> {
    // A kernel without this scheduler, as Debian's is.
    lab.guest.run(
        "echo 'install ip_vs_twos /bin/false' >/etc/modprobe.d/story.conf; rmmod ip_vs_twos 2>/dev/null; ! grep -q ip_vs_twos /proc/modules",
    )?;
    let told = wrong_objects(lab);
    lab.guest.run("rm /etc/modprobe.d/story.conf")?;
    told
}

fn wrong_objects(lab: &Lab) -> Result<()> {
    lab.cluster
        .apply_example(NAMESPACE, "direct-routing.yaml")?;
    lab.await_serving(NAMESPACE, "web")?;
    lab.cluster.apply_text(
        NAMESPACE,
        r#"
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: twos}
spec:
  addresses: [172.16.2.219]
  ports: [{port: 80}]
  forwarding: {type: DR}
  scheduler: {name: twos}
  realServerSelector: {matchLabels: {app: web}}
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualRouter
metadata: {name: nowhere}
spec:
  directors: [{nodeName: lb-a}]
  interfaces: [{name: gone, devices: [eth77]}]
  addressPools: [{name: nowhere, addresses: [172.16.2.241], interfaceName: gone}]
  grants: [{namespaces: {from: All}, addressPoolNames: [nowhere], realServerNodes: All}]
---
apiVersion: lvs.dev/v1alpha1
kind: VirtualService
metadata: {name: nowhere}
spec:
  virtualRouterName: nowhere
  addresses: [172.16.2.241]
  ports: [{port: 80}]
  forwarding: {type: DR}
  realServerSelector: {matchLabels: {app: web}}
"#,
    )?;
    let message = lab.await_reason(
        &["-n", NAMESPACE, "lvsvs", "twos"],
        "Programmed",
        "KernelModuleMissing",
    )?;
    ensure!(
        message.contains("ip_vs_twos"),
        "the message names no module: {message}"
    );
    let message = lab.await_reason(
        &["-n", NAMESPACE, "lvsvs", "nowhere"],
        "Programmed",
        "InterfaceNotFound",
    )?;
    ensure!(
        message.contains("eth77"),
        "the message names no device: {message}"
    );
    lab.await_true(
        &["-n", NAMESPACE, "virtualservices.lvs.dev", "web"],
        "Programmed",
    )?;
    let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 3)?;
    ensure!(
        !spread.keys().any(|answer| answer.starts_with("failed")),
        "the others: {spread:?}"
    );
    // No real server matches: said, and nothing else disturbed.
    lab.cluster.kubectl(&[
        "-n",
        NAMESPACE,
        "label",
        "realservers.lvs.dev",
        "--all",
        "app-",
    ])?;
    lab.await_reason(
        &["-n", NAMESPACE, "lvsvs", "web"],
        "ResolvedRefs",
        "NoRealServers",
    )?;
    until(LIMIT, "no destinations left", || {
        let rules = lab.ipvs_rules("lb-a")?;
        Ok(
            if rules
                .iter()
                .any(|rule| rule.starts_with("-a -t 172.16.2.200"))
            {
                Err(rules)
            } else {
                Ok(())
            },
        )
    })
}

/// Runs the agent of a node with an altered container until `told` has been told.
fn with_container(
    lab: &Lab,
    node: &str,
    edit: &str,
    told: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let work = lab.agent_work(node)?;
    lab.guest.run(&format!(
        "cp {work}/run.sh {work}/run.sh.whole && sed -i {} {work}/run.sh",
        quote(edit)
    ))?;
    let changed = lab
        .guest
        .try_run(&format!("cmp -s {work}/run.sh {work}/run.sh.whole"))?;
    ensure!(
        changed.status == 1,
        "{edit} changed nothing in the container of {node}"
    );
    lab.signal_agent(node, "KILL", false)?;
    let result = told();
    lab.guest
        .run(&format!("mv {work}/run.sh.whole {work}/run.sh"))?;
    lab.signal_agent(node, "KILL", false)?;
    result
}

fn crippled(lab: &Lab) -> Result<()> {
    let words = ["-n", NAMESPACE, "virtualservices.lvs.dev", "web"];
    for (edit, status, reason) in [
        // What the kernel does not let it read, it does not claim to know.
        (
            "s/--drop=/--drop=cap_net_admin,/",
            "Unknown",
            "PermissionDenied",
        ),
        (
            r"s#mount -o bind '/proc/sys/net' \(.*\)#& \&\& mount -o remount,bind,ro \1#",
            "False",
            "SysctlReadOnly",
        ),
    ] {
        with_container(lab, "web-2", edit, || {
            lab.cluster
                .apply_example(NAMESPACE, "direct-routing.yaml")?;
            let plan = until(LIMIT, "the plan of web-2", || {
                Ok(plan_of(lab, "web-2").map_err(|error| format!("{error:#}")))
            })?;
            let plan = ["-n", OPERATOR_NAMESPACE, "nodeplan", &plan];
            let message = lab.await_condition(&plan, "Programmed", status, reason)?;
            ensure!(
                message.len() > 20,
                "{reason}: the message says nothing: {message}"
            );
            lab.await_condition(&words, "Programmed", status, reason)?;
            // The directors and the other real server are whole.
            let master = lab.await_holder("172.16.2.200")?;
            ensure!(
                !lab.ipvs_rules(&master)?.is_empty(),
                "{master} has no rules"
            );
            Ok(())
        })
        .with_context(|| format!("with {edit}"))?;
        lab.await_serving(NAMESPACE, "web")?;
        let spread = traffic::spread(&lab.guest, "client", "http://172.16.2.200/", 6)?;
        ensure!(
            spread == [("web-1".into(), 4), ("web-2".into(), 2)].into(),
            "whole again: {spread:?}"
        );
        super::clean(lab)?;
    }
    Ok(())
}
